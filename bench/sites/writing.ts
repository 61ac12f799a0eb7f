// The steady writer as a child, and percentiles of what was looked at meanwhile.

import { closeSync, openSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { outputOf } from "../load.js";

export interface Written {
  bytes: number;
  writes: number;
  /** Bytes of the file that were changed at least once. */
  distinct: number;
  /** The slowest write. */
  longestMs: number;
  seconds: number;
}

export interface Writing {
  mib: number;
  /** MiB a second. */
  rate: number;
  seconds: number;
  seed: number;
}

/** A file of zero bytes, really written. */
export function makeFile(path: string, mib: number): void {
  const file = openSync(path, "w");
  const piece = Buffer.alloc(2 ** 20, 1);
  for (let done = 0; done < mib; done += 1) writeSync(file, piece);
  closeSync(file);
}

export async function writeSteadily(path: string, { mib, rate, seconds, seed }: Writing): Promise<Written> {
  const program = join(dirname(fileURLToPath(import.meta.url)), "writer.js");
  const args = [program, path, mib, rate, seconds, seed].map(String);
  return JSON.parse(await outputOf(process.execPath, args)) as Written;
}

/** The value below which that share of them is. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((one, two) => one - two);
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? NaN;
}

/** Calls `look` in steps until `work` is done, and once more; the work's result. */
export async function watching<T>(work: Promise<T>, everyMs: number, look: () => Promise<void>): Promise<T> {
  let going = true;
  const done = work.finally(() => {
    going = false;
  });
  while (going) {
    await look();
    await Promise.race([done, new Promise((next) => setTimeout(next, everyMs))]);
  }
  await look();
  return await done;
}
