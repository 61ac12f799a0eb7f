// Rows that need a Holdfast of their own, and its counters: what a cold random read takes from the drives, and what
// background work does to the foreground.

import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { Daemon } from "./daemon.js";
import { runLoad } from "./load.js";
import type { Measure } from "./load.js";
import type { Figure } from "./report.js";
import { pooledP99, turnsOf } from "./slices.js";
import type { Side } from "./slices.js";

const FILE_MIB = 256;
const BLOCK_BYTES = 4096;

export interface Place {
  root: string;
  /** A folder that is removed afterwards. */
  folder: string;
  program: string;
  pairs: number;
  say: (words: string) => void;
}

const KEPT = (mib: number) => join("load-files", `write-0-${mib}`);

// --- drive bytes of a cold read -------------------------------------------------------------------------------------

/** Blocks between two places that are read: 655. A leaf of the map covers about 130, a block above it ten times more. */
const READS = 100;
/** The smallest cache that the configuration allows. */
const SMALL_CACHE = "log: {level: warn}\nmemory: {metadata_cache: 8MiB}\n";
/** Writes nearly every block of the file once more, in random order: no block lies beside its neighbour. */
const SCATTER_SECONDS = 8;

/**
 * A file whose blocks were all written at random, a daemon that was just started (nothing cached, everything drained):
 * single reads, and what `drive_bytes_read` says of each.
 */
export async function measureDriveBytes({ root, folder, program, pairs, say }: Place): Promise<Figure[]> {
  const figures: Figure[] = [];
  const options = ["--mib", String(FILE_MIB), "--seconds", String(SCATTER_SECONDS)];
  let daemon = await Daemon.start(root, folder, { config: SMALL_CACHE });
  try {
    say("scattering a file's blocks");
    await runLoad(program, { work: "write", directory: daemon.mount, jobs: 1, seed: 1, args: options });
    for (let pair = 0; pair < pairs; pair += 1) {
      say(`pair ${pair + 1}/${pairs}  cold reads, counted one by one`);
      await daemon.stop();
      daemon = await Daemon.start(root, folder);
      await daemon.quiet();
      const kibs = await readCounted(daemon, pair);
      const mean = kibs.reduce((sum, kib) => sum + kib, 0) / kibs.length;
      figures.push({ measure: "drive-bytes-mean", pair, value: mean, notes: countsOf(kibs) });
      figures.push({ measure: "drive-bytes-worst", pair, value: Math.max(...kibs) });
    }
  } finally {
    await daemon.stop();
  }
  return figures;
}

