// Rebuild and scrub: how fast a lost drive's copies are made anew when nobody else works, and what both do to somebody who
// works at half of the peak.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Daemon, until as untilHolds } from "./daemon.js";
import { runExample } from "./example.js";
import { runLoad } from "./load.js";
import type { Measure } from "./load.js";
import type { Figure } from "./report.js";
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
const MAKING = { config: "log: {level: warn}\nmemory: {data_cache: 0}\n", size: "2GiB" } as const;
/** What is rebuilt and scrubbed: enough for a drive to be emptied all through a measure. */
const CONTENT = ["--mib", "768", "--block-kib", "1024", "--seconds", "0.1"];
const FOREGROUND = ["--mib", "256", "--seconds", "4"];
/** A request now and then, in both halves of a pair: the daemon sees somebody at work also before and after the measure. */
const KEEPER = ["--mib", "16", "--rate", "20", "--seconds", "6"];
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
  /** What the foreground reads counts as done, too: every read of it is one of a drive, since nothing is cached. */
  countsForeground: boolean;
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
    countsForeground: false,
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

function scrubbing(): Beside {
  let wanted = false;
  let running: Promise<void> = Promise.resolve();
  return {
    measure: "scrub-p99",
    least: 8 * MIB,
    done: counted("drive_bytes_read"),
    countsForeground: true,
    begin: async (daemon) => {
      wanted = true;
      running = (async () => {
        while (wanted) await daemon.scrub();
      })();
      await delay(10 * LOOK_MS);
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
    await mix(place, daemon, 1, KEEPER);
    say("peak");
    const peak = (await mix(place, daemon, 1, FOREGROUND)).operationsPerSecond;
    const rate = Math.max(1, Math.round(peak / 2));
    for (let pair = 0; pair < pairs; pair += 1) {
      const alone = () => half(place, daemon, rate, 2 * pair + 2);
      const busy = () => half(place, daemon, rate, 2 * pair + 3, beside);
      // Which comes first changes, so that what drifts counts for both.
      const firstAlone = pair % 2 === 0 ? await alone() : undefined;
      const { p99: p99Beside, bytesPerSecond } = await busy();
      const { p99 } = firstAlone ?? (await alone());
      const notes = { rate, p99, p99Beside, bytesPerSecond };
      const speed = `${Math.round(bytesPerSecond / MIB)} MiB/s beside`;
      say(`pair ${pair + 1}/${pairs}  ${rate}/s: p99 ${p99} µs alone, ${p99Beside} µs with ${speed}`);
      if (bytesPerSecond < beside.least) say("does not count: too little was done beside it");
      else figures.push({ measure: beside.measure, pair, value: p99Beside / p99, notes });
    }
  } finally {
    await daemon.stop();
  }
  return figures;
}

/** One measure at this rate, beside something or alone; what was done meanwhile, above what the foreground itself reads. */
async function half(
  place: Place,
  daemon: Daemon,
  rate: number,
  seed: number,
  beside?: Beside,
): Promise<{ p99: number; bytesPerSecond: number }> {
  await daemon.quiet();
  const keeper = mix(place, daemon, seed, KEEPER);
  await beside?.begin(daemon);
  const before = (await beside?.done(daemon)) ?? 0;
  const begun = performance.now();
  const measure = await mix(place, daemon, seed, [...FOREGROUND, "--rate", String(rate)]);
  const seconds = (performance.now() - begun) / 1000;
  const after = (await beside?.done(daemon)) ?? 0;
  const own = beside?.countsForeground ? (measure.operations / 2) * measure.blockBytes : 0;
  await keeper;
  await beside?.end(daemon);
  return { p99: measure.latencyMicroseconds.p99, bytesPerSecond: Math.round((after - before - own) / seconds) };
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
