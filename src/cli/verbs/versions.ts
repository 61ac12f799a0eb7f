// holdfast versions PATH: through the mount, as the user who asks.

import type { Command } from "commander";
import { toPathBytes } from "../argv.js";
import { show, toJson } from "../bytes.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { bytes, print, table } from "../output.js";
import { History, Points } from "../past/points.js";
import { findSpot } from "../past/spot.js";
import { versionsOf } from "../past/versions.js";
import type { Attributes, Version } from "../past/versions.js";
import { describeActor } from "../users.js";

export function addVersions(program: Command): void {
  program
    .command("versions <path>")
    .description("what a file or directory was at the times that are kept, newest first; it may be gone now")
    .option("--limit <n>", "so many at most (default: all)")
    .action((path: string, options: { limit?: string }, command: Command) => {
      const { output } = contextOf(command);
      const spot = findSpot(toPathBytes(path));
      const points = new Points(spot.mount);
      const versions = versionsOf(new History(points, spot.names), limitOf(options.limit));
      if (versions.every(({ state }) => state === "absent")) {
        const hint = `names that were in a directory and are not now: holdfast undelete --list DIRECTORY`;
        throw new CliError("NotFound", `${show(spot.path)} was never there: ${points.window}`, hint);
      }
      print(output, { ...toJson(spot.path), versions }, () => versionTable(versions));
    });
}

function limitOf(text: string | undefined): number {
  if (text === undefined) return Infinity;
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new CliError("Invalid", `--limit ${text}: a whole number above 0 is needed`);
}

function versionTable(versions: readonly Version[]): string {
  const rows = versions.map((version) => [
    version.from ?? (version.held ? "(not kept yet)" : `(made ${shorten(version.since ?? "")})`),
    version.now ? "now" : (version.to ?? ""),
    version.change === "first" ? "" : version.change,
    whatItWas(version),
    ...columnsOf(version.attributes),
    describeActor(version.writer),
  ]);
  const head = ["from", "to", "change", "what", "size", "modified", "mode", "owner", "changed by"];
  return table(head, rows, "no versions");
}

function whatItWas({ state, held, attributes }: Version): string {
  if (!held) return "not held any more";
  if (state === "absent") return "not there";
  return state === "denied" ? "not yours to see" : (attributes?.kind ?? "");
}

/** To the millisecond. */
function shorten(time: string): string {
  return time.replace(/(\.\d{3})\d+Z$/, "$1Z");
}

/** Size, time, mode and owner. */
export function columnsOf(attributes: Attributes | null): string[] {
  if (attributes === null) return ["", "", "", ""];
  const { size, mtime, mode, uid, gid } = attributes;
  return [bytes(size), shorten(mtime), mode, `${uid}:${gid}`];
}
