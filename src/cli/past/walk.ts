// Walks along names, from directory to directory, on descriptors: openat2(RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH) made
// of one open a name. A name cannot contain "/", "." and ".." are none, and a symbolic link is not a directory.

import { closeSync, constants, fstatSync, lstatSync, openSync } from "node:fs";
import type { BigIntStats } from "node:fs";
import { raw } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { errno } from "./failure.js";

/** Linux, every architecture that Node runs on. Asks for the right to search only, like a path does. */
const O_PATH = 0o10_000_000;
export const STEP = O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** A name in an open directory, as a path for one system call. */
export function inside(directory: number, name: Bytes | string): Buffer {
  return raw(`/proc/self/fd/${directory}/${name}` as Bytes);
}

export function openDirectory(path: Bytes | string): number {
  return openSync(raw(path as Bytes), O_PATH | constants.O_DIRECTORY);
}

/** Opens the directory below `start`; `start` stays open. */
export function walk(start: number, names: readonly Bytes[]): number {
  let here = openSync(inside(start, "."), STEP);
  for (const name of names) {
    try {
      const next = openSync(inside(here, name), STEP);
      closeSync(here);
      here = next;
    } catch (error) {
      closeSync(here);
      throw error;
    }
  }
  return here;
}

/** What stands at a place. Equal `key`s at two moments: unchanged in between. */
export interface Look {
  state: "there" | "absent" | "denied";
  key: string;
  stats: BigIntStats | undefined;
}

/** The past shows the present's inode numbers with a view's number above them. */
const INODE_BITS = 48n;

export function inode(stats: BigIntStats): bigint {
  return BigInt.asUintN(Number(INODE_BITS), stats.ino);
}

/**
 * Looks at a place below `start`. What is there is known by inode, size and ctime, which grows with every change;
 * what is not, by the ctime of the directory in which the first name is missing.
 */
export function look(start: number, names: readonly Bytes[]): Look {
  const last = names.at(-1);
  if (last === undefined) return there(fstatSync(start, { bigint: true }), "");
  let here = openSync(inside(start, "."), STEP);
  let trail = "";
  try {
    for (const name of names.slice(0, -1)) {
      const next = tryTo(() => openSync(inside(here, name), STEP));
      if (typeof next === "string") return missing(next, here, trail);
      closeSync(here);
      here = next;
      trail += `${inode(fstatSync(here, { bigint: true }))}/`;
    }
    const stats = tryTo(() => lstatSync(inside(here, last), { bigint: true }));
    return typeof stats === "string" ? missing(stats, here, trail) : there(stats, trail);
  } finally {
    closeSync(here);
  }
}

function there(stats: BigIntStats, trail: string): Look {
  const key = `${trail}${inode(stats)} ${stats.ctimeNs} ${stats.size} ${stats.mode}`;
  return { state: "there", key, stats };
}

function missing(reason: "absent" | "denied", directory: number, trail: string): Look {
  const { ctimeNs } = fstatSync(directory, { bigint: true });
  return { state: reason, key: `${reason} ${trail}${ctimeNs}`, stats: undefined };
}

/** What makes a name one that is not there, or not for us; other failures are failures. */
function tryTo<T>(work: () => T): T | "absent" | "denied" {
  try {
    return work();
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"].includes(errno(error))) return "absent";
    if (errno(error) === "EACCES") return "denied";
    throw error;
  }
}
