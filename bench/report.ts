// From samples to rows, verdicts and tables: pure functions.

import { BARS, JUICEFS, libfuse } from "./bars.js";
import type { Bar, FigureBar, RatioBar, Reference } from "./bars.js";
import type { Measure } from "./load.js";
import { LABELS, SYSTEMS, keyOf } from "./plan.js";
import type { SystemName } from "./plan.js";

/** One measure of one system in one pair. */
export interface Sample extends Measure {
  system: SystemName;
  pair: number;
}

/** A number of Holdfast alone, from one pair. */
export interface Figure {
  measure: string;
  pair: number;
  value: number;
  /** What else was counted meanwhile. */
  notes?: Readonly<Record<string, number>>;
}

export interface Spread {
  median: number;
  least: number;
  most: number;
  count: number;
}

export interface Row {
  key: string;
  work: string;
  jobs: number;
  blockBytes: number;
  /** Operations per second, or MiB/s for streams. */
  unit: "/s" | "MiB/s";
  rates: Partial<Record<SystemName, Spread>>;
  /** Median over pairs, microseconds. */
  p50: Partial<Record<SystemName, number>>;
  p99: Partial<Record<SystemName, number>>;
  /** Holdfast RF 2 ÷ the other, taken within each pair. */
  ratios: Partial<Record<SystemName, Spread>>;
  /** The better one of libfuse's in this run. */
  libfuse?: SystemName;
}

export type State = "met" | "missed" | "not measured";

export interface Verdict {
  issue: number;
  words: string;
  /** What stands under the ratio; empty for figures. */
  against: string;
  wanted: string;
  stretch: string;
  value: Spread | undefined;
  state: State;
  /** Undefined: there is no stretch, or it was not measured. */
  stretchMet: boolean | undefined;
}

/** These may be missing on a machine: a bar against them is then not measured, and not missed. */
const OPTIONAL: readonly SystemName[] = [
  "glusterfs",
  "fuse_native",
  "passthrough_hp_uring",
  "passthrough_ll_uring",
];

export function spread(values: readonly number[]): Spread | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  const [least, most] = [sorted[0], sorted.at(-1)];
  if (least === undefined || most === undefined) return undefined;
  const middle = Math.floor(sorted.length / 2);
  const high = sorted[middle] ?? NaN;
  const median = sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? NaN) + high) / 2;
  return { median, least, most, count: sorted.length };
}

export const sampleKey = ({ work, blockBytes, jobs }: Measure) => keyOf(work, blockBytes / 1024, jobs);
const unitOf = (work: string) => (work.startsWith("sequential") ? "MiB/s" : "/s");
const rateOf = (sample: Sample) =>
  unitOf(sample.work) === "/s" ? sample.operationsPerSecond : sample.mibPerSecond;

export function groupsOf(samples: readonly Sample[]): Map<string, Sample[]> {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) {
    const key = sampleKey(sample);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [sample]);
    else group.push(sample);
  }
  return groups;
}

export function rowsOf(samples: readonly Sample[]): Row[] {
  return [...groupsOf(samples)].map(([key, group]) => {
    const { work, jobs, blockBytes } = group[0] as Sample;
    const row: Row = {
      key,
      work,
      jobs,
      blockBytes,
      unit: unitOf(work),
      rates: {},
      p50: {},
      p99: {},
      ratios: {},
    };
    for (const system of SYSTEMS) {
      const own = group.filter((sample) => sample.system === system);
      const rates = spread(own.map(rateOf));
      if (rates === undefined) continue;
      row.rates[system] = rates;
      row.p50[system] = spread(own.map(({ latencyMicroseconds }) => latencyMicroseconds.p50))?.median ?? NaN;
      row.p99[system] = spread(own.map(({ latencyMicroseconds }) => latencyMicroseconds.p99))?.median ?? NaN;
      const ratios = system === "holdfast" ? undefined : spread(ratiosIn(group, "holdfast", system));
      if (ratios !== undefined) row.ratios[system] = ratios;
    }
    const best = bestLibfuse(row);
    return best === undefined ? row : { ...row, libfuse: best };
  });
}

