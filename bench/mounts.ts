// Mount benches: the same load on a plain directory, on libfuse's passthrough_ll and on Holdfast, in alternating pairs
// within one run. Exit status: 0, 1 when a bar is missed (--bars), 2 when it could not run.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildLoad, runLoad } from "./load.js";
import { PAIRS_BARS, PAIRS_QUICK, planOf } from "./plan.js";
import type { Plan } from "./plan.js";
import { rowsOf, tableOf, verdictText, verdictsOf, writeResults } from "./report.js";
import type { Sample } from "./report.js";
import { givenTarget, passthrough, plainDirectory, startTarget } from "./systems.js";
import type { System } from "./systems.js";

const USAGE = `node dist/bench/mounts.js [options]
  --target DIR   a directory on a Holdfast mount (default: a daemon is started as by npm start)
  --no-target    only the baselines
  --disk DIR     where the directories that are compared lie (default: holdfast-data/, the disk of the pool)
  --quick        ${PAIRS_QUICK} short pairs, within 3 minutes
  --bars         at least ${PAIRS_BARS} pairs; exit status 1 when a bar is missed
  --pairs N      pairs
  --only WORK    only this work of holdfast-load
  --load FILE    a holdfast-load that is already built`;

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

interface Options {
  target: string | undefined;
  noTarget: boolean;
  disk: string;
  bars: boolean;
  plan: Plan;
  load: string | undefined;
}

// Ctrl-C ends the generator, which shares our terminal; we go on to unmount what we mounted.
process.on("SIGINT", () => undefined);

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}

async function main(): Promise<number> {
  const options = optionsOf();
  if (options === undefined) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const program = options.load ?? buildLoad(ROOT);
  mkdirSync(options.disk, { recursive: true });
  const disk = mkdtempSync(join(realpathSync(options.disk), "bench-"));
  const systems: System[] = [];
  try {
    systems.push(plainDirectory(disk), passthrough(ROOT, disk));
    if (options.target !== undefined) systems.push(givenTarget(options.target));
    else if (!options.noTarget) systems.push(await startTarget(ROOT, disk));
    const samples = await measure(program, options.plan, systems);
    return show(systems, samples, options.bars);
  } finally {
    const closed = await Promise.allSettled(systems.map((system) => system.close()));
    const failures = closed.flatMap((result) => (result.status === "rejected" ? [result.reason] : []));
    // What is still mounted must not be removed.
    if (failures.length > 0) throw new AggregateError(failures, `left in ${disk}: ${failures.join("; ")}`);
    rmSync(disk, { recursive: true });
  }
}

function optionsOf(): Options | undefined {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArgs({
    options: {
      target: text,
      "no-target": flag,
      disk: { ...text, default: join(ROOT, "holdfast-data") },
      quick: flag,
      bars: flag,
      pairs: text,
      only: text,
      load: text,
      help: flag,
    },
  });
  if (values.help) return undefined;
  const pairs = Number(values.pairs ?? (values.quick ? PAIRS_QUICK : PAIRS_BARS));
  if (!Number.isInteger(pairs) || pairs < 1) throw new Error(`--pairs ${values.pairs}: a number from 1 on is wanted`);
  if (values.bars && pairs < PAIRS_BARS) throw new Error(`--bars needs at least ${PAIRS_BARS} pairs`);
  if (values.target !== undefined && values["no-target"]) throw new Error("--target, --no-target: one or the other");
  const plan = planOf(values.quick, pairs);
  const works = plan.works.filter(({ name }) => values.only === undefined || name === values.only);
  if (works.length === 0) throw new Error(`--only ${values.only}: no such work`);
  return {
    target: values.target,
    noTarget: values["no-target"],
    disk: resolve(values.disk),
    bars: values.bars,
    plan: { ...plan, works },
    load: values.load,
  };
}

/** The systems take turns within each work, and another one begins in each pair. */
async function measure(program: string, plan: Plan, systems: readonly System[]): Promise<Sample[]> {
  const samples: Sample[] = [];
  const total = plan.pairs * plan.works.length * systems.length;
  let done = 0;
  for (let pair = 0; pair < plan.pairs; pair += 1) {
    for (const work of plan.works) {
      for (let turn = 0; turn < systems.length; turn += 1) {
        const system = systems[(turn + pair) % systems.length];
        if (system === undefined) continue;
        progress(`${done}/${total}  pair ${pair + 1}/${plan.pairs}  ${work.name} x${work.jobs} on ${system.name}`);
        // What the one before left unwritten must not be charged to this one.
        execFileSync("sync");
        const measures = await runLoad(program, work, system.directory, pair + 1);
        samples.push(...measures.map((measured) => ({ system: system.name, pair, ...measured })));
        done += 1;
      }
    }
  }
  progress("");
  return samples;
}

function progress(words: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${words}`);
  else if (words !== "") process.stderr.write(`${words}\n`);
}

function show(systems: readonly System[], samples: readonly Sample[], bars: boolean): number {
  const rows = rowsOf(samples);
  process.stdout.write(`${tableOf(rows)}\n\n`);
  const path = writeResults(ROOT, Object.fromEntries(systems.map(({ name, setup }) => [name, setup])), samples);
  process.stdout.write(`Every sample: ${path}\n`);
  if (!bars) return 0;
  const verdicts = verdictsOf(rows);
  process.stdout.write(`\n${verdictText(verdicts)}\n`);
  return verdicts.every(({ met }) => met) ? 0 : 1;
}
