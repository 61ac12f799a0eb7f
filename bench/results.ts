// Results as JSON: everything that a reader needs to run it again.
//
// - `results/local/KIND-TIME.json`: of every run, not committed.
// - `results/KIND.json`: with --keep, to be committed; the README's tables and the plots are made from these.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import type { Histogram } from "./load.js";
import type { SystemName } from "./plan.js";
import { groupsOf, rowsOf } from "./report.js";
import type { Figure, Row, Sample, Verdict } from "./report.js";

export type Kind = "mounts" | "bars" | "quick" | "micro" | "sustained" | "scale" | "past" | "sites";

/** What every kind of result says of itself. */
export interface Origin {
  at: string;
  /** Ends in `+` when there were changes that were not committed. */
  commit: string;
  command: string;
  machine: { processor: string; cores: number; memoryMib: number; kernel: string; node: string };
}

export interface MountResults extends Origin {
  /** How each system was set up; what could not be, and why. */
  setups: Partial<Record<SystemName, string>>;
  missing: Partial<Record<SystemName, string>>;
  /** Caches were emptied before cold work: root only. */
  cold: boolean;
  rows: readonly Row[];
  bars: readonly Verdict[];
  figures: readonly Figure[];
  /** All pairs together, by row and system. */
  latencies: Record<string, Partial<Record<SystemName, Histogram>>>;
  samples: readonly Omit<Sample, "histogram">[];
}

export interface MicroRow {
  name: string;
  /** Nanoseconds an op. */
  p50: number;
  p99: number;
  mean: number;
  /** Relative margin of error of the mean, percent. */
  marginPercent: number;
  operationsPerSecond: number;
  mibPerSecond: number | null;
  samples: number;
}

export interface MicroResults extends Origin {
  rows: readonly MicroRow[];
}

export function originOf(root: string, args: readonly string[]): Origin {
  const commit = git(root, ["rev-parse", "--short=12", "HEAD"]);
  const dirty = git(root, ["status", "--porcelain", "--untracked-files=no"]) !== "";
  return {
    at: new Date().toISOString(),
    commit: dirty ? `${commit}+` : commit,
    command: `npm run bench -- ${args.join(" ")}`.trim(),
    machine: {
      processor: cpus()[0]?.model ?? "unknown",
      cores: cpus().length,
      memoryMib: Math.round(totalmem() / 2 ** 20),
      kernel: release(),
      node: process.version,
    },
  };
}

export function mountResults(
  origin: Origin,
  run: Pick<MountResults, "setups" | "missing" | "cold" | "bars" | "figures">,
  samples: readonly Sample[],
): MountResults {
  const latencies: MountResults["latencies"] = {};
  for (const [key, group] of groupsOf(samples)) {
    const systems = new Set(group.map(({ system }) => system));
    const merged = [...systems].map((system) => {
      const own = group.filter((sample) => sample.system === system).map(({ histogram }) => histogram);
      return [system, mergeHistograms(own)] as const;
    });
    latencies[key] = Object.fromEntries(merged.filter(([, histogram]) => histogram.length > 0));
  }
  return { ...origin, ...run, rows: rowsOf(samples), latencies, samples: samples.map(withoutHistogram) };
}

function withoutHistogram(sample: Sample): Omit<Sample, "histogram"> {
  const rest: Partial<Sample> & Omit<Sample, "histogram"> = { ...sample };
  delete rest.histogram;
  return rest;
}

export function mergeHistograms(histograms: readonly Histogram[]): Histogram {
  const buckets = new Map<number, number>();
  for (const [low, count] of histograms.flat()) buckets.set(low, (buckets.get(low) ?? 0) + count);
  return [...buckets].sort(([a], [b]) => a - b);
}

/** Writes results; their path. */
export function writeResults<T extends Origin>(root: string, kind: Kind, results: T, keep: boolean): string {
  const folder = join(root, "bench", "results", ...(keep ? [] : ["local"]));
  mkdirSync(folder, { recursive: true });
  const name = keep ? kind : `${kind}-${results.at.slice(0, 19).replaceAll(":", "")}`;
  const path = join(folder, `${name}.json`);
  writeFileSync(path, `${readable(results)}\n`);
  return path;
}

/** JSON with a line for each entry of the outer lists and objects. */
function readable(results: Origin): string {
  const lines = Object.entries(results).map(([name, value]: [string, unknown]) => {
    const head = `${JSON.stringify(name)}: `;
    if (Array.isArray(value)) {
      const entries = value.map((entry) => `  ${JSON.stringify(entry)}`);
      return entries.length === 0 ? `${head}[]` : `${head}[\n${entries.join(",\n")}\n ]`;
    }
    if (typeof value !== "object" || value === null) return `${head}${JSON.stringify(value)}`;
    const entries = Object.entries(value).map(
      ([key, inner]) => `  ${JSON.stringify(key)}: ${JSON.stringify(inner)}`,
    );
    return entries.length === 0 ? `${head}{}` : `${head}{\n${entries.join(",\n")}\n }`;
  });
  return `{\n ${lines.join(",\n ")}\n}`;
}

/** The kept results of a kind, if there are any. */
export function readKept<T extends Origin>(root: string, kind: Kind): T | undefined {
  const path = join(root, "bench", "results", `${kind}.json`);
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as T) : undefined;
}

function git(root: string, args: readonly string[]): string {
  return execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
}
