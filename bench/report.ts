// From samples to tables, bars and a file.

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import type { Measure } from "./load.js";
import { BARS } from "./plan.js";
import type { SystemName } from "./plan.js";

/** One measure of one system in one pair. */
export interface Sample extends Measure {
  system: SystemName;
  pair: number;
}

export interface Spread {
  median: number;
  least: number;
  most: number;
}

export interface Row {
  work: string;
  jobs: number;
  /** Operations per second, or MiB/s for streams. */
  unit: "/s" | "MiB/s";
  rates: Partial<Record<SystemName, Spread>>;
  /** Holdfast ÷ baseline, taken within each pair. */
  ratios: Partial<Record<SystemName, Spread>>;
  p99: Partial<Record<SystemName, Spread>>;
}

export interface Verdict {
  words: string;
  against: SystemName;
  least: number;
  ratio: Spread | undefined;
  met: boolean;
}

export function spread(values: readonly number[]): Spread {
  if (values.length === 0) throw new Error("no values");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const high = sorted[middle] ?? NaN;
  const median = sorted.length % 2 === 1 ? high : ((sorted[middle - 1] ?? NaN) + high) / 2;
  return { median, least: sorted[0] ?? NaN, most: sorted.at(-1) ?? NaN };
}

export function rowsOf(samples: readonly Sample[]): Row[] {
  const groups = groupBy(samples);
  return [...groups.values()].map((group) => {
    const first = group[0];
    if (first === undefined) throw new Error("an empty group");
    const row: Row = { work: first.work, jobs: first.jobs, unit: unitOf(first.work), rates: {}, ratios: {}, p99: {} };
    const ours = group.filter(({ system }) => system === "holdfast");
    for (const system of new Set(group.map((sample) => sample.system))) {
      const theirs = group.filter((sample) => sample.system === system);
      row.rates[system] = spread(theirs.map(rateOf));
      row.p99[system] = spread(theirs.map((sample) => sample.latencyMicroseconds.p99));
      if (system === "holdfast" || ours.length === 0) continue;
      const ratios = ours.flatMap((our) => {
        const other = theirs.find(({ pair }) => pair === our.pair);
        return other === undefined ? [] : [rateOf(our) / rateOf(other)];
      });
      row.ratios[system] = spread(ratios);
    }
    return row;
  });
}

export function verdictsOf(rows: readonly Row[]): Verdict[] {
  return BARS.map(({ measure, jobs, against, least, words }) => {
    const ratio = rows.find((row) => row.work === measure && row.jobs === jobs)?.ratios[against];
    return { words, against, least, ratio, met: ratio !== undefined && ratio.median >= least };
  });
}

/** Markdown: rates as medians, ratios as median (least–most). */
export function tableOf(rows: readonly Row[]): string {
  const lines = rows.map((row) => {
    const rates = (["ext4", "libfuse", "holdfast"] as const).map((system) => rateText(row.rates[system]?.median));
    const ratios = (["ext4", "libfuse"] as const).map((system) => ratioText(row.ratios[system]));
    const name = row.jobs === 1 ? row.work : `${row.work}, ${row.jobs} jobs`;
    const p99 = rateText(row.p99.holdfast?.median);
    return [name, row.unit, ...rates, ...ratios, p99];
  });
  const head = ["work", "unit", "ext4", "libfuse", "Holdfast", "÷ ext4", "÷ libfuse", "p99 µs"];
  return markdown([head, head.map(() => "---"), ...lines]);
}

export function verdictText(verdicts: readonly Verdict[]): string {
  const lines = verdicts.map(({ words, against, least, ratio, met }) => {
    return [met ? "met" : "MISSED", words, `÷ ${against}`, `≥ ${least}`, ratioText(ratio)];
  });
  const head = ["bar", "work", "against", "wanted", "median (least–most)"];
  return markdown([head, head.map(() => "---"), ...lines]);
}

/** Writes everything that a reader needs to run it again; the file's path. */
export function writeResults(root: string, setups: Record<string, string>, samples: readonly Sample[]): string {
  const commit = git(root, ["rev-parse", "--short=12", "HEAD"]);
  const dirty = git(root, ["status", "--porcelain", "--untracked-files=no"]) !== "";
  const at = new Date().toISOString();
  const machine = {
    processor: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
    memoryMib: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    node: process.version,
  };
  const command = `node dist/bench/mounts.js ${process.argv.slice(2).join(" ")}`.trim();
  const rows = rowsOf(samples);
  const bars = verdictsOf(rows);
  const results = { at, commit: dirty ? `${commit}+` : commit, command, machine, setups, rows, bars, samples };
  const folder = join(root, "bench", "results");
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `mounts-${at.slice(0, 19).replaceAll(":", "")}.json`);
  writeFileSync(path, `${JSON.stringify(results, null, 1)}\n`);
  return path;
}

function git(root: string, args: readonly string[]): string {
  return execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
}

const keyOf = (sample: Sample) => `${sample.work} ${sample.jobs}`;
const unitOf = (work: string) => (work.startsWith("sequential") ? "MiB/s" : "/s");
const rateOf = (sample: Sample) => (unitOf(sample.work) === "/s" ? sample.operationsPerSecond : sample.mibPerSecond);

function groupBy(samples: readonly Sample[]): Map<string, Sample[]> {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) groups.set(keyOf(sample), [...(groups.get(keyOf(sample)) ?? []), sample]);
  return groups;
}

function rateText(rate: number | undefined): string {
  if (rate === undefined) return "–";
  return rate >= 100 ? Math.round(rate).toLocaleString("en") : rate.toFixed(1);
}

function ratioText(ratio: Spread | undefined): string {
  if (ratio === undefined) return "–";
  return `${ratio.median.toFixed(2)} (${ratio.least.toFixed(2)}–${ratio.most.toFixed(2)})`;
}

function markdown(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) => {
    const cells = row.map((cell, column) => cell.padEnd(widths[column] ?? 0, cell === "---" ? "-" : " "));
    return `| ${cells.join(" | ")} |`;
  };
  return rows.map(line).join("\n");
}
