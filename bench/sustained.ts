// `npm run bench -- --sustained`: random 4 KiB overwrites of a nearly full pool for minutes. Does it go on as it began, what
// does a written byte cost, how much of the past is kept, and does every second make progress? The engine itself is driven,
// by the example `sustained` of native/store; its lines are parsed here.

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { check, printCheck } from "./checks.js";
import type { Check } from "./checks.js";
import { runExample } from "./example.js";
import { Progress } from "./progress.js";
import { originOf, writeResults } from "./results.js";
import type { Origin } from "./results.js";

const USAGE = `npm run bench -- --sustained [options]
  --minutes N    how long (default 10; the first minute is compared with the last)
  --fsync        an fsync after each write; the pool is then 70 % full instead of 80 %
  --jobs N       writers, a file each (default 1)
  --pool-mib N   size of the pool (default: 2 GiB a minute, 1 GiB with --fsync, so that each block is overwritten often)
  --disk DIR     where the drives lie (default: holdfast-data/)
  --keep         keeps the result where it is committed`;

/** MiB of pool for a minute. */
const POOL_MIB = { plain: 2048, fsync: 1024 } as const;
const HISTORY_PERCENT = 30;
const LIVE_PERCENT = { plain: 50, fsync: 40 } as const;
const BARS = {
  lastOverFirst: 0.7,
  amplification: { plain: 3, fsync: 3.5 },
  metadataBytes: 30,
  overwrites: 5,
} as const;

/** As the example writes it. */
interface Summary {
  overwrites_per_block: number;
  first_per_s: number;
  last_per_s: number;
  last_over_first: number;
  slowest_second: number;
  write_amplification: number;
  metadata_bytes_per_block: number;
  full_percent: number;
  window_s: number;
  retention_s: number;
}

interface Second {
  second: number;
  writes: number;
}

interface SustainedResults extends Origin {
  summary: Summary;
  checks: readonly Check[];
  writesPerSecond: readonly number[];
}

/** Exit status: 0, 1 when a bar is missed. */
export async function runSustained(root: string, args: readonly string[]): Promise<number> {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const { values } = parseArgs({
    args: [...args],
    options: { minutes: text, jobs: text, "pool-mib": text, disk: text, fsync: flag, keep: flag, help: flag },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const kind = values.fsync ? "fsync" : "plain";
  const minutes = numberOf("--minutes", values.minutes ?? "10");
  const jobs = numberOf("--jobs", values.jobs ?? "1");
  const poolMib = numberOf("--pool-mib", values["pool-mib"] ?? String(Math.ceil(minutes * POOL_MIB[kind])));
  const disk = resolve(values.disk ?? join(root, "holdfast-data"));
  const words = ["jobs", jobs, "live", LIVE_PERCENT[kind], "history", HISTORY_PERCENT].map(String);
  if (values.fsync) words.push("fsync");
  const seconds = Math.round(minutes * 60);
  const { summary, writesPerSecond } = await drive(root, disk, seconds, [String(poolMib), ...words]);
  const checks = checksOf(summary, kind);
  checks.forEach(printCheck);
  process.stdout.write(`history held at the end: ${summary.window_s} s of ${summary.retention_s} s\n`);
  const results: SustainedResults = {
    ...originOf(root, ["--sustained", ...args]),
    summary,
    checks,
    writesPerSecond,
  };
  process.stdout.write(`${writeResults(root, "sustained", results, values.keep)}\n`);
  return checks.every(({ met }) => met) ? 0 : 1;
}

function numberOf(name: string, value: string): number {
  const number = Number(value);
  if (!Number.isFinite(number) || number <= 0)
    throw new Error(`${name} ${value}: a number above 0 is wanted`);
  return number;
}

/** Runs the example in a fresh folder of `disk`. */
async function drive(
  root: string,
  disk: string,
  seconds: number,
  words: readonly string[],
): Promise<{ summary: Summary; writesPerSecond: number[] }> {
  mkdirSync(disk, { recursive: true });
  const folder = mkdtempSync(join(disk, "sustained-"));
  const progress = new Progress();
  progress.start(seconds);
  const writesPerSecond: number[] = [];
  const summaries: Summary[] = [];
  try {
    await runExample(root, "sustained", folder, [String(seconds), ...words], (line) => {
      const said = line as Second | { summary: Summary };
      if ("summary" in said) summaries.push(said.summary);
      else {
        writesPerSecond.push(said.writes);
        progress.step(`${said.writes} writes/s`);
      }
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const [summary] = summaries;
  if (summary === undefined) throw new Error("the example sustained ended without a summary");
  return { summary, writesPerSecond };
}

function checksOf(summary: Summary, kind: "plain" | "fsync"): Check[] {
  return [
    check("last minute over first", summary.last_over_first, 2, "≥", BARS.lastOverFirst),
    check("write amplification", summary.write_amplification, 2, "≤", BARS.amplification[kind]),
    check("metadata bytes per random 4 KiB", summary.metadata_bytes_per_block, 1, "≤", BARS.metadataBytes),
    check("writes in the slowest second", summary.slowest_second, 0, "≥", 1),
    check("overwrites of each block", summary.overwrites_per_block, 1, "≥", BARS.overwrites),
  ];
}
