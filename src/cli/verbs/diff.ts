// holdfast diff VOLUME FROM [TO]

import type { Command } from "commander";
import type { DifferenceAnswer, FileChangeAnswer } from "../../daemon/protocol.js";
import type { Client } from "../client.js";
import { contextOf, showPath } from "../context.js";
import { CHANGE_SIGNS, print } from "../output.js";
import { describeActor } from "../users.js";

const PAGE = 1000;

export function addDiff(program: Command): void {
  program
    .command("diff <volume> <from> [to]")
    .description(
      "files that differ between two kept moments (default: and now), without reading what does not",
    )
    .option("--ranges", "with the bytes that may differ")
    .option("--who", "with who made the newest change of each")
    .action(
      async (
        volume: string,
        from: string,
        to: string | undefined,
        options: DifferenceOptions,
        command: Command,
      ) => {
        const { client, output } = contextOf(command);
        const answer = await fetchDifference(client, volume, { from, to });
        print(output, answer, () => describeDifference(answer, options));
      },
    );
}

export interface WholeDifference extends Omit<DifferenceAnswer, "next"> {
  changes: FileChangeAnswer[];
}

/** All pages, by path. */
export async function fetchDifference(
  client: Client,
  volume: string,
  { from, to }: { from: string; to?: string | undefined },
): Promise<WholeDifference> {
  const changes: FileChangeAnswer[] = [];
  let page: DifferenceAnswer | undefined;
  do {
    // Later pages are about the same two states.
    const later: string | undefined = page === undefined ? to : `lsn:${page.to.lsn}`;
    const query = new URLSearchParams({
      from: page === undefined ? from : `lsn:${page.from.lsn}`,
      ...(later === undefined ? {} : { to: later }),
      first: `${page?.next ?? 0}`,
      limit: `${PAGE}`,
    });
    page = await client.get<DifferenceAnswer>(
      `/v1/volumes/${encodeURIComponent(volume)}/difference?${query.toString()}`,
    );
    changes.push(...page.changes);
  } while (page.next !== null);
  changes.sort((left, right) => compareText(showPath(left), showPath(right)));
  return { from: page.from, to: page.to, changes };
}

export interface DifferenceOptions {
  ranges?: boolean;
  who?: boolean;
}

export function describeDifference(
  { from, to, changes }: WholeDifference,
  options: DifferenceOptions,
): string {
  return [
    ...changes.map((change) => describe(change, options)),
    `${changes.length} differences between ${from.time} and ${to.time}`,
  ].join("\n");
}

function compareText(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}

function describe(change: FileChangeAnswer, options: DifferenceOptions): string {
  const slash = change.type === "directory" ? "/" : "";
  const where = change.old === null ? "" : `${showPath(change.old)} -> `;
  const who = options.who === true ? describeActor(change.actor) : "";
  const by = who === "" ? "" : `  by ${who}`;
  const line = `${CHANGE_SIGNS[change.kind]} ${where}${showPath(change)}${slash}${by}`;
  if (options.ranges !== true || change.ranges.length === 0) return line;
  return `${line}\n${change.ranges.map(({ offset, length }) => `    ${offset} +${length}`).join("\n")}`;
}
