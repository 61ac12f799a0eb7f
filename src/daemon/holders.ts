// Who keeps a mount busy: processes with an open file, a working directory, a root or a program in it.

import { readdir, readFile, readlink } from "node:fs/promises";
import { isWithin } from "../io-path/paths.js";

export interface Holder {
  pid: number;
  command: string;
  /** What it holds: `cwd`, `root`, `exe`, `fd 3`. */
  what: string;
}

/** Holders named at most. */
const HOLDERS_MAX = 16;

/** Sees only what /proc shows this user. Never touches the mount itself, so it cannot hang on it. */
export async function holdersOf(dir: Buffer): Promise<Holder[]> {
  const holders: Holder[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const what = await whatHolds(`/proc/${name}`, dir);
    if (what === undefined) continue;
    holders.push({ pid: Number(name), command: await commandOf(name), what });
    if (holders.length >= HOLDERS_MAX) break;
  }
  return holders;
}

async function whatHolds(proc: string, dir: Buffer): Promise<string | undefined> {
  for (const link of ["cwd", "root", "exe"]) {
    if (await pointsInto(`${proc}/${link}`, dir)) return link;
  }
  const descriptors = await readdir(`${proc}/fd`).catch(() => []);
  for (const fd of descriptors) {
    if (await pointsInto(`${proc}/fd/${fd}`, dir)) return `fd ${fd}`;
  }
  return undefined;
}

async function pointsInto(link: string, dir: Buffer): Promise<boolean> {
  // Gone or not ours to see: no holder that we could name.
  const target = await readlink(link, "buffer").catch(() => undefined);
  return target !== undefined && isWithin(target, dir);
}

async function commandOf(pid: string): Promise<string> {
  return (await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "?")).trim();
}