/** Subject ÷ reference of every pair that has both. */
function ratiosIn(group: readonly Sample[], subject: SystemName, reference: SystemName): number[] {
  const byPair = new Map(
    group.filter(({ system }) => system === reference).map((sample) => [sample.pair, rateOf(sample)]),
  );
  return group.flatMap((sample) => {
    const other = byPair.get(sample.pair);
    return sample.system === subject && other !== undefined ? [rateOf(sample) / other] : [];
  });
}

function bestLibfuse(row: Row): SystemName | undefined {
  const rated = libfuse.filter((system) => row.rates[system] !== undefined);
  const rate = (system: SystemName) => row.rates[system]?.median ?? 0;
  return rated.reduce<SystemName | undefined>(
    (best, system) => (best === undefined || rate(system) > rate(best) ? system : best),
    undefined,
  );
}

export function verdictsOf(
  samples: readonly Sample[],
  figures: readonly Figure[],
  bars: readonly Bar[] = BARS,
): Verdict[] {
  const groups = groupsOf(samples);
  const rows = new Map(rowsOf(samples).map((row) => [row.key, row]));
  return bars.map((bar) => {
    if (bar.kind === "figure") return figureVerdict(bar, figures);
    return ratioVerdict(bar, groups.get(bar.measure) ?? [], rows.get(bar.measure));
  });
}

function figureVerdict(bar: FigureBar, figures: readonly Figure[]): Verdict {
  const { issue, words, most, unit, stretch } = bar;
  const value = spread(
    figures.filter(({ measure }) => measure === bar.measure).map((figure) => figure.value),
  );
  return {
    issue,
    words,
    against: "",
    wanted: `≤ ${short(most)} ${unit}`,
    stretch: stretch === undefined ? "" : `≤ ${stretch}`,
    value,
    state: value !== undefined && value.median <= most ? "met" : "missed",
    stretchMet: stretch === undefined || value === undefined ? undefined : value.median <= stretch,
  };
}

function ratioVerdict(bar: RatioBar, group: readonly Sample[], row: Row | undefined): Verdict {
  const { issue, words, least, stretch } = bar;
  const over = (against: Reference, share = 1): Spread | undefined => {
    const system = against === "libfuse" ? row?.libfuse : against;
    if (system === undefined) return undefined;
    return spread(ratiosIn(group, bar.subject, system).map((value) => value / share));
  };
  const value = over(bar.against, bar.share?.of);
  const optional = bar.against !== "libfuse" && OPTIONAL.includes(bar.against);
  const far =
    stretch && over(stretch.against ?? bar.against, (stretch.against ? stretch.share : bar.share)?.of);
  const missing: State = optional ? "not measured" : "missed";
  return {
    issue,
    words,
    against: bar.share?.words ?? referenceText(bar.against, row),
    wanted: `≥ ${short(least)}`,
    stretch: stretch === undefined ? "" : `≥ ${short(stretch.least)}${stretchText(stretch.against)}`,
    value,
    state: value === undefined ? missing : value.median >= least ? "met" : "missed",
    stretchMet: stretch === undefined || far === undefined ? undefined : far.median >= stretch.least,
  };
}

function referenceText(against: Reference, row: Row | undefined): string {
  if (against !== "libfuse") return LABELS[against];
  return row?.libfuse === undefined ? "libfuse" : `libfuse (${LABELS[row.libfuse]})`;
}

const stretchText = (against: Reference | undefined) =>
  against === undefined ? "" : ` × ${against === "libfuse" ? "libfuse" : LABELS[against]}`;
const short = (value: number) => String(Math.round(value * 100) / 100);

/** Whether a run for bars is good: nothing was missed. */
export function allMet(verdicts: readonly Verdict[]): boolean {
  return verdicts.every(({ state }) => state !== "missed");
}

