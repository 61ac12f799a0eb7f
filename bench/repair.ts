// Rebuild and scrub: how fast a lost drive's copies are made anew when nobody else works, and what both do to somebody who
// works at half of the peak.

import { mkdirSync } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { Daemon, until as untilHolds } from "./daemon.js";
import { runExample } from "./example.js";
import { runLoad } from "./load.js";
import type { Measure } from "./load.js";
import type { Figure } from "./report.js";
import { pooledP99, turnsOf } from "./slices.js";
import type { Side } from "./slices.js";
import type { Place } from "./special.js";

// --- alone ----------------------------------------------------------------------------------------------------------

const REBUILT_MIB = 1024;

interface RebuildPair {
  pair: number;
  rebuilt_mib: number;
  rebuild_mib_per_s: number;
  plain_mib_per_s: number;
  share: number;
}

/** Time of a rebuild ÷ time of plainly copying as many bytes: the engine's example `rebuild` measures both. */
export async function measureRebuild({ root, folder, pairs, say }: Place): Promise<Figure[]> {
  mkdirSync(folder, { recursive: true });
  const figures: Figure[] = [];
  await runExample(root, "rebuild", folder, [String(REBUILT_MIB), String(pairs)], (line) => {
    const said = line as RebuildPair | { summary: object };
    if ("summary" in said) return;
    const { pair, share, ...notes } = said;
    say(`pair ${pair + 1}/${pairs}  ${notes.rebuild_mib_per_s} of ${notes.plain_mib_per_s} MiB/s`);
    figures.push({ measure: "rebuild-time", pair, value: 1 / share, notes });
  });
  return figures;
}

// --- beside somebody who works --------------------------------------------------------------------------------------

/** Nothing is read from the daemon's memory: every cold read is one that other work on the drives can hold up. */
const MAKING = { config: "log: {level: warn}\nmemory: {data_cache: 0}\n", size: "4GiB" } as const;
/** What is rebuilt and scrubbed: enough for a drive to be emptied all through a measure. */
const CONTENT = ["--mib", "768", "--block-kib", "1024", "--seconds", "0.1"];
const FOREGROUND = ["--mib", "256"];
const PEAK_SECONDS = 4;
const SLICE_SECONDS = 1.5;
/** Of each half of a pair. */
const SLICES = 2;
/** A request so often, on both sides: the daemon sees somebody at work also before and after a slice. */
const KEEPER_MS = 40;
/** Drives are filled evenly: balance ends well below. */
const EVEN = 0.1;
const LOOK_MS = 20;
const LIMIT_MS = 120_000;
const MIB = 2 ** 20;

/** Work in the background that a measure is taken beside. */
interface Beside {
  measure: string;
  /** Bytes a second at least, or the measure does not count: half of what the limit allows. */
  least: number;
  /** Begins the work; returns when it is under way. */
  begin: (daemon: Daemon) => Promise<void>;
  /** Bytes that it has copied or read so far. */
  done: (daemon: Daemon) => Promise<number>;
  /** Ends it and brings everything back to where it was. */
  end: (daemon: Daemon) => Promise<void>;
}

const until = (what: string, holds: () => Promise<boolean>): Promise<void> =>
  untilHolds(LIMIT_MS, `not in time: ${what}`, holds, LOOK_MS);

const counted = (name: string) => async (daemon: Daemon) => (await daemon.counters())[name] ?? 0;

function rebuilding(extra: string): Beside {
  const done = counted("bytes_healed");
  return {
    measure: "rebuild-p99",
    least: 16 * MIB,
    done,
    begin: async (daemon) => {
      const before = await done(daemon);
      await daemon.removeDrive(extra);
      await until("a first copy", async () => (await done(daemon)) > before);
    },
    end: async (daemon) => {
      await until("the drive is empty", async () => !(await daemon.hasDrive(extra)));
      await daemon.addDrive(extra, MAKING.size);
      await until("drives are filled evenly", async () => {
        const { most, least } = await daemon.fills();
        return most - least <= EVEN;
      });
    },
  };
}

/** While somebody works a scrub on demand goes at the pace of the background's. */
function scrubbing(): Beside {
  let wanted = false;
  let running: Promise<void> = Promise.resolve();
  const done = counted("bytes_scrubbed");
  return {
    measure: "scrub-p99",
    least: 1 * MIB,
    done,
    begin: async (daemon) => {
      const before = await done(daemon);
      wanted = true;
      running = (async () => {
        while (wanted) await daemon.scrub();
      })();
      await until("a first read", async () => (await done(daemon)) > before);
    },
    end: async () => {
      wanted = false;
      await running;
    },
  };
}

