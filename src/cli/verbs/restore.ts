// holdfast restore PATH --at TIME, holdfast undelete PATH: through the mount, as the user who asks.

import { closeSync } from "node:fs";
import type { Command } from "commander";
import { toPathBytes } from "../argv.js";
import { show, toJson } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { print, table } from "../output.js";
import type { Output } from "../output.js";
import { fromSystem } from "../past/failure.js";
import { History, Points } from "../past/points.js";
import { restore } from "../past/restore.js";
import type { Restored } from "../past/restore.js";
import { findSpot } from "../past/spot.js";
import { namesGone, newestThere } from "../past/versions.js";
import { columnsOf } from "./versions.js";

export function addRestore(program: Command): void {
  program
    .command("restore <path>")
    .description("bring back a file or directory as it was; nothing that is kept is lost by it")
    .requiredOption(
      "--at <time>",
      'a snapshot\'s name, or a moment that is kept: 10:31, -5m, "yesterday 14:00", 2026-11-22T10:31:07Z, lsn:N',
    )
    .option("--to <path>", "not where it was, but there; DIRECTORY/ with the slash: into it")
    .option("--yes", "also in place of a directory that is not empty")
    .action(async (path: string, options: { at: string; to?: string; yes?: boolean }, command: Command) => {
      const { output } = contextOf(command);
      const spot = findSpot(toPathBytes(path));
      const root = new Points(spot.mount).openWords(options.at);
      const to = options.to === undefined ? undefined : toPathBytes(options.to);
      const yes = options.yes === true;
      const done = await restore({ root, spot, to, yes, replace: true, when: options.at }).finally(() =>
        closeSync(root),
      );
      tell(output, done, options.at);
    });
}

function tell(output: Output, done: Restored, at: string): void {
  const { path, kind, replaced, warnings } = done;
  print(output, { ...toJson(path), at, kind, replaced, warnings }, () =>
    [`${show(path)} is as it was at ${at}`, ...warnings.map((warning) => `warning: ${warning}`)].join("\n"),
  );
}

export function addUndelete(program: Command): void {
  program
    .command("undelete <path>")
    .description("bring back what is gone, as it was when it was seen last")
    .option("--list", "of a directory: the names that it had and has not now")
    .action(async (path: string, options: { list?: boolean }, command: Command) => {
      const { output } = contextOf(command);
      const spot = findSpot(toPathBytes(path));
      const points = new Points(spot.mount);
      const history = new History(points, spot.names);
      if (options.list === true) {
        list(output, spot.path, history);
        return;
      }
      const when = history.at(history.present).state === "there" ? undefined : newestThere(history);
      if (when === undefined) throw nothingToUndelete(history, spot.path);
      const root = points.openPoint(when);
      if (root === undefined) throw fromSystem({ code: "ESTALE" }, `opening the state of ${when}`);
      const done = await restore({ root, spot, yes: false, replace: false, when }).finally(() =>
        closeSync(root),
      );
      tell(output, done, when);
    });
}

function nothingToUndelete(history: History, path: Bytes): CliError {
  const shown = show(path);
  if (history.at(history.present).state === "there") {
    const hint = `an earlier state of it: holdfast versions ${shown}, then holdfast restore ${shown} --at TIME`;
    return new CliError("Conflict", `${shown} is there`, hint);
  }
  const hint = "names that are gone from a directory: holdfast undelete --list DIRECTORY";
  return new CliError("NotFound", `${shown} is in no kept state: ${history.points.window}`, hint);
}

function list(output: Output, directory: Bytes, history: History): void {
  const gone = namesGone(history);
  const json = gone.map(({ name, at, attributes }) => ({ ...toJson(name), at, ...attributes }));
  print(output, json, () =>
    table(
      ["name", "was there at", "what", "size", "modified", "mode", "owner"],
      gone.map(({ name, at, attributes }) => [show(name), at, attributes.kind, ...columnsOf(attributes)]),
      `nothing is gone from ${show(directory)}: ${history.points.window}`,
    ),
  );
}
