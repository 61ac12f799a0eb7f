// holdfast feed VOLUME: what happened, in order, from a cursor on.
//
// With --json a line a change, and after those of each page a line with the cursor behind them: whoever keeps that cursor
// together with what it did about the lines before is told each change once, whatever ends in between.

import { once } from "node:events";
import type { Command } from "commander";
import type { FeedAnswer, FeedChangeAnswer } from "../../daemon/protocol.js";
import { contextOf, showPath } from "../context.js";
import type { Context } from "../context.js";
import { CliError } from "../errors.js";
import { printable } from "../output.js";
import { userOf } from "../users.js";

const PAGE = 1000;
/** Seconds that one request waits for a change. */
const WAIT_S = 20;
const SIGNS = { added: "+", removed: "-", renamed: ">", changed: "M", attributes: "a" };

interface Options {
  from: string;
  follow?: boolean;
  coalesce?: boolean;
  limit?: string;
}

export function addFeed(program: Command): void {
  program
    .command("feed <volume>")
    .description("what happened to a volume, in order: names, contents, attributes, and who did it")
    .option("--from <where>", "a cursor; or a kept moment, `now`, `beginning`", "now")
    .option("--follow", "wait for what comes, until it is interrupted")
    .option("--coalesce", "tell each file once, instead of once for each second in which it changed")
    .option("--limit <n>", "stop after about so many changes")
    .action(async (volume: string, options: Options, command: Command) => {
      await feed(contextOf(command), volume, options);
    });
}

async function feed({ client, output }: Context, volume: string, options: Options): Promise<void> {
  let left = limitOf(options.limit);
  let from = options.from;
  let isFirst = true;
  for (;;) {
    const query = new URLSearchParams({
      from,
      limit: `${Math.min(left, PAGE)}`,
      wait: options.follow === true ? `${WAIT_S}` : "0",
      latest: `${isFirst}`,
      coalesce: `${options.coalesce === true}`,
    });
    const page = await client.get<FeedAnswer>(
      `/v1/volumes/${encodeURIComponent(volume)}/feed?${query.toString()}`,
    );
    left -= page.changes.length;
    const isLast = left <= 0 || (!page.more && options.follow !== true);
    const lines = output.json ? jsonLines(page, from) : textLines(page, isLast);
    await write(lines.map((line) => `${line}\n`).join(""));
    if (isLast) return;
    from = page.cursor;
    isFirst = false;
  }
}

function limitOf(text: string | undefined): number {
  if (text === undefined) return Infinity;
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw new CliError("Invalid", `--limit ${text}: a whole number above 0 is needed`);
}

/** A cursor that has not moved is not told again. */
function jsonLines({ changes, cursor, toldTo, more }: FeedAnswer, before: string): string[] {
  const end = { cursor, toldTo, more };
  return [...changes, ...(cursor === before ? [] : [end])].map((line) => JSON.stringify(line));
}

function textLines({ changes, cursor }: FeedAnswer, isLast: boolean): string[] {
  return [...changes.map(describe), ...(isLast ? [`cursor: ${cursor}`] : [])];
}

function describe(change: FeedChangeAnswer): string {
  const slash = change.type === "directory" ? "/" : "";
  const old = change.old === null ? "" : `${printable(showPath(change.old))} -> `;
  const { actor } = change;
  const program = actor?.command ?? (actor?.pid == null ? "" : `pid ${actor.pid}`);
  const who =
    actor === null ? "" : `  (${userOf(actor.uid) ?? actor.uid}${program === "" ? "" : `, ${program}`})`;
  const time = change.time.replace(/(\.\d{3})\d+Z$/, "$1Z");
  return `${time} ${change.lsn} ${SIGNS[change.op]} ${old}${printable(showPath(change))}${slash}${who}`;
}

/** As fast as whoever reads it takes it. */
async function write(text: string): Promise<void> {
  if (text !== "" && !process.stdout.write(text)) await once(process.stdout, "drain");
}
