// Mount benches: the same load on all systems, in alternating pairs within one run.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { join } from "node:path";
import { buildLoad, mayDropCaches, runLoad } from "./load.js";
import type { Measure } from "./load.js";
import type { Options } from "./main.js";
import {
  BACKGROUND,
  DRIVE_BYTES,
  EXTRA,
  PAST_CHAIN,
  PAST_POINTS,
  PAST_READING,
  REBUILD,
  REBUILD_BESIDE,
  SCRUB_BESIDE,
  SPECIAL,
  SYSTEMS,
  barsOf,
  planOf,
  systemsOf,
} from "./plan.js";
import type { Task } from "./plan.js";
import { measureChain } from "./past/chain.js";
import { measurePoints } from "./past/points.js";
import { measureReading } from "./past/reading.js";
import { repositoryOf, runTree } from "./programs.js";
import { Progress } from "./progress.js";
import { allMet, latencyTable, rowsOf, tableOf, verdictText, verdictsOf } from "./report.js";
import type { Figure, Sample } from "./report.js";
import { mountResults, originOf, writeResults } from "./results.js";
import { measureRebuild, measureRebuildBeside, measureScrubBeside } from "./repair.js";
import { measureBackground, measureDriveBytes } from "./special.js";
import type { Place } from "./special.js";
import { Systems } from "./systems.js";
import type { System } from "./systems.js";

/** How the works that need a Holdfast of their own are measured. */
const MEASURES: Readonly<Record<string, (place: Place) => Promise<Figure[]>>> = {
  [DRIVE_BYTES]: measureDriveBytes,
  [BACKGROUND]: measureBackground,
  [REBUILD]: measureRebuild,
  [REBUILD_BESIDE]: measureRebuildBeside,
  [SCRUB_BESIDE]: measureScrubBeside,
  [PAST_POINTS]: measurePoints,
  [PAST_CHAIN]: measureChain,
  [PAST_READING]: measureReading,
};
/** Reads that must come from the drives: what a daemon keeps in its memory must go, too. */
const COLD: readonly string[] = ["random-read", "sequential-read"];

interface Run {
  root: string;
  /** A folder on the disk that is compared; removed afterwards. */
  disk: string;
  program: string;
  progress: Progress;
  /** What `tree` clones, once it was made. */
  repository?: string;
}

/** The exit status: 1 when a bar is missed. */
export async function runMounts(root: string, options: Options, args: readonly string[]): Promise<number> {
  const { mode, pairs, only } = options;
  const wanted = options.systems ?? new Set(SYSTEMS.filter((name) => !EXTRA.includes(name)));
  const named = options.systems !== undefined;
  const needed = systemsOf(planOf({ mode, pairs, only, named, available: wanted }));
  const program = options.load ?? buildLoad(root);
  mkdirSync(options.disk, { recursive: true });
  const disk = mkdtempSync(join(realpathSync(options.disk), "bench-"));
  const systems = new Systems();
  let [samples, figures]: [Sample[], Figure[]] = [[], []];
  const progress = new Progress();
  try {
    await systems.setUp({ root, disk, wanted: needed, target: options.target });
    for (const [name, reason] of systems.missing) progress.note(`without ${name}: ${reason}`);
    const plan = planOf({ mode, pairs, only, named, available: systems.names });
    const run = { root, disk, program, progress };
    samples = await measure(
      run,
      plan.filter(({ work }) => !SPECIAL.includes(work.id)),
      systems.ready,
    );
    await systems.close();
    if (options.target === undefined) figures = await measureSpecial(run, plan);
  } finally {
    progress.end();
    // What is still mounted must not be removed.
    await systems.close();
    rmSync(disk, { recursive: true });
  }
  const bars = mode === "bars" ? verdictsOf(samples, figures, barsOf(only)) : [];
  const run = {
    setups: systems.setups,
    missing: Object.fromEntries(systems.missing),
    cold: mayDropCaches,
    bars,
    figures,
  };
  const results = mountResults(originOf(root, args), run, samples);
  const path = writeResults(root, mode === "full" ? "mounts" : mode, results, options.keep);
  const rows = rowsOf(samples);
  const texts = [rows.length > 0 ? tableOf(rows) : "", latencyTable(rows), verdictText(bars)];
  for (const text of texts.filter((text) => text !== "")) process.stdout.write(`${text}\n\n`);
  process.stdout.write(`Every sample: ${path}\n`);
  return allMet(bars) ? 0 : 1;
}

/** The systems take turns within each work, and another one begins in each pair. */
async function measure(run: Run, plan: readonly Task[], systems: readonly System[]): Promise<Sample[]> {
  const samples: Sample[] = [];
  const counts = plan.flatMap((task) => [...task.systems.values()]);
  run.progress.start(counts.reduce((sum, count) => sum + count, 0));
  const pairs = Math.max(0, ...counts);
  for (let pair = 0; pair < pairs; pair += 1) {
    for (const { work, systems: turns } of plan) {
      const due = systems.filter(({ name }) => (turns.get(name) ?? 0) > pair);
      for (let turn = 0; turn < due.length; turn += 1) {
        const system = due[(turn + pair) % due.length] as System;
        run.progress.step(`pair ${pair + 1}/${pairs}  ${work.id} on ${system.name}`);
        if (COLD.includes(work.name)) await system.cool?.();
        // What the one before left unwritten must not be charged to this one.
        execFileSync("sync");
        const measures = await measureOne(run, { work, systems: turns }, system, pair + 1);
        samples.push(...measures.map((measured) => ({ system: system.name, pair, ...measured })));
        await system.quiet();
      }
    }
  }
  return samples;
}

function measureOne(run: Run, { work }: Task, system: System, seed: number): Promise<Measure[]> {
  const { directory } = system;
  if (work.name !== "tree") {
    return runLoad(run.program, { work: work.name, directory, jobs: work.jobs, seed, args: work.args });
  }
  const files = Number(work.args[0]);
  run.repository ??= repositoryOf(run.disk, files);
  return runTree(run.repository, files, directory);
}

async function measureSpecial(run: Run, plan: readonly Task[]): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const { work, systems } of plan.filter(({ work }) => SPECIAL.includes(work.id))) {
    const pairs = systems.get("holdfast") ?? 0;
    const folder = join(run.disk, work.id);
    const say = (words: string) => run.progress.note(`${work.id}: ${words}`);
    const take = MEASURES[work.id];
    if (take !== undefined)
      figures.push(...(await take({ root: run.root, folder, program: run.program, pairs, say })));
    rmSync(folder, { recursive: true, force: true });
  }
  return figures;
}
