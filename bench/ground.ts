// What benches share that need a Holdfast of their own: a daemon that is always ended, many files, times.

import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Daemon } from "./daemon.js";
import type { Making } from "./daemon.js";
import type { Figure } from "./report.js";
import type { Place } from "./special.js";
import { FILES_A_DIRECTORY } from "./past/layout.js";

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
    return await ending(await Daemon.start(place.root, place.folder, making), act);
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
    const found = await ending(await start(), first);
    return await ending(await start(), (daemon) => second(daemon, found));
  } finally {
    rmSync(place.folder, { recursive: true, force: true });
  }
}

/** The daemon ends after `act`, whatever happens. */
export async function ending<T>(daemon: Daemon, act: (daemon: Daemon) => Promise<T>): Promise<T> {
  running.add(daemon);
  try {
    return await act(daemon);
  } finally {
    running.delete(daemon);
    await daemon.stop();
  }
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
  const program = join(dirname(fileURLToPath(import.meta.url)), "past", "filler.js");
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
