// Micro benches of the engine's parts. tinybench warms up, samples and keeps the statistics; the work runs in
// `native/store/examples/micro.rs`, batch by batch, and says itself how long a batch took: a call through the addon would
// cost more than most of these parts, and the product's addon gets no doors that only a bench would use.

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Bench } from "tinybench";
import type { FnReturnedObject } from "tinybench";
import type { Options } from "./main.js";
import { Progress } from "./progress.js";
import { markdown } from "./report.js";
import { originOf, writeResults } from "./results.js";
import type { MicroRow } from "./results.js";

const TIME_MS = 1000;
const WARMUP_MS = 200;

interface Part {
  name: string;
  /** Of one op; 0: it moves none. */
  bytes: number;
}

interface Batch {
  operations: number;
  nanoseconds: number;
}

/** The program with the parts: one request at a time. */
class Parts {
  readonly #child;
  readonly #lines: AsyncIterator<string, undefined>;
  readonly parts: Part[] = [];

  private constructor(program: string, folder: string) {
    this.#child = spawn(program, [folder], { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  static async start(program: string, folder: string): Promise<Parts> {
    const started = new Parts(program, folder);
    for (let line = await started.#line(); line !== "ready"; line = await started.#line()) {
      const [name = "", bytes] = line.split("\t");
      started.parts.push({ name, bytes: Number(bytes) });
    }
    return started;
  }

  async run(name: string): Promise<Batch> {
    this.#child.stdin.write(`${name}\n`);
    const [operations, nanoseconds] = (await this.#line()).split(" ").map(Number);
    if (!operations || !nanoseconds) throw new Error(`${name}: no times`);
    return { operations, nanoseconds };
  }

  async stop(): Promise<void> {
    const ended = new Promise<void>((done) => this.#child.on("close", () => done()));
    this.#child.stdin.end();
    if (this.#child.exitCode === null && this.#child.signalCode === null) await ended;
  }

  async #line(): Promise<string> {
    const { value } = await this.#lines.next();
    if (value === undefined) throw new Error("the program of micro benches ended");
    return value;
  }
}

export async function runMicro(root: string, options: Options, args: readonly string[]): Promise<number> {
  const program = buildMicro(root);
  mkdirSync(options.disk, { recursive: true });
  const folder = mkdtempSync(join(realpathSync(options.disk), "micro-"));
  const progress = new Progress();
  let rows: MicroRow[] = [];
  try {
    progress.note("making a pool with 200,000 names");
    const parts = await Parts.start(program, folder);
    try {
      rows = await measure(parts, options.only, progress);
    } finally {
      await parts.stop();
    }
  } finally {
    progress.end();
    rmSync(folder, { recursive: true });
  }
  const path = writeResults(root, "micro", { ...originOf(root, args), rows }, options.keep);
  process.stdout.write(`${microTable(rows)}\n\nEvery figure: ${path}\n`);
  return 0;
}

function buildMicro(root: string): string {
  const args = ["build", "--release", "--locked", "-p", "holdfast-store", "--example", "micro"];
  execFileSync("cargo", args, { cwd: join(root, "native"), stdio: ["ignore", "inherit", "inherit"] });
  return join(root, "native", "target", "release", "examples", "micro");
}

/** A sample is the mean of a batch; the budget of time counts whole batches. */
async function measure(parts: Parts, only: string | undefined, progress: Progress): Promise<MicroRow[]> {
  const bench = new Bench({ time: TIME_MS, warmupTime: WARMUP_MS, throws: true });
  const chosen = parts.parts.filter(({ name }) => only === undefined || name.includes(only));
  if (chosen.length === 0) throw new Error(`--only ${only}: no part's name has it`);
  for (const { name } of chosen) {
    bench.add(name, async (): Promise<FnReturnedObject> => {
      const { operations, nanoseconds } = await parts.run(name);
      const overriddenIterationCost = nanoseconds / 1e6;
      return { overriddenDuration: overriddenIterationCost / operations, overriddenIterationCost };
    });
  }
  progress.start(chosen.length);
  for (const task of bench.tasks) task.addEventListener("warmup", () => progress.step(task.name));
  await bench.run();
  return bench.tasks.map((task) => {
    const { result } = task;
    if (result.state !== "completed") throw new Error(`${task.name}: ${result.state}`);
    const { latency } = result;
    const bytes = chosen.find(({ name }) => name === task.name)?.bytes ?? 0;
    const operationsPerSecond = 1000 / latency.p50;
    return {
      name: task.name,
      p50: latency.p50 * 1e6,
      p99: latency.p99 * 1e6,
      mean: latency.mean * 1e6,
      marginPercent: latency.rme,
      operationsPerSecond,
      mibPerSecond: bytes === 0 ? null : (operationsPerSecond * bytes) / 2 ** 20,
      samples: latency.samplesCount,
    };
  });
}

/** Markdown: a batch's mean is a sample. */
export function microTable(rows: readonly MicroRow[]): string {
  const time = (ns: number) => (ns >= 10_000 ? `${(ns / 1000).toFixed(1)} µs` : `${Math.round(ns)} ns`);
  const lines = rows.map(({ name, p50, p99, operationsPerSecond, mibPerSecond, marginPercent, samples }) => [
    name,
    time(p50),
    time(p99),
    Math.round(operationsPerSecond).toLocaleString("en"),
    mibPerSecond === null ? "–" : Math.round(mibPerSecond).toLocaleString("en"),
    `±${marginPercent.toFixed(1)} %`,
    String(samples),
  ]);
  const head = ["part", "p50", "p99", "ops/s", "MiB/s", "margin of the mean", "batches"];
  return markdown([head, head.map(() => "---"), ...lines]);
}
