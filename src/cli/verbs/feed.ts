// holdfast feed VOLUME: what happened, in order, from a cursor on.
//
// With --json a line a change, and after those of each page a line with the cursor behind them: whoever keeps that
// cursor together with what it did about the lines before is told each change once, whatever ends in between.

import { once } from "node:events";
import { closeSync, fsyncSync, openSync, renameSync, writeSync } from "node:fs";
import type { Command } from "commander";
import type { FeedAnswer, FeedChangeAnswer, PathJson, SnapshotAnswer } from "../../daemon/protocol.js";
import { contextOf, showPath } from "../context.js";
import type { Context } from "../context.js";
import { CliError } from "../errors.js";
import { CHANGE_SIGNS, printable } from "../output.js";
import { fromSystem } from "../past/failure.js";
import { describeActor } from "../users.js";

const PAGE = 1000;
/** Seconds that one request waits for a change. */
const WAIT_S = 20;

interface Options {
  from: string;
  follow?: boolean;
  coalesce?: boolean;
  limit?: string;
  paths0?: boolean;
  removed?: string;
  save?: string;
  keep?: string;
}

export function addFeed(program: Command): void {
  program
    .command("feed <volume>")
    .description("what happened to a volume, in order: names, contents, attributes, and who did it")
    .option("--from <where>", "a cursor; or a kept moment, `now`, `beginning`", "now")
    .option("--follow", "wait for what comes, until it is interrupted")
    .option("--coalesce", "tell each file once, instead of once for each second in which it changed")
    .option("--limit <n>", "stop after about so many changes")
    .option("--paths0", "print what a backup reads: paths, each with a NUL behind it")
    .option("--removed <file>", "with --paths0: write there the names that went, each with a NUL behind it")
    .option(
      "--keep <name>",
      "hold the history that the cursor needs: as snapshots NAME-LSN, until a later run has begun behind them",
    )
    .option("--save <file>", "put the cursor there when all is printed: {cursor, toldTo}")
    .action(async (volume: string, options: Options, command: Command) => {
      await feed(contextOf(command), volume, options);
    });
}

async function feed(context: Context, volume: string, options: Options): Promise<void> {
  if (options.removed !== undefined && options.paths0 !== true)
    throw new CliError("Invalid", "--removed goes with --paths0");
  let left = limitOf(options.limit);
  let from = options.from;
  const removed = options.removed === undefined ? undefined : create(options.removed);
  for (let isFirst = true; ; isFirst = false) {
    const limit = Math.min(left, PAGE);
    const page = await ask(context, volume, { ...options, from, limit, isFirst });
    if (isFirst && options.keep !== undefined) await letGo(context, volume, options.keep, page);
    left -= page.changes.length;
    const isLast = left <= 0 || (!page.more && options.follow !== true);
    await write(content(context, page, { ...options, from, isLast }));
    if (removed !== undefined) writeSync(removed, paths0(page.changes.flatMap(namesGone)));
    if (isLast) {
      if (removed !== undefined) closeSync(removed);
      if (options.keep !== undefined) await keep(context, volume, options.keep, page);
      if (options.save !== undefined) save(options.save, page);
      return;
    }
    from = page.cursor;
  }
}

async function ask(
  { client }: Context,
  volume: string,
  asked: Omit<Options, "limit"> & { limit: number; isFirst: boolean },
): Promise<FeedAnswer> {
  const query = new URLSearchParams({
    from: asked.from,
    limit: `${asked.limit}`,
    wait: asked.follow === true ? `${WAIT_S}` : "0",
    latest: `${asked.isFirst}`,
    coalesce: `${asked.coalesce === true}`,
  });
  return await client.get<FeedAnswer>(`/v1/volumes/${encodeURIComponent(volume)}/feed?${query.toString()}`);
}

