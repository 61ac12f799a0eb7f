// holdfast snapshot create|list|rename|delete|hold|release, holdfast clone

import type { Command } from "commander";
import type { SnapshotAnswer, VolumeAnswer } from "../../daemon/protocol.js";
import { contextOf, requireYes } from "../context.js";
import { CliError } from "../errors.js";
import { print, table } from "../output.js";

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
  after?: string;
  limit?: string;
}

function addList(snapshot: Command): void {
  snapshot
    .command("list <target>")
    .description("snapshots of a volume or group, oldest first")
    .option("--seconds", "with the seconds that are kept by themselves")
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
  const rows = snapshots.map(({ name, time, lsn, held }) => [
    name === "" ? "(second)" : name,
    time.replace(/(\.\d{3})\d+Z$/, "$1Z"),
    `${lsn}`,
    held ? "held" : "",
  ]);
  return table(
    ["snapshot", "time", "lsn", ""],
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
    .command("delete <target> <name>")
    .description("let a snapshot go; what only it held is given back in the background")
    .option("--yes", "really do it")
    .action(async (target: string, name: string, options: { yes?: boolean }, command: Command) => {
      const { client, output } = contextOf(command);
      requireYes(options, `deleting snapshot ${name} of ${target}`);
      await client.delete(urlOf(target, name));
      print(output, { deleted: name }, () => `snapshot ${name} is gone`);
    });
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

export function addClone(program: Command): void {
  program
    .command("clone <source> <name>")
    .description("a writable copy of a volume or group, as it is or was; costs what is written to it")
    .option(
      "--at <point>",
      "a snapshot's name, or a moment that is kept: 10:31, -5m, 2026-11-22T10:31:07Z, lsn:N",
    )
    .action(async (source: string, name: string, options: { at?: string }, command: Command) => {
      const { client, output } = contextOf(command);
      const made = await client.post<VolumeAnswer[]>("/v1/clones", { source, name, ...options });
      const names = made.map((volume) => volume.name).join(", ");
      print(output, made, () => `${names}: a clone of ${source}, ready to be mounted`);
    });
}
