// What the benches of the past share: what they are asked for, a daemon that is always ended, many files, times.

import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Daemon } from "../daemon.js";
import type { Making } from "../daemon.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { FILES_A_DIRECTORY } from "./layout.js";

export interface Wishes {
  /** GiB of each of the three drives at most. */
  driveGib: number;
  /** In the large volume. */
  files: number;
  /** MiB of the file that is restored. */
  restoreMib: number;
  /** How often something short is timed. */
  turns: number;
  points: number;
  /** Clones of clones. */
  generations: number;
  /** MiB of each file that is read, and files of each tree. */
  readMib: number;
  treeFiles: number;
  /** Of the file that is overwritten, MiB. */
  costMib: number;
  /** Of overwriting, with and without a past. */
  minutes: number;
  /** Of a database. */
  clones: number;
}

export const FULL: Wishes = {
  driveGib: 3,
  files: 1_000_000,
  restoreMib: 1024,
  turns: 21,
  points: 100_000,
  generations: 100,
  readMib: 256,
  treeFiles: 2000,
  costMib: 32,
  minutes: 10,
  clones: 50,
};

/** Whether everything works; the figures mean nothing. */
export const QUICK: Wishes = {
  driveGib: 1,
  files: 10_000,
  restoreMib: 64,
  turns: 11,
  points: 2000,
  generations: 12,
  readMib: 32,
  treeFiles: 200,
  costMib: 16,
  minutes: 0.5,
  clones: 3,
};

// --- daemons --------------------------------------------------------------------------------------------------------

const running = new Set<Daemon>();

/** Ends every daemon: what waits for them fails, and cleans up. */
export function endAll(): void {
  for (const { child } of running) child.kill("SIGINT");
}

/** A daemon for as long as `act` runs; it ends and its folder goes whatever happens. */
export async function withDaemon<T>(
  place: Place,
  making: Making,
  act: (daemon: Daemon) => Promise<T>,
): Promise<T> {
  try {
    return await beside(await Daemon.start(place.root, place.folder, making), act);
  } finally {
    rmSync(place.folder, { recursive: true, force: true });
  }
}

/** Two, one after the other, with the same folder: what the first wrote lies on the drives when the second begins. */
export async function withDaemons<T, U>(
  place: Place,
  making: Making,
  first: (daemon: Daemon) => Promise<T>,
  second: (daemon: Daemon, found: T) => Promise<U>,
): Promise<U> {
  try {
    const start = () => Daemon.start(place.root, place.folder, making);
    const found = await beside(await start(), first);
    return await beside(await start(), (daemon) => second(daemon, found));
  } finally {
    rmSync(place.folder, { recursive: true, force: true });
  }
}

async function beside<T>(daemon: Daemon, act: (daemon: Daemon) => Promise<T>): Promise<T> {
  running.add(daemon);
  try {
    return await act(daemon);
  } finally {
    running.delete(daemon);
    await daemon.stop();
  }
}

/** Of a drive that needs so much in full size. */
export function driveSize({ driveGib }: Wishes, gib: number): string {
  return `${Math.min(driveGib, gib)}GiB`;
}

/** Fails before anything is written when the disk has not so much. */
export function needSpace(folder: string, gib: number, what: string): void {
  const { bavail, bsize } = statfsSync(folder);
  const free = (bavail * bsize) / 2 ** 30;
  if (free >= gib) return;
  throw new Error(`${what} needs ${gib} GiB on the disk of ${folder}; ${free.toFixed(1)} are free`);
}

// --- many files -----------------------------------------------------------------------------------------------------

const FILE_BYTES = 200;
const WRITERS = 3;
/** A line of progress after so many directories. */
const TOLD_EVERY = 50;

/** Makes files of 200 B, a thousand a directory, by some small processes at once; seconds. */
export async function fill(mount: string, files: number, say: (words: string) => void): Promise<number> {
  const begun = performance.now();
  mkdirSync(join(mount, "data"));
  const directories = Math.ceil(files / FILES_A_DIRECTORY);
  const program = join(dirname(fileURLToPath(import.meta.url)), "filler.js");
  let made = 0;
  const write = async (writer: number): Promise<void> => {
    const words = [mount, files, writer, Math.min(WRITERS, directories), FILE_BYTES].map(String);
    const child = spawn(process.execPath, ["--max-old-space-size=32", program, ...words], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = new Promise<number | null>((done, fail) => child.on("error", fail).on("exit", done));
    for await (const line of createInterface({ input: child.stdout })) {
      made += 1;
      if (made % TOLD_EVERY === 0) {
        const rate = (made * FILES_A_DIRECTORY) / ((performance.now() - begun) / 1000);
        say(`${made}/${directories} directories, ${Math.round(rate)} files/s (${line})`);
      }
    }
    const code = await exited;
    if (code !== 0) throw new Error(`a writer of files ended with ${code}`);
  };
  await Promise.all(Array.from({ length: Math.min(WRITERS, directories) }, (_, writer) => write(writer)));
  return (performance.now() - begun) / 1000;
}

// --- times ----------------------------------------------------------------------------------------------------------

/** Milliseconds. */
export async function timed(act: () => unknown): Promise<number> {
  const begun = performance.now();
  await act();
  return performance.now() - begun;
}

/** How the volume's root at that time is opened, listed and closed. */
export function list(path: string): void {
  if (readdirSync(path).length === 0) throw new Error(`${path} is empty`);
}

export class Figures {
  readonly all: Figure[] = [];

  note(measure: string, pair: number, value: number, notes?: Record<string, number>): void {
    this.all.push(notes === undefined ? { measure, pair, value } : { measure, pair, value, notes });
  }
}

/** Numbers from 0 on in an order that a seed fixes. */
export function shuffled(count: number, seed: number): number[] {
  const order = Array.from({ length: count }, (_, number) => number);
  let state = seed + 1;
  for (let at = count - 1; at > 0; at -= 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const other = Math.floor((state / 2 ** 32) * (at + 1));
    [order[at], order[other]] = [order[other] ?? 0, order[at] ?? 0];
  }
  return order;
}
