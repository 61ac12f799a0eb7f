// Copies a file or tree by reference, as the user who asks. It is prepared beside the target, and complete before it
// gets
// its name.

import { closeSync, fstatSync, lstatSync, openSync, readdirSync } from "node:fs";
import type { BigIntStats } from "node:fs";
import { absolute, fromBuffer, show, split } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { CliError } from "../errors.js";
import { requireCp } from "./copy.js";
import type { Place } from "./copy.js";
import { errno, fromSystem } from "./failure.js";
import { kindOf, put } from "./restore.js";
import type { Kind } from "./restore.js";
import { isInHoldfast, resolveParents } from "./spot.js";
import { exists } from "./staging.js";
import { STEP, inside, openDirectory, walk } from "./walk.js";

export interface DuplicateOptions {
  from: Bytes;
  /** Ends in "/": into that directory. */
  to: Bytes;
  /** Entries that are copied, of how many; the last is unknown until it was counted. */
  progress: ((done: number, all: number) => void) | undefined;
}

export interface Duplicated {
  from: Bytes;
  path: Bytes;
  kind: Kind;
  /** Null: pages are shared. Otherwise why every byte was read and written, in words. */
  plain: string | null;
  warnings: string[];
}

/** @throws `Conflict`: it is there; `Invalid`: into itself; what system calls say. */
export async function duplicate({ from, to, progress }: DuplicateOptions): Promise<Duplicated> {
  requireCp();
  const source = resolveParents(from);
  const fds: number[] = [];
  try {
    const [directory, name] = openSource(source);
    fds.push(directory);
    const stats = lstatSync(inside(directory, name), { bigint: true });
    const path = resolveParents((to.endsWith("/") ? `${to}${split(source).at(-1) ?? ""}` : to) as Bytes);
    const above = absolute(split(path).slice(0, -1));
    const parent = openParent(above, path);
    fds.push(parent);
    const target: Place = { directory: parent, name: split(path).at(-1) ?? ("" as Bytes) };
    refuseInside({ source, stats, path, parent });
    const check = () => {
      if (target.name !== "" && exists(target) === undefined) return;
      throw new CliError(
        "Conflict",
        `${show(path)} is there`,
        `to copy into a directory: holdfast cp ${show(from)} DIRECTORY/`,
      );
    };
    check();
    const all = progress === undefined || !stats.isDirectory() ? 1 : count(directory, name);
    let done = 0;
    const warnings = await put({
      from: { directory, name },
      target,
      above,
      what: `copying ${show(source)} to ${show(path)}`,
      check,
      ...(progress === undefined ? {} : { entry: () => progress((done += 1), all) }),
    });
    return {
      from: source,
      path,
      kind: kindOf(stats),
      plain: whyPlain(stats, parent, source, above),
      warnings,
    };
  } catch (error) {
    throw fromSystem(error, `copying ${show(source)}`);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** From the root of everything: a link that is put in the way meanwhile leads nowhere. */
function openSource(source: Bytes): [number, Bytes] {
  const top = openDirectory("/");
  try {
    const names = split(source);
    return [walk(top, names.slice(0, -1)), names.at(-1) ?? ("." as Bytes)];
  } catch (error) {
    throw fromSystem(error, show(source));
  } finally {
    closeSync(top);
  }
}

function openParent(above: Bytes, path: Bytes): number {
  const top = openDirectory("/");
  try {
    return walk(top, split(above));
  } catch (error) {
    throw fromSystem(error, `${show(above)}, the directory of ${show(path)}`, "make it");
  } finally {
    closeSync(top);
  }
}

/** A tree that is copied into itself has no end. Told by what directories are, whatever they are called. */
function refuseInside(asked: { source: Bytes; stats: BigIntStats; path: Bytes; parent: number }): void {
  const { source, stats, path, parent } = asked;
  if (!stats.isDirectory()) return;
  let here = walk(parent, []);
  try {
    for (let last: BigIntStats | undefined; ;) {
      const at = fstatSync(here, { bigint: true });
      if (at.dev === stats.dev && at.ino === stats.ino)
        throw new CliError(
          "Invalid",
          `${show(path)} is in ${show(source)} itself`,
          "name a place outside of it",
        );
      if (last !== undefined && at.dev === last.dev && at.ino === last.ino) return;
      last = at;
      const up = openSync(inside(here, ".."), STEP);
      closeSync(here);
      here = up;
    }
  } finally {
    closeSync(here);
  }
}

/** Entries of a tree, itself among them; what cannot be listed is left to the copy to tell. */
function count(directory: number, name: Bytes): number {
  let all = 1;
  try {
    const names = readdirSync(inside(directory, name), { withFileTypes: true, encoding: "buffer" });
    const itself = names.some((entry) => entry.isDirectory()) ? walk(directory, [name]) : undefined;
    for (const entry of names) {
      all += entry.isDirectory() && itself !== undefined ? count(itself, fromBuffer(entry.name)) : 1;
    }
    if (itself !== undefined) closeSync(itself);
  } catch (error) {
    if (!["EACCES", "ENOENT", "ENOTDIR"].includes(errno(error))) throw error;
  }
  return all;
}

function whyPlain(stats: BigIntStats, parent: number, source: Bytes, above: Bytes): string | null {
  const volumes = [isInHoldfast(absolute(split(source).slice(0, -1))), isInHoldfast(above)];
  if (!volumes.includes(true)) return "neither is in a mounted volume";
  if (volumes.includes(false)) return `${show(volumes[0] === true ? above : source)} is in no mounted volume`;
  if (fstatSync(parent, { bigint: true }).dev === stats.dev) return null;
  return "they are in two mounts, and the kernel shares nothing between those";
}
