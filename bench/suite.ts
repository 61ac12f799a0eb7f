// A row of benches that need a Holdfast of their own, by name, and the bars that belong to them.
//
// - Each has a folder of its own below the disk that is given; everything is removed afterwards, also after Ctrl-C.
// - What is smaller than the bars say decides nothing, and the result says so.

import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { FigureBar } from "./bars.js";
import { endAll, needSpace } from "./ground.js";
import { buildLoad } from "./load.js";
import { Progress } from "./progress.js";
import { allMet, markdown, spread, verdictText, verdictsOf } from "./report.js";
import type { Figure, Verdict } from "./report.js";
import { originOf, writeResults } from "./results.js";
import type { Kind, Origin } from "./results.js";
import type { Place } from "./special.js";

/** What is asked for, as numbers. */
export type Sizes<W> = { readonly [K in keyof W]: number };

export interface Bench<W> {
  names: readonly string[];
  /** GiB on the disk, in full size. */
  needs: number;
  /** The beginnings of the measures by which its bars are found, for each name. */
  measures: Readonly<Record<string, RegExp>>;
  /** It wants `holdfast-load`. */
  load?: boolean;
  take: (place: Place, wishes: W, wanted: ReadonlySet<string>) => Promise<Figure[]>;
}

/** A bench by one name; `beginning`: of its measures, if that is not the name. */
export function oneBench<W>(
  name: string,
  needs: number,
  take: (place: Place, wishes: W) => Promise<Figure[]>,
  beginning = name,
): Bench<W> {
  return { names: [name], needs, measures: { [name]: new RegExp(`^${beginning}(-|$)`) }, take };
}

export interface Suite<W extends Sizes<W>> {
  /** Of the results; as an option, behind `--`, of the command. */
  kind: Kind;
  usage: string;
  benches: readonly Bench<W>[];
  bars: readonly FigureBar[];
  full: W;
  quick: W;
  pairs: { full: number; quick: number };
  /** Numbers that the command takes, and what they set. */
  options: Readonly<Record<string, keyof W>>;
  /** Those that need not be whole. */
  fractions: readonly string[];
}

interface SuiteResults<W> extends Origin {
  /** Of what size it was; smaller than the bars say: it decides nothing. */
  wishes: W;
  shortened: boolean;
  /** Seconds that each bench took. */
  seconds: Record<string, number>;
  bars: readonly Verdict[];
  figures: readonly Figure[];
}

/** Exit status: 0, 1 when a bar is missed. */
export async function runSuite<W extends Sizes<W>>(
  suite: Suite<W>,
  root: string,
  args: readonly string[],
): Promise<number> {
  const given = askedFor(suite, args);
  if (given === undefined) {
    process.stdout.write(`${suite.usage}\n`);
    return 0;
  }
  const { benches, wanted, wishes, pairs, quick, keep } = given;
  mkdirSync(given.disk, { recursive: true });
  const disk = mkdtempSync(join(realpathSync(given.disk), `${suite.kind}-`));
  const progress = new Progress();
  // The benches that wait for them fail, and remove what they made.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, endAll);
  const figures: Figure[] = [];
  const seconds: Record<string, number> = {};
  try {
    const loaded = benches.some(({ load }) => load === true);
    const program = loaded ? (given.load ?? buildLoad(root)) : "";
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
  const own = suite.bars.filter(({ measure }) => patterns.some((pattern) => pattern?.test(measure)));
  const bars = verdictsOf([], figures, own);
  const keys = Object.keys(suite.full) as (keyof W)[];
  const shortened = keys.some((key) => wishes[key] < suite.full[key]);
  if (shortened) process.stdout.write("Smaller than the bars say: these figures decide nothing.\n\n");
  process.stdout.write(`${verdictText(bars)}\n\n${otherText(suite.bars, figures)}\n\n`);
  const rest = { wishes, shortened, seconds, bars, figures };
  const results: SuiteResults<W> = { ...originOf(root, [`--${suite.kind}`, ...args]), ...rest };
  process.stdout.write(`${writeResults(root, suite.kind, results, keep)}\n`);
  return allMet(bars) ? 0 : 1;
}

/** What was measured and has no bar. */
function otherText(bars: readonly FigureBar[], figures: readonly Figure[]): string {
  const barred = new Set(bars.map(({ measure }) => measure));
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

interface Given<W> {
  benches: readonly Bench<W>[];
  wanted: ReadonlySet<string>;
  wishes: W;
  pairs: number;
  quick: boolean;
  keep: boolean;
  disk: string;
  load: string | undefined;
}

/** Undefined: help is wanted. */
function askedFor<W extends Sizes<W>>(suite: Suite<W>, args: readonly string[]): Given<W> | undefined {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      ...Object.fromEntries(Object.keys(suite.options).map((name) => [name, text])),
      ...{ pairs: text, disk: text, load: text, quick: flag, keep: flag, help: flag },
    },
  });
  if (values.help) return undefined;
  const all = suite.benches.flatMap(({ names }) => names);
  const asked = positionals.flatMap((word) => word.split(","));
  const unknown = asked.find((name) => !all.includes(name));
  if (unknown !== undefined) throw new Error(`--${suite.kind} ${unknown}: there are ${all.join(", ")}`);
  const wanted = new Set(asked.length === 0 ? all : asked);
  const usual = values.quick ? suite.quick : suite.full;
  const texts = values as Readonly<Record<string, string | boolean | undefined>>;
  const number = (name: string, otherwise: number): number => {
    const value = texts[name];
    if (value === undefined) return otherwise;
    const found = Number(value);
    if (!(found > 0) || (!suite.fractions.includes(name) && !Number.isInteger(found)))
      throw new Error(`--${name} ${String(value)}: a number above 0 is wanted`);
    return found;
  };
  const changed = Object.entries(suite.options).map(
    ([name, key]) => [key, number(name, usual[key])] as const,
  );
  return {
    benches: suite.benches.filter(({ names }) => names.some((name) => wanted.has(name))),
    wanted,
    wishes: { ...usual, ...Object.fromEntries(changed) },
    pairs: number("pairs", values.quick ? suite.pairs.quick : suite.pairs.full),
    quick: values.quick,
    keep: values.keep,
    disk: resolve(values.disk ?? "holdfast-data"),
    load: values.load,
  };
}
