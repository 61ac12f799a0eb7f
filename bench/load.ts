// The native load generator as a function.

import { execFileSync, spawn } from "node:child_process";
import { join } from "node:path";
import type { Work } from "./plan.js";

export interface Latency {
  p50: number;
  p90: number;
  p99: number;
  p999: number;
  max: number;
}

/** One measure as `holdfast-load` prints it. */
export interface Measure {
  work: string;
  jobs: number;
  operations: number;
  seconds: number;
  operationsPerSecond: number;
  mibPerSecond: number;
  latencyMicroseconds: Latency;
}

/** Builds the generator; its path. */
export function buildLoad(root: string): string {
  const args = ["build", "--release", "--locked", "-p", "holdfast-twin", "--bin", "holdfast-load"];
  execFileSync("cargo", args, { cwd: join(root, "native"), stdio: ["ignore", "inherit", "inherit"] });
  return join(root, "native", "target", "release", "holdfast-load");
}

/** Runs one work in a directory and waits for it. Root drops the kernel's caches before cold reads and look-ups. */
export async function runLoad(program: string, work: Work, directory: string, seed: number): Promise<Measure[]> {
  const cold = process.geteuid?.() === 0 ? ["--drop-caches"] : [];
  const common = ["--dir", directory, "--jobs", String(work.jobs), "--seed", String(seed)];
  const args = [work.name, ...common, ...work.args, ...cold];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  const output: Record<"stdout" | "stderr", string> = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => (output[name] += text));
  }
  const code = await new Promise<number | null>((done, fail) => child.on("error", fail).on("close", done));
  if (code !== 0) throw new Error(`holdfast-load ${args.join(" ")}: ${output.stderr.trim() || `exit ${code}`}`);
  return JSON.parse(output.stdout) as Measure[];
}
