// Brings what was back, as the user who asks: the kernel checks the rights of that time when it is read and those of
// now when it is written. Nothing is changed before the copy is complete; then it gets its name.

import { closeSync, constants, fsyncSync, lstatSync, openSync, readdirSync } from "node:fs";
import type { BigIntStats } from "node:fs";
import { absolute, show, split } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { CliError } from "../errors.js";
import { copy, requireCp, syncFileSystem } from "./copy.js";
import type { Place } from "./copy.js";
import { fromSystem } from "./failure.js";
import { isInHoldfast, resolveParents } from "./spot.js";
import type { Spot } from "./spot.js";
import { Staging, NEW, exists } from "./staging.js";
import { inside, openDirectory, walk } from "./walk.js";

export interface RestoreOptions {
  /** The root of that time, as a descriptor. */
  root: number;
  spot: Spot;
  /** Where to; absent: where it was. Ends in "/": into that directory. */
  to?: Bytes | undefined;
  /** May replace a directory that is not empty. */
  yes: boolean;
  /** May replace anything at all. */
  replace: boolean;
  when: string;
}

export interface Restored {
  path: Bytes;
  kind: Kind;
  replaced: boolean;
  warnings: string[];
}

export type Kind = "file" | "directory" | "symlink" | "other";

export function kindOf(stats: BigIntStats): Kind {
  if (stats.isFile()) return "file";
  if (stats.isDirectory()) return "directory";
  return stats.isSymbolicLink() ? "symlink" : "other";
}

export async function restore(options: RestoreOptions): Promise<Restored> {
  requireCp();
  const { root, spot, when } = options;
  const name = spot.names.at(-1);
  const fds: number[] = [];
  try {
    const parent = stepTo(
      () => walk(root, spot.names.slice(0, -1)),
      `${show(spot.path)} in the state of ${when}`,
      spot,
    );
    fds.push(parent);
    const from = { directory: parent, name: name ?? ("." as Bytes) };
    const stats = stepTo(
      () => lstatSync(inside(from.directory, from.name), { bigint: true }),
      `${show(spot.path)} in the state of ${when}`,
      spot,
    );
    const path = targetOf(options);
    const above = absolute(split(path).slice(0, -1));
    const target = { directory: openParent(above, options), name: split(path).at(-1) ?? ("" as Bytes) };
    fds.push(target.directory);
    const before = exists(target);
    const check = () => checkTarget({ target, stats, path, options });
    check();
    const what = `copying ${show(path)} as it was at ${when}`;
    const warnings = await put({ from, target, above, what, check });
    return { path, kind: kindOf(stats), replaced: before !== undefined, warnings };
  } catch (error) {
    throw fromSystem(error, `restoring ${show(spot.path)}`);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

function stepTo<T>(work: () => T, what: string, spot: Spot): T {
  try {
    return work();
  } catch (error) {
    throw fromSystem(error, what, `when it was there: holdfast versions ${show(spot.path)}`);
  }
}

function targetOf({ spot, to }: RestoreOptions): Bytes {
  if (to === undefined) {
    if (spot.names.length > 0) return spot.path;
    throw new CliError(
      "Invalid",
      `${show(spot.path)} is a volume's root, which cannot be replaced`,
      "name another place: --to",
    );
  }
  const name = spot.names.at(-1) ?? "";
  const path = resolveParents((to.endsWith("/") ? `${to}${name}` : to) as Bytes);
  if (path === "/") throw new CliError("Invalid", "--to: the root cannot be replaced");
  return path;
}

/** From the root of everything, so that no link put in the way meanwhile leads elsewhere. */
function openParent(above: Bytes, { spot, to }: RestoreOptions): number {
  const top = openDirectory("/");
  try {
    return walk(top, split(above));
  } catch (error) {
    const hint =
      to === undefined
        ? `bring it back first: holdfast undelete ${show(above)}; or restore elsewhere with --to`
        : "make it";
    throw fromSystem(error, `${show(above)}, the directory of ${show(to ?? spot.path)}`, hint);
  } finally {
    closeSync(top);
  }
}

interface Check {
  target: Place;
  stats: BigIntStats;
  path: Bytes;
  options: RestoreOptions;
}

/** May what is there now be replaced? */
function checkTarget({ target, stats, path, options }: Check): void {
  const before = exists(target);
  if (before === undefined) return;
  if (!options.replace) {
    const hint = `an earlier state of it: holdfast versions ${show(path)}, holdfast restore ${show(path)} --at TIME`;
    throw new CliError("Conflict", `${show(path)} is there`, hint);
  }
  if (!before.isDirectory()) return;
  if (before.dev !== lstatSync(inside(target.directory, "."), { bigint: true }).dev) {
    throw new CliError("Conflict", `${show(path)} is a mount point`, "name another place: --to");
  }
  if (!stats.isDirectory() && options.to !== undefined) {
    throw new CliError("Conflict", `${show(path)} is a directory`, `to restore into it: --to ${show(path)}/`);
  }
  if (options.yes || isEmpty(target)) return;
  throw new CliError(
    "NeedsYes",
    `${show(path)} is a directory that is not empty: what is in it now would go`,
    "add --yes to replace it, or restore beside it with --to",
  );
}

function isEmpty({ directory, name }: Place): boolean {
  const itself = walk(directory, [name]);
  try {
    return readdirSync(inside(itself, ".")).length === 0;
  } finally {
    closeSync(itself);
  }
}

interface Put {
  from: Place;
  target: Place;
  /** The target's directory. */
  above: Bytes;
  /** For messages. */
  what: string;
  /** May what is there now be replaced? */
  check: () => void;
  /** Is called for each entry that is copied. */
  entry?: () => void;
}

/**
 * 1. The copy is made in the staging folder. A failure removes it; the target was not touched.
 * 2. Outside of a volume it is made durable. A volume's changes are durable in the order in which they were made.
 * 3. It gets its name (`Staging.place`).
 * 4. That is made durable. 5. The staging folder goes, with what was replaced.
 */
export async function put({ from, target, above, what, check, entry }: Put): Promise<string[]> {
  process.umask(0o077);
  const staging = await Staging.open(target, above);
  const warnings: string[] = [];
  try {
    // What a killed restore had moved aside may be back.
    check();
    const inVolume = isInHoldfast(above);
    const said = await copy({
      from,
      to: { directory: staging.directory, name: NEW },
      exact: inVolume,
      what,
      started: (pid) => staging.note(pid),
      entry,
    });
    if (said !== "") warnings.push(said);
    if (!inVolume) syncFileSystem(staging.directory);
    staging.place();
    fsyncSync(staging.directory);
    if (!inVolume) syncDirectory(target.directory);
  } finally {
    const left = staging.remove();
    if (left !== "") warnings.push(`${show(above)}/${staging.name} is left: ${left}`);
  }
  return warnings;
}

function syncDirectory(directory: number): void {
  const readable = openSync(inside(directory, "."), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(readable);
  } finally {
    closeSync(readable);
  }
}
