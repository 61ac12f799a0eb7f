// Rows that need a Holdfast of their own, and its counters: what a cold random read takes from the drives, and what
// background work does to the foreground.

import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { Daemon } from "./daemon.js";
import { runLoad } from "./load.js";
import type { Measure } from "./load.js";
import type { Figure } from "./report.js";

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

const READS = 200;
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
  let daemon = await Daemon.start(root, folder, SMALL_CACHE);
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
      figures.push({ measure: "drive-bytes-mean", pair, value: mean });
      figures.push({ measure: "drive-bytes-worst", pair, value: Math.max(...kibs) });
    }
  } finally {
    await daemon.stop();
  }
  return figures;
}

/** KiB from drives for each of some reads, far apart from each other so that the kernel sees no stream. */
async function readCounted(daemon: Daemon, pair: number): Promise<number[]> {
  const blocks = (FILE_MIB << 20) / BLOCK_BYTES;
  const stride = Math.floor(blocks / READS);
  const file = openSync(join(daemon.mount, KEPT(FILE_MIB)), "r");
  try {
    const kibs: number[] = [];
    const buffer = Buffer.alloc(BLOCK_BYTES);
    let before = (await daemon.counters()).drive_bytes_read ?? 0;
    for (let read = 0; read < READS; read += 1) {
      // 77 has no factor in common with 200: every place is visited, none beside the last one.
      const block = 1 + ((read * 77) % READS) * stride + ((pair * 31) % (stride - 1));
      readSync(file, buffer, 0, BLOCK_BYTES, block * BLOCK_BYTES);
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

/** History of a second: what was overwritten is garbage at once, and cleaning has work. */
const SHORT_HISTORY = "log: {level: warn}\nhistory: {window: 1s}\n";
const PACED_SECONDS = 2;
/** Counters that must have grown while a busy measure ran. */
const WORKED = ["drains", "egroups_freed", "scrub_bytes"] as const;

const FOREGROUNDS = [
  { work: "random-read", measure: "background-read-p99" },
  { work: "write-fsync", measure: "background-write-p99" },
] as const;

/** p99 at half of peak, busy ÷ idle, for reads and for fsynced writes. */
export async function measureBackground({ root, folder, program, pairs, say }: Place): Promise<Figure[]> {
  const figures: Figure[] = [];
  const daemon = await Daemon.start(root, folder, SHORT_HISTORY);
  const load = async (work: string, seed: number, ...args: string[]): Promise<Measure> => {
    const sized = ["--mib", String(FILE_MIB), ...args];
    const [measure] = await runLoad(program, { work, directory: daemon.mount, jobs: 1, seed, args: sized });
    if (measure === undefined) throw new Error(`${work} gave no measure`);
    return measure;
  };
  const seconds = ["--seconds", String(PACED_SECONDS)];
  try {
    for (const { work, measure } of FOREGROUNDS) {
      say(`${work}: peak`);
      const peak = (await load(work, 1, ...seconds)).operationsPerSecond;
      const paced = [...seconds, "--rate", String(Math.max(1, Math.round(peak / 2)))];
      for (let pair = 0; pair < pairs; pair += 1) {
        say(`pair ${pair + 1}/${pairs}  ${work} at half of peak, idle and busy`);
        await daemon.quiet();
        const idle = await load(work, pair + 1, ...paced);
        // Leaves 256 MiB to drain, and as much garbage to clean.
        await load("sequential-write-fsync", pair + 1, "--seconds", "1");
        const before = await daemon.counters();
        const scrub = new Scrub(daemon);
        const busy = await load(work, pair + 100, ...paced);
        const scrubBytes = await scrub.stop();
        const after = { ...(await daemon.counters()), scrub_bytes: scrubBytes };
        const notes = Object.fromEntries(
          WORKED.map((name) => [name, (after[name as keyof typeof after] ?? 0) - (before[name] ?? 0)]),
        );
        const value = busy.latencyMicroseconds.p99 / idle.latencyMicroseconds.p99;
        figures.push({ measure, pair, value, notes: { ...notes, idleP99: idle.latencyMicroseconds.p99 } });
      }
    }
  } finally {
    await daemon.stop();
  }
  return figures.filter(({ measure }) => worked(figures, measure, say));
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
