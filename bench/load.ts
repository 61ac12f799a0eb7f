// The native load generator as a function.

import { execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

export interface Latency {
  p50: number;
  p90: number;
  p99: number;
  p999: number;
  max: number;
}

/** Lower bound of a bucket in nanoseconds, ops in it. A bucket ends at the bound ⅛ octave above; bounds never differ. */
export type Histogram = readonly (readonly [lowNs: number, operations: number])[];

/** One measure as `holdfast-load` prints it. */
export interface Measure {
  work: string;
  jobs: number;
  blockBytes: number;
  operations: number;
  seconds: number;
  operationsPerSecond: number;
  mibPerSecond: number;
  latencyMicroseconds: Latency;
  histogram: Histogram;
}

/** Builds the generator; its path. */
export function buildLoad(root: string): string {
  const args = ["build", "--release", "--locked", "-p", "holdfast-twin", "--bin", "holdfast-load"];
  execFileSync("cargo", args, { cwd: join(root, "native"), stdio: ["ignore", "inherit", "inherit"] });
  return join(root, "native", "target", "release", "holdfast-load");
}

export interface LoadOptions {
  work: string;
  directory: string;
  jobs: number;
  seed: number;
  args: readonly string[];
}

export const mayDropCaches = process.geteuid?.() === 0;

/** Writes everything back, and empties the kernel's caches where that may be done; whether it was. */
export function dropCaches(): boolean {
  execFileSync("sync");
  if (mayDropCaches) writeFileSync("/proc/sys/vm/drop_caches", "3");
  return mayDropCaches;
}

/** Runs one work in a directory and waits for it. Root drops the kernel's caches before cold reads and look-ups. */
export async function runLoad(program: string, options: LoadOptions): Promise<Measure[]> {
  const { work, directory, jobs, seed, args } = options;
  const cold = mayDropCaches ? ["--drop-caches"] : [];
  const all = [
    work,
    "--dir",
    directory,
    "--jobs",
    String(jobs),
    "--seed",
    String(seed),
    "--reuse",
    ...args,
    ...cold,
  ];
  return JSON.parse(await outputOf(program, all)) as Measure[];
}

/** What a program prints; fails with what it complains of. */
export async function outputOf(program: string, args: readonly string[]): Promise<string> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  const output: Record<"stdout" | "stderr", string> = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => (output[name] += text));
  }
  const code = await new Promise<number | null>((done, fail) => child.on("error", fail).on("close", done));
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: ${output.stderr.trim() || `exit ${code}`}`);
  return output.stdout;
}