/** Reads by whole KiB. */
function countsOf(kibs: readonly number[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kib of kibs) {
    const name = `${Math.round(kib)} KiB`;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

/**
 * KiB from drives for each of some reads, far apart from each other so that the kernel sees no stream. Before them every
 * place's neighbour was read, half a stride away: what lies above the leaves of the map is cached then, as it is in a
 * daemon that runs; the leaf itself is not.
 */
async function readCounted(daemon: Daemon, pair: number): Promise<number[]> {
  const stride = Math.floor((FILE_MIB << 20) / BLOCK_BYTES / READS);
  const first = 1 + ((pair * 31) % Math.floor(stride / 4));
  const file = openSync(join(daemon.mount, KEPT(FILE_MIB)), "r");
  const buffer = Buffer.alloc(BLOCK_BYTES);
  // 37 has no factor in common with 100: every place is visited, none beside the last one.
  const places = Array.from({ length: READS }, (_, read) => ((read * 37) % READS) * stride + first);
  const read = (block: number) => readSync(file, buffer, 0, BLOCK_BYTES, block * BLOCK_BYTES);
  try {
    for (const place of places) read(place + Math.floor(stride / 2));
    const kibs: number[] = [];
    let before = (await daemon.counters()).drive_bytes_read ?? 0;
    for (const place of places) {
      read(place);
      const after = (await daemon.counters()).drive_bytes_read ?? 0;
      kibs.push((after - before) / 1024);
      before = after;
    }
    return kibs;
  } finally {
    closeSync(file);
  }
}

// --- the foreground beside background work --------------------------------------------------------------------------

/**
 * History of a second: what was overwritten is garbage at once, and cleaning has work. Small drives: a drain is due after
 * every 1/32 of the pool.
 */
const MAKING = { config: "log: {level: warn}\nhistory: {window: 1s}\n", size: "768MiB" } as const;
const FOREGROUND_MIB = 128;
const PEAK_SECONDS = 3;
const PACED_SECONDS = 1.5;
/** Of each half of a pair. */
const SLICES = 2;
/** What keeps the background busy: overwrites of 64 KiB here and there, 32 MiB a second: egroups become sparse. */
const CHURN = ["--mib", "64", "--block-kib", "64", "--rate", "512"];
const CHURN_BEFORE_SECONDS = 1;
/** Counters that are noted of a busy measure. */
const COUNTED = ["drains", "compactions", "egroups_freed", "egroups_cleaned", "pages_moved"] as const;
/** What must have grown meanwhile: cleaning frees egroups that are empty, and packs sparse ones into others. */
const WORKED = ["drains", "cleaning", "scrub_bytes"] as const;

const FOREGROUNDS = [
  { work: "random-read", measure: "background-read-p99" },
  { work: "write-fsync", measure: "background-write-p99" },
] as const;

/** p99 at half of peak, busy ÷ idle, for reads and for fsynced writes. */
export async function measureBackground(place: Place): Promise<Figure[]> {
  const { root, folder, pairs, say } = place;
  const figures: Figure[] = [];
  const daemon = await Daemon.start(root, folder, MAKING);
  try {
    await churn(place, daemon, 1);
    for (const { work, measure } of FOREGROUNDS) {
      say(`${work}: peak`);
      const peak = (await foreground(place, daemon, work, 1)).operationsPerSecond;
      const rate = Math.max(1, Math.round(peak / 2));
      for (let pair = 0; pair < pairs; pair += 1) {
        say(`pair ${pair + 1}/${pairs}  ${work}, ${rate}/s, idle and busy`);
        const slices: Record<Side, Measure[]> = { alone: [], beside: [] };
        const counts: Record<string, number> = {};
        for (const [turn, side] of turnsOf(pair, SLICES).entries()) {
          const run = () => foreground(place, daemon, work, pair * 2 * SLICES + turn + 2, rate);
          await daemon.quiet();
          if (side === "alone") {
            slices.alone.push(await run());
            continue;
          }
          const { measured, notes } = await busy(place, daemon, run);
          slices.beside.push(measured);
          for (const [name, count] of Object.entries(notes)) counts[name] = (counts[name] ?? 0) + count;
        }
        const [idleP99, busyP99] = [pooledP99(slices.alone), pooledP99(slices.beside)];
        figures.push({ measure, pair, value: busyP99 / idleP99, notes: { ...counts, idleP99, busyP99 } });
      }
    }
  } finally {
    await daemon.stop();
  }
  const counted = FOREGROUNDS.filter(({ measure }) => worked(figures, measure, say));
  return figures.filter((figure) => counted.some(({ measure }) => measure === figure.measure));
}

async function foreground(
  { program }: Place,
  { mount }: Daemon,
  work: string,
  seed: number,
  rate?: number,
): Promise<Measure> {
  const seconds = rate === undefined ? PEAK_SECONDS : PACED_SECONDS;
  const paced = rate === undefined ? [] : ["--rate", String(rate)];
  const args = ["--mib", String(FOREGROUND_MIB), "--seconds", String(seconds), ...paced];
  const [measure] = await runLoad(program, { work, directory: mount, jobs: 1, seed, args });
  if (measure === undefined) throw new Error(`${work} gave no measure`);
  return measure;
}

async function churn({ program }: Place, { mount }: Daemon, seconds: number): Promise<void> {
  const args = [...CHURN, "--seconds", String(seconds)];
  await runLoad(program, { work: "write", directory: mount, jobs: 1, seed: 1, args });
}

/** Runs something while churn is drained and cleaned and the pool is scrubbed; what was done meanwhile. */
async function busy(
  place: Place,
  daemon: Daemon,
  run: () => Promise<Measure>,
): Promise<{ measured: Measure; notes: Record<string, number> }> {
  await churn(place, daemon, CHURN_BEFORE_SECONDS);
  const before = await daemon.counters();
  const scrub = new Scrub(daemon);
  const churning = churn(place, daemon, PACED_SECONDS + 1);
  const measured = await run();
  const after = await daemon.counters();
  const scrubBytes = await scrub.stop();
  await churning;
  const grown = COUNTED.map((name) => [name, (after[name] ?? 0) - (before[name] ?? 0)] as const);
  const counts = Object.fromEntries(grown);
  const cleaning = (counts.egroups_freed ?? 0) + (counts.egroups_cleaned ?? 0);
  const notes = { ...counts, cleaning, scrub_bytes: scrubBytes };
  return { measured, notes };
}

/** Figures count only if each kind of background work was done in most of the busy measures. */
function worked(figures: readonly Figure[], measure: string, say: (words: string) => void): boolean {
  const own = figures.filter((figure) => figure.measure === measure);
  return WORKED.every((name) => {
    const did = own.filter(({ notes }) => (notes?.[name] ?? 0) > 0).length;
    if (2 * did > own.length) return true;
    say(`${measure} does not count: ${name} grew in ${did} of ${own.length} measures only`);
    return false;
  });
}

/** Scrubs the pool again and again until it is stopped. */
class Scrub {
  #wanted = true;
  readonly #done: Promise<number>;

  constructor(daemon: Daemon) {
    this.#done = this.#run(daemon);
  }

  async #run(daemon: Daemon): Promise<number> {
    let bytes = 0;
    while (this.#wanted) bytes += (await daemon.scrub()).bytes;
    return bytes;
  }

  /** Bytes that it read. */
  stop(): Promise<number> {
    this.#wanted = false;
    return this.#done;
  }
}