/** Whoever comes back with a cursor needs nothing from before it any more. */
async function letGo({ client }: Context, volume: string, name: string, { beganAt }: FeedAnswer) {
  for (let after = 0; ;) {
    const query = new URLSearchParams({ target: volume, after: `${after}`, limit: `${PAGE}` });
    const found = await client.get<SnapshotAnswer[]>(`/v1/snapshots?${query.toString()}`);
    const old = found.filter((point) => point.name === `${name}-${point.lsn}` && point.lsn < beganAt);
    for (const point of old)
      await client.delete(`/v1/snapshots/${encodeURIComponent(volume)}/${encodeURIComponent(point.name)}`);
    after = found.at(-1)?.lsn ?? 0;
    if (found.length < PAGE) return;
  }
}

/** A cursor needs the state that it stands on, and the next one where it stands in between. */
async function keep({ client }: Context, volume: string, name: string, page: FeedAnswer): Promise<void> {
  const last = page.changes.at(-1)?.seenAt ?? 0;
  for (const lsn of new Set([page.toldTo, Math.max(last, page.toldTo)].filter((point) => point > 0))) {
    try {
      await client.post("/v1/snapshots", { target: volume, name: `${name}-${lsn}`, at: `lsn:${lsn}` });
    } catch (error) {
      // It has a name already: ours, or that of somebody who keeps it for us.
      if (
        !(error instanceof CliError) ||
        error.code !== "Conflict" ||
        !/ already: | exists$/.test(error.message)
      )
        throw error;
    }
  }
}

function limitOf(text: string | undefined): number {
  if (text === undefined) return Infinity;
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw new CliError("Invalid", `--limit ${text}: a whole number above 0 is needed`);
}

/** What is printed of a page. */
function content(
  { output }: Context,
  page: FeedAnswer,
  { paths0: asPaths, from, isLast }: Options & { isLast: boolean },
): Buffer {
  if (asPaths === true) return paths0(page.changes.filter(isToBeRead));
  const lines = output.json ? jsonLines(page, from) : textLines(page, isLast);
  return Buffer.from(lines.map((line) => `${line}\n`).join(""));
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
  const old = change.old === null ? "" : `${showPath(change.old)} -> `;
  const who = describeActor(change.actor);
  const time = change.time.replace(/(\.\d{3})\d+Z$/, "$1Z");
  const line = `${time} ${change.lsn} ${CHANGE_SIGNS[change.op]} ${old}${showPath(change)}${slash}`;
  return who === "" ? line : `${line}  by ${who}`;
}

/** Directories that only changed are left out, since a backup reads all that is below what it is told. */
function isToBeRead({ op, type, path }: FeedChangeAnswer): boolean {
  if (op === "removed" || path === "") return false;
  return type !== "directory" || op !== "attributes";
}

function namesGone({ op, old, path, path_base64 }: FeedChangeAnswer): PathJson[] {
  if (op === "removed") return [{ path, path_base64 }];
  return old === null ? [] : [old];
}

function paths0(paths: readonly PathJson[]): Buffer {
  const end = Buffer.of(0);
  return Buffer.concat(
    paths.flatMap(({ path, path_base64 }) => [
      path === undefined ? Buffer.from(path_base64 ?? "", "base64") : Buffer.from(path),
      end,
    ]),
  );
}

/** As fast as whoever reads it takes it. */
async function write(bytes: Buffer): Promise<void> {
  if (bytes.length > 0 && !process.stdout.write(bytes)) await once(process.stdout, "drain");
}

function create(path: string): number {
  try {
    return openSync(path, "w", 0o600);
  } catch (error) {
    throw fromSystem(error, `writing ${printable(path)}`);
  }
}

/** Whole or not at all, and durably: the next run begins there. */
function save(path: string, { cursor, toldTo }: FeedAnswer): void {
  const draft = `${path}.${process.pid}`;
  const file = create(draft);
  try {
    writeSync(file, `${JSON.stringify({ cursor, toldTo })}\n`);
    fsyncSync(file);
    renameSync(draft, path);
  } catch (error) {
    throw fromSystem(error, `writing ${printable(path)}`);
  } finally {
    closeSync(file);
  }
}
