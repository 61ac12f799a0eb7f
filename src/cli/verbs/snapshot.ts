// holdfast snapshot create|list|rename|delete|hold|release

import type { Command } from "commander";
import type { SnapshotAnswer, WouldFreeAnswer } from "../../daemon/protocol.js";
import { contextOf, requireYes } from "../context.js";
import { CliError } from "../errors.js";
import { bytes, print, table } from "../output.js";

/** Points of one page. */
const PAGE = 1000;

export function addSnapshot(program: Command): void {
  const snapshot = program.command("snapshot").description("named states of a volume or group");
  addCreate(snapshot);
  addList(snapshot);
  addRename(snapshot);
  addDelete(snapshot);
  addHold(snapshot, "hold", true, "make a snapshot impossible to delete");
  addHold(snapshot, "release", false, "let a held snapshot be deleted again");
}

function addCreate(snapshot: Command): void {
  snapshot
    .command("create <target> <name>")
    .description("keep the state of a volume or group; takes no time and no space")
    .option("--at <time>", "of an earlier moment that is kept still: 10:31, -5m, 2026-11-22T10:31:07Z, lsn:N")
    .action(async (target: string, name: string, options: { at?: string }, command: Command) => {
      const { client, output } = contextOf(command);
      const made = await client.post<SnapshotAnswer>("/v1/snapshots", { target, name, ...options });
      print(
        output,
        made,
        () => `snapshot ${name} of group ${made.group} is kept: ${made.time}, LSN ${made.lsn}`,
      );
    });
}

interface ListOptions {
  seconds?: boolean;
  space?: boolean;
  after?: string;
  limit?: string;
}

function addList(snapshot: Command): void {
  snapshot
    .command("list <target>")
    .description("snapshots of a volume or group, oldest first")
    .option("--seconds", "with the seconds that are kept by themselves")
    .option("--space", "with what each holds, however long it takes to find out (default: where it is quick)")
    .option("--after <lsn>", "only later ones")
    .option("--limit <n>", "so many at most (default: all)")
    .action(async (target: string, options: ListOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const found: SnapshotAnswer[] = [];
      const limit = wholeNumber("--limit", options.limit) ?? Infinity;
      let after = wholeNumber("--after", options.after) ?? 0;
      while (found.length < limit) {
        const query = new URLSearchParams({
          target,
          after: `${after}`,
          limit: `${Math.min(PAGE, limit - found.length)}`,
          seconds: `${options.seconds === true}`,
          space: options.space === true ? "whole" : "quick",
        });
        const page = await client.get<SnapshotAnswer[]>(`/v1/snapshots?${query.toString()}`);
        found.push(...page);
        after = page.at(-1)?.lsn ?? after;
        if (page.length < PAGE) break;
      }
      print(output, found, () => snapshotTable(found));
    });
}

function wholeNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new CliError("Invalid", `${option} ${text}: a whole number is needed`, "");
}

function snapshotTable(snapshots: readonly SnapshotAnswer[]): string {
  const rows = snapshots.map(({ name, time, lsn, held, space = null }) => [
    name === "" ? "(second)" : name,
    time.replace(/(\.\d{3})\d+Z$/, "$1Z"),
    `${lsn}`,
    space === null ? "-" : bytes(space.uniqueBytes),
    space === null ? "-" : bytes(space.uniqueLastingBytes - space.uniqueBytes),
    space === null ? "-" : bytes(space.sharedBytes),
    held ? "held" : "",
  ]);
  return table(
    ["snapshot", "time", "lsn", "unique", "with seconds", "shared", ""],
    rows,
    "no snapshots; make one: holdfast snapshot create VOLUME NAME",
  );
}

function addRename(snapshot: Command): void {
  snapshot
    .command("rename <target> <name> <new-name>")
    .description("give a snapshot another name")
    .action(async (target: string, name: string, newName: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      await client.post(`${urlOf(target, name)}/rename`, { name: newName });
      print(output, { renamed: newName }, () => `snapshot ${name} is now ${newName}`);
    });
}

function addDelete(snapshot: Command): void {
  snapshot
    .command("delete <target> <name...>")
    .description("let snapshots go; what only they held is given back in the background")
    .option("--dry-run", "only say what that would give back")
    .option("--yes", "really do it")
    .action(async (target: string, names: string[], options: DeleteOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const which = names.length === 1 ? `snapshot ${names[0]}` : `${names.length} snapshots`;
      if (options.dryRun === true) {
        const free = await client.post<WouldFreeAnswer>("/v1/would-free", { target, names });
        print(output, free, () => whatIsFree(which, free));
        return;
      }
      requireYes(options, `deleting ${which} of ${target}`);
      for (const name of names) await client.delete(urlOf(target, name));
      const deleted = names.length === 1 ? names[0] : names;
      print(output, { deleted }, () => `${which} ${names.length === 1 ? "is" : "are"} gone`);
    });
}

interface DeleteOptions {
  dryRun?: boolean;
  yes?: boolean;
}

function whatIsFree(which: string, { bytes: now, laterBytes }: WouldFreeAnswer): string {
  const later =
    laterBytes === 0 ? "" : `, and ${bytes(laterBytes)} more once the kept seconds that hold it too are gone`;
  return `deleting ${which} would free ${now} bytes (${bytes(now)} of each copy)${later}`;
}

function addHold(snapshot: Command, verb: string, held: boolean, description: string): void {
  snapshot
    .command(`${verb} <target> <name>`)
    .description(description)
    .action(async (target: string, name: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      await client.post(`${urlOf(target, name)}/hold`, { held });
      print(output, { name, held }, () =>
        held ? `snapshot ${name} is held` : `snapshot ${name} is released`,
      );
    });
}

function urlOf(target: string, name: string): string {
  return `/v1/snapshots/${encodeURIComponent(target)}/${encodeURIComponent(name)}`;
}