/** p99 of 4 KiB reads and writes by turns at half of their peak, beside a rebuild ÷ alone. */
export function measureRebuildBeside(place: Place): Promise<Figure[]> {
  return measureBeside(place, rebuilding(join(place.folder, "d4")));
}

/** The same beside a scrub. */
export function measureScrubBeside(place: Place): Promise<Figure[]> {
  return measureBeside(place, scrubbing());
}

async function measureBeside(place: Place, beside: Beside): Promise<Figure[]> {
  const { root, folder, program, pairs, say } = place;
  const daemon = await Daemon.start(root, folder, MAKING);
  const figures: Figure[] = [];
  try {
    const fourth = join(folder, "d4");
    mkdirSync(fourth);
    await daemon.addDrive(fourth, MAKING.size);
    await runLoad(program, { work: "write", directory: daemon.mount, jobs: 1, seed: 1, args: CONTENT });
    say("peak");
    const peak = (await mix(place, daemon, 1, [...FOREGROUND, "--seconds", String(PEAK_SECONDS)]))
      .operationsPerSecond;
    const rate = Math.max(1, Math.round(peak / 2));
    for (let pair = 0; pair < pairs; pair += 1) {
      const slices: Record<Side, Slice[]> = { alone: [], beside: [] };
      for (const [turn, side] of turnsOf(pair, SLICES).entries()) {
        const seed = 2 + pair * 2 * SLICES + turn;
        slices[side].push(await slice(place, daemon, rate, seed, side === "beside" ? beside : undefined));
      }
      const [p99, p99Beside] = [p99Of(slices.alone), p99Of(slices.beside)];
      const bytesPerSecond = Math.round(Math.min(...slices.beside.map((one) => one.bytesPerSecond)));
      const notes = { rate, p99, p99Beside, bytesPerSecond };
      const speed = `${(bytesPerSecond / MIB).toFixed(1)} MiB/s beside`;
      say(`pair ${pair + 1}/${pairs}  ${rate}/s: p99 ${p99} µs alone, ${p99Beside} µs with ${speed}`);
      if (bytesPerSecond < beside.least) say("does not count: too little was done beside it");
      else figures.push({ measure: beside.measure, pair, value: p99Beside / p99, notes });
    }
  } finally {
    await daemon.stop();
  }
  return figures;
}

interface Slice {
  measure: Measure;
  /** Of the work beside it; 0: alone. */
  bytesPerSecond: number;
}

function p99Of(slices: readonly Slice[]): number {
  return Math.round(pooledP99(slices.map(({ measure }) => measure)));
}

/** One measure at this rate, beside something or alone; what was done meanwhile. */
async function slice(
  place: Place,
  daemon: Daemon,
  rate: number,
  seed: number,
  beside?: Beside,
): Promise<Slice> {
  await daemon.quiet();
  const keeper = await Keeper.start(daemon.mount);
  await beside?.begin(daemon);
  const before = (await beside?.done(daemon)) ?? 0;
  const begun = performance.now();
  const args = [...FOREGROUND, "--seconds", String(SLICE_SECONDS), "--rate", String(rate)];
  const measure = await mix(place, daemon, seed, args);
  const seconds = (performance.now() - begun) / 1000;
  const after = (await beside?.done(daemon)) ?? 0;
  await keeper.stop();
  await beside?.end(daemon);
  return { measure, bytesPerSecond: (after - before) / seconds };
}

/** Somebody who writes a byte now and then. */
class Keeper {
  readonly #timer: NodeJS.Timeout;

  private constructor(readonly file: FileHandle) {
    // One that fails is one less: the slice itself tells of trouble.
    this.#timer = setInterval(() => void this.file.write("k", 0).catch(() => undefined), KEEPER_MS);
  }

  static async start(mount: string): Promise<Keeper> {
    const file = await open(join(mount, "keeper"), "w");
    await file.write("k", 0);
    return new Keeper(file);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.file.close();
  }
}

async function mix(
  { program }: Place,
  { mount }: Daemon,
  seed: number,
  args: readonly string[],
): Promise<Measure> {
  const [measure] = await runLoad(program, { work: "mix", directory: mount, jobs: 1, seed, args });
  if (measure === undefined) throw new Error("mix gave no measure");
  return measure;
}
