// `npm run bench`: what is asked for. Exit status: 0, 1 when a bar is missed (--bars), 2 when it could not run.

import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runMicro } from "./micro.js";
import { runMounts } from "./mounts.js";
import { runPast } from "./past.js";
import { PAIRS, SYSTEMS } from "./plan.js";
import type { Mode, SystemName } from "./plan.js";
import { writeReadme } from "./readme.js";
import { runScale } from "./scale.js";
import { runSites } from "./sites.js";
import { runSustained } from "./sustained.js";

const USAGE = `npm run bench -- [options]
  (none)         all mount benches, beside every baseline that can be set up here; ${PAIRS.full} pairs
  --quick        the most important rows, ${PAIRS.quick} short pairs, within 3 minutes
  --bars         what the bars need, at least ${PAIRS.bars} pairs; exit status 1 when a bar is missed
  --micro        micro benches of the engine's parts
  --sustained    random overwrites of a nearly full pool for minutes; options: --sustained --help
  --past         snapshots, clones, reading then and now, and what the past costs; options: --past --help
  --sites        two daemons: how far behind, what it costs, what goes over the wire; options: --sites --help
  --scale        many files, names and overwrites, and what they cost afterwards; options: --scale --help
  --readme       writes the README's tables and the plots from the kept results
  --keep         writes the results where they are committed (bench/results/) instead of bench/results/local/
  --only WORK    only this work (write-fsync, write-fsync-4, stat, tree, …)
  --pairs N      pairs
  --systems A,B  only these of ${SYSTEMS.join(", ")}
  --target DIR   a directory on a Holdfast mount (default: a daemon is started as by npm start)
  --disk DIR     where the directories that are compared lie (default: holdfast-data/, the disk of the pool)
  --load FILE    a holdfast-load that is already built`;

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

export interface Options {
  mode: Mode;
  pairs: number | undefined;
  only: string | undefined;
  /** Absent: the usual ones. */
  systems: ReadonlySet<SystemName> | undefined;
  target: string | undefined;
  disk: string;
  load: string | undefined;
  keep: boolean;
}

// Ctrl-C ends the generator, which shares our terminal; we go on to unmount what we mounted.
process.on("SIGINT", () => undefined);

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}

async function main(args: readonly string[]): Promise<number> {
  if (args[0] === "--sustained") return runSustained(ROOT, args.slice(1));
  if (args[0] === "--scale") return runScale(ROOT, args.slice(1));
  if (args[0] === "--sites") return runSites(ROOT, args.slice(1));
  if (args[0] === "--past") return runPast(ROOT, args.slice(1));
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      target: text,
      disk: text,
      pairs: text,
      only: text,
      systems: text,
      load: text,
      quick: flag,
      bars: flag,
      keep: flag,
      micro: flag,
      readme: flag,
      help: flag,
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  if (values.readme) return writeReadme(ROOT);
  const kinds = [values.quick, values.bars, values.micro];
  if (kinds.filter(Boolean).length > 1) throw new Error("--quick, --bars, --micro: one of them");
  const mode = values.quick ? "quick" : values.bars ? "bars" : "full";
  const pairs = values.pairs === undefined ? undefined : Number(values.pairs);
  if (pairs !== undefined && (!Number.isInteger(pairs) || pairs < 1)) {
    throw new Error(`--pairs ${values.pairs}: a number from 1 on is wanted`);
  }
  if (mode === "bars" && (pairs ?? PAIRS.bars) < PAIRS.bars)
    throw new Error(`--bars needs ${PAIRS.bars} pairs or more`);
  const options = {
    mode,
    pairs,
    only: values.only,
    systems: systemsNamed(values.systems),
    target: values.target,
    disk: resolve(values.disk ?? join(ROOT, "holdfast-data")),
    load: values.load,
    keep: values.keep,
  } as const;
  return values.micro ? runMicro(ROOT, options, args) : runMounts(ROOT, options, args);
}

function systemsNamed(list: string | undefined): Set<SystemName> | undefined {
  if (list === undefined) return undefined;
  const names = list.split(",");
  const unknown = names.find((name) => !SYSTEMS.some((system) => system === name));
  if (unknown !== undefined) throw new Error(`--systems ${unknown}: there are ${SYSTEMS.join(", ")}`);
  return new Set(SYSTEMS.filter((name) => names.includes(name)));
}
