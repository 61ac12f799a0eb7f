// `npm run bench -- --past`: the bars of the past (issue 6). Each bench has a Holdfast of its own, made below the disk that
// is given and removed afterwards.

import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { buildLoad } from "./load.js";
import { PAST_BARS } from "./past/bars.js";
import { measureChain } from "./past/chain.js";
import { measureCost } from "./past/cost.js";
import { FULL, QUICK, endAll, needSpace } from "./past/ground.js";
import type { Wishes } from "./past/ground.js";
import { MOMENT_PARTS, measureMoments } from "./past/moments.js";
import type { MomentPart } from "./past/moments.js";
import { measurePoints } from "./past/points.js";
import { measurePostgres } from "./past/postgres.js";
import { measureReading } from "./past/reading.js";
import { Progress } from "./progress.js";
import { allMet, markdown, spread, verdictText, verdictsOf } from "./report.js";
import type { Figure, Verdict } from "./report.js";
import { originOf, writeResults } from "./results.js";
import type { Origin } from "./results.js";
import type { Place } from "./special.js";

const USAGE = `npm run bench -- --past [NAME,NAME…] [options]
  open        snapshots, clones and openings of the past at 100 and at 1,000,000 files     3 minutes, 10 GiB
  diff        10 changes among 1,000,000 files                                             3 minutes, 10 GiB
  restore     1 GiB out of 1,000,000 files                                                 3 minutes, 10 GiB
              (open, diff and restore together make the files once)
  points      100,000 points of one volume                                                 2 minutes, 5 GiB
  chain       100 clones, each of the one before                                           3 minutes, 7 GiB
  reading     reading then against reading now                                             3 minutes, 7 GiB
  cost        random overwrites with and without 60 s of retention                        21 minutes, 10 GiB
  postgres    PostgreSQL on clones of random moments; as root                             10 minutes, 7 GiB
  --quick        small sizes: does it work at all? The figures mean nothing
  --files N      files of the large volume (default ${FULL.files})
  --points N     (default ${FULL.points})
  --minutes N    of overwriting, each (default ${FULL.minutes})
  --mib N        of the file that is overwritten (default ${FULL.costMib}): larger, and the minute is not held
  --clones N     of PostgreSQL's volume (default ${FULL.clones})
  --pairs N      of chain and reading (default 7)
  --disk DIR     where everything lies (default: holdfast-data/)
  --load FILE    a holdfast-load that is already built
  --keep         keeps the result where it is committed`;

const PAIRS = 7;

interface Bench {
  names: readonly string[];
  /** GiB on the disk, in full size. */
  needs: number;
  /** The beginnings of the measures by which its bars are found, for each name. */
  measures: Readonly<Record<string, RegExp>>;
  take: (place: Place, wishes: Wishes, wanted: ReadonlySet<string>) => Promise<Figure[]>;
}

const one = (
  name: string,
  needs: number,
  take: (place: Place, wishes: Wishes) => Promise<Figure[]>,
): Bench => ({
  names: [name],
  needs,
  measures: { [name]: new RegExp(`^${name === "reading" ? "past" : name}(-|$)`) },
  take,
});

const isMoment = (name: string): name is MomentPart => MOMENT_PARTS.some((part) => part === name);

const BENCHES: readonly Bench[] = [
  {
    names: MOMENT_PARTS,
    needs: 10,
    measures: { open: /^(?:snapshot|clone|open)-/, diff: /^diff/, restore: /^restore-/ },
    take: (place, wishes, wanted) => measureMoments(place, wishes, new Set([...wanted].filter(isMoment))),
  },
  one("points", 5, measurePoints),
  one("chain", 7, measureChain),
  one("reading", 7, measureReading),
  one("cost", 10, measureCost),
  one("postgres", 7, measurePostgres),
];

interface PastResults extends Origin {
  /** Of what size it was; smaller than the bars say: it decides nothing. */
  wishes: Wishes;
  shortened: boolean;
  /** Seconds that each bench took. */
  seconds: Record<string, number>;
  bars: readonly Verdict[];
  figures: readonly Figure[];
}