/** Markdown: medians; ratios as median (least–most); a ratio under 1 is bold: there we lose. */
export function tableOf(rows: readonly Row[]): string {
  const systems = SYSTEMS.filter((system) => rows.some((row) => row.rates[system] !== undefined));
  const lines = rows.map((row) => {
    const rates = systems.map((system) => rateText(row.rates[system]?.median));
    const over = [row.ratios.ext4, row.libfuse && row.ratios[row.libfuse]].map((ratio) => ratioText(ratio));
    const quoted = JUICEFS[row.key];
    return [nameOf(row), row.unit, ...rates, ...over, quoted === undefined ? "–" : quoted.toFixed(2)];
  });
  const ratios = ["Holdfast ÷ plain", "Holdfast ÷ best libfuse", "JuiceFS ÷ plain, quoted"];
  const head = ["work", "unit", ...systems.map((system) => LABELS[system]), ...ratios];
  return markdown([head, head.map(() => "---"), ...lines]);
}

/** p50 and p99 by system, microseconds; empty where only whole runs were timed. */
export function latencyTable(rows: readonly Row[]): string {
  const timed = rows.filter(({ p99 }) => Object.values(p99).some((value) => value > 0));
  if (timed.length === 0) return "";
  const systems = SYSTEMS.filter((system) => timed.some((row) => row.p99[system] !== undefined));
  const lines = timed.map((row) => {
    const cells = systems.map((system) => {
      const [middle, far] = [row.p50[system], row.p99[system]];
      return middle === undefined || far === undefined ? "–" : `${rateText(middle)} / ${rateText(far)}`;
    });
    return [nameOf(row), ...cells];
  });
  const head = ["p50 / p99, µs", ...systems.map((system) => LABELS[system])];
  return markdown([head, head.map(() => "---"), ...lines]);
}

export function verdictText(verdicts: readonly Verdict[]): string {
  const head = ["bar", "work", "against", "wanted", "median (least–most)", "pairs", "stretch", ""];
  const issues = [...new Set(verdicts.map(({ issue }) => issue))].sort((a, b) => a - b);
  return issues
    .map((issue) => {
      const own = verdicts.filter((verdict) => verdict.issue === issue);
      const lines = own.map(({ state, words, against, wanted, value, stretch, stretchMet }) => {
        const far = stretchMet === undefined ? "" : stretchMet ? "reached" : "not yet";
        const called = state === "missed" ? "MISSED" : state;
        return [
          called,
          words,
          against,
          wanted,
          ratioText(value, false),
          String(value?.count ?? 0),
          stretch,
          far,
        ];
      });
      const met = own.filter(({ state }) => state === "met").length;
      const title = `Issue ${issue}: ${met} of ${own.length} met`;
      return `${title}\n\n${markdown([head, head.map(() => "---"), ...lines])}`;
    })
    .join("\n\n");
}

export function nameOf({ work, blockBytes, jobs }: Pick<Row, "work" | "blockBytes" | "jobs">): string {
  const usual = work.startsWith("sequential") ? 2 ** 20 : 4096;
  const size =
    blockBytes === 0 || blockBytes === usual ? "" : `, ${blockBytes < 2 ** 20 ? "4 KiB" : "1 MiB"}`;
  return `${work}${size}${jobs === 1 ? "" : `, ${jobs} jobs`}`;
}

function rateText(rate: number | undefined): string {
  if (rate === undefined) return "–";
  return rate >= 100 ? Math.round(rate).toLocaleString("en") : rate.toFixed(1);
}

function ratioText(ratio: Spread | undefined, markLoss = true): string {
  if (ratio === undefined) return "–";
  const median = ratio.median.toFixed(2);
  const shown = markLoss && ratio.median < 1 ? `**${median}**` : median;
  return ratio.count === 1 ? shown : `${shown} (${ratio.least.toFixed(2)}–${ratio.most.toFixed(2)})`;
}

export function markdown(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) => {
    const cells = row.map((cell, column) => cell.padEnd(widths[column] ?? 0, cell === "---" ? "-" : " "));
    return `| ${cells.join(" | ")} |`;
  };
  return rows.map(line).join("\n");
}