/** Exit status: 0, 1 when a bar is missed. */
export async function runPast(root: string, args: readonly string[]): Promise<number> {
  const given = wishesOf(args);
  if (given === undefined) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const { benches, wanted, wishes, pairs, quick, keep } = given;
  mkdirSync(given.disk, { recursive: true });
  const disk = mkdtempSync(join(realpathSync(given.disk), "past-"));
  const progress = new Progress();
  // The benches that wait for them fail, and remove what they made.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, endAll);
  const figures: Figure[] = [];
  const seconds: Record<string, number> = {};
  try {
    const cost = benches.some(({ names }) => names.includes("cost"));
    const program = cost ? (given.load ?? buildLoad(root)) : "";
    for (const { names, needs, take } of benches) {
      const [first = ""] = names;
      const title = names.filter((name) => wanted.has(name)).join("+");
      if (!quick) needSpace(disk, needs, title);
      const say = (words: string) => progress.note(`${title}: ${words}`);
      const begun = performance.now();
      figures.push(...(await take({ root, folder: join(disk, first), program, pairs, say }, wishes, wanted)));
      seconds[title] = Math.round((performance.now() - begun) / 1000);
      say(`done in ${seconds[title]} s`);
    }
  } finally {
    progress.end();
    rmSync(disk, { recursive: true, force: true });
  }
  const patterns = benches.flatMap(({ measures }) => [...wanted].map((name) => measures[name]));
  const own = PAST_BARS.filter(({ measure }) => patterns.some((pattern) => pattern?.test(measure)));
  const bars = verdictsOf([], figures, own);
  const shortened = Object.entries(FULL).some(([key, full]) => wishes[key as keyof Wishes] < full);
  if (shortened) process.stdout.write("Smaller than the bars say: these figures decide nothing.\n\n");
  process.stdout.write(`${verdictText(bars)}\n\n${otherText(figures)}\n\n`);
  const rest = { wishes, shortened, seconds, bars, figures };
  const results: PastResults = { ...originOf(root, ["--past", ...args]), ...rest };
  process.stdout.write(`${writeResults(root, "past", results, keep)}\n`);
  return allMet(bars) ? 0 : 1;
}

/** What was measured and has no bar. */
function otherText(figures: readonly Figure[]): string {
  const barred = new Set(PAST_BARS.map(({ measure }) => measure));
  const measures = [...new Set(figures.map(({ measure }) => measure))].filter((name) => !barred.has(name));
  const lines = measures.flatMap((measure) => {
    const found = spread(figures.filter((figure) => figure.measure === measure).map(({ value }) => value));
    if (found === undefined) return [];
    return [[measure, ...[found.median, found.least, found.most].map(short), String(found.count)]];
  });
  const head = ["also measured", "median", "least", "most", "times"];
  return markdown([head, head.map(() => "---"), ...lines]);
}

const short = (value: number): string => (value >= 1000 ? String(Math.round(value)) : value.toFixed(2));

interface Given {
  benches: readonly Bench[];
  wanted: ReadonlySet<string>;
  wishes: Wishes;
  pairs: number;
  quick: boolean;
  keep: boolean;
  disk: string;
  load: string | undefined;
}

/** Undefined: help is wanted. */
function wishesOf(args: readonly string[]): Given | undefined {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const sizes = { files: text, points: text, minutes: text, clones: text, pairs: text, mib: text };
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { ...sizes, disk: text, load: text, quick: flag, keep: flag, help: flag },
  });
  if (values.help) return undefined;
  const all = BENCHES.flatMap(({ names }) => names);
  const asked = positionals.flatMap((word) => word.split(","));
  const unknown = asked.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new Error(`--past ${unknown}: there are ${all.join(", ")}`);
  const wanted = new Set(asked.length === 0 ? all : asked);
  const usual = values.quick ? QUICK : FULL;
  const number = (name: keyof typeof sizes, otherwise: number): number => {
    const value = values[name];
    if (value === undefined) return otherwise;
    const found = Number(value);
    if (!(found > 0) || (name !== "minutes" && !Number.isInteger(found)))
      throw new Error(`--${name} ${value}: a number above 0 is wanted`);
    return found;
  };
  return {
    benches: BENCHES.filter(({ names }) => names.some((name) => wanted.has(name))),
    wanted,
    wishes: {
      ...usual,
      files: number("files", usual.files),
      points: number("points", usual.points),
      minutes: number("minutes", usual.minutes),
      clones: number("clones", usual.clones),
      costMib: number("mib", usual.costMib),
    },
    pairs: number("pairs", values.quick ? 2 : PAIRS),
    quick: values.quick,
    keep: values.keep,
    disk: resolve(values.disk ?? "holdfast-data"),
    load: values.load,
  };
}
