// `npm run bench -- --scale`: what a volume with millions of files costs, seen through a mount: memory, starts, look-ups, and
// whether the past makes the present slow.

import {
  closeSync,
  constants,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
} from "node:fs";
import { readdirSync, rmSync, statSync, unlinkSync, writeFileSync, writeSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { parseArgs } from "node:util";
import { check, printCheck } from "./checks.js";
import type { Check } from "./checks.js";
import { Daemon } from "./daemon.js";
import { dropCaches } from "./load.js";
import { Progress } from "./progress.js";
import { spread } from "./report.js";
import { originOf, writeResults } from "./results.js";
import type { Origin } from "./results.js";

const USAGE = `npm run bench -- --scale [options]
  --files N      files (default 2000000)
  --cache MIB    metadata cache (default 64)
  --names N      names that are created and removed in one directory (default 1000000)
  --disk DIR     where the drives lie (default: holdfast-data/)
  --keep         keeps the result where it is committed`;

const BLOCK_BYTES = 4096;
const FILE_BYTES = 100;
const FILES_A_DIRECTORY = 10_000;
/** Created just before the daemon is killed. */
const LATE_SHARE = 0.15;
const LOOKUPS = 20_000;
const OVERWRITES = 1_000_000;
const KEPT_SECONDS = 62;
const READS = 20_000;
const READ_TURNS = 10;
const IDLE_SECONDS = 30;
const STEPS = 40;
/** Of /proc/PID/stat. */
const TICKS_A_SECOND = 100;
/** Above these, the bars are those of 10 million files. */
const SMALL_FILES_MAX = 2_000_000;
const BARS = {
  small: { rssMib: 400, cleanSeconds: 3, killedSeconds: 10 },
  large: { rssMib: 1024, cleanSeconds: 5, killedSeconds: 15 },
  idle: { rssMib: 150, processorPercent: 1 },
  listingMs: 50,
  overwrittenReads: 1.2,
} as const;

interface ScaleResults extends Origin {
  checks: readonly Check[];
  figures: Record<string, number>;
}

class Scale {
  readonly checks: Check[] = [];
  readonly figures: Record<string, number> = {};
  readonly progress = new Progress();

  constructor(
    readonly root: string,
    readonly folder: string,
    readonly config: string,
    readonly driveBytes: number,
  ) {}

  start(): Promise<Daemon> {
    const size = `${Math.ceil(this.driveBytes / 2 ** 20)}MiB`;
    return Daemon.start(this.root, this.folder, { config: this.config, size });
  }

  note(line: Check): void {
    this.progress.end();
    printCheck(line);
    this.checks.push(line);
  }

  /** `count` times, with progress in between; seconds. The event loop runs, too: it learns of connections that were closed. */
  async many(words: string, count: number, act: (number: number) => void): Promise<number> {
    const begun = performance.now();
    this.progress.start(STEPS);
    for (let number = 0; number < count; number += 1) {
      if (number % Math.ceil(count / STEPS) === 0) {
        this.progress.step(words);
        await setImmediate();
      }
      act(number);
    }
    await setImmediate();
    this.progress.end();
    return (performance.now() - begun) / 1000;
  }
}

/** Exit status: 0, 1 when a bar is missed. */
export async function runScale(root: string, args: readonly string[]): Promise<number> {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const options = { files: text, cache: text, names: text, disk: text, keep: flag, help: flag };
  const { values } = parseArgs({ args: [...args], options });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const whole = (name: string, value: string): number => {
    if (!/^[1-9]\d*$/.test(value)) throw new Error(`--${name} ${value}: a whole number above 0 is wanted`);
    return Number(value);
  };
  const files = whole("files", values.files ?? "2000000");
  const cache = whole("cache", values.cache ?? "64");
  const names = whole("names", values.names ?? "1000000");
  const disk = resolve(values.disk ?? join(root, "holdfast-data"));
  mkdirSync(disk, { recursive: true });
  const folder = mkdtempSync(join(disk, "scale-"));
  const config = `log: {level: warn}\nmemory: {metadata_cache: ${cache}MiB}\nhistory: {window: 1h, limit: 20%}\n`;
  // A file with its records takes less than a kilobyte; merges, log and history want room, too.
  const scale = new Scale(root, folder, config, 4 * 2 ** 30 + (files + names) * 1500);
  let daemon: Daemon | undefined;
  try {
    daemon = await scale.start();
    await idle(scale, daemon);
    daemon = await manyFiles(scale, daemon, files);
    await removedNames(scale, daemon, names);
    await overwritten(scale, daemon);
  } finally {
    await daemon?.stop();
    rmSync(folder, { recursive: true, force: true });
  }
  const { checks, figures } = scale;
  const results: ScaleResults = { ...originOf(root, ["--scale", ...args]), checks, figures };
  process.stdout.write(`${JSON.stringify(figures)}\n${writeResults(root, "scale", results, values.keep)}\n`);
  return checks.every(({ met }) => met) ? 0 : 1;
}

async function idle(scale: Scale, daemon: Daemon): Promise<void> {
  await daemon.quiet();
  const { pid } = await daemon.status();
  const before = ticksOf(pid);
  await delay(IDLE_SECONDS * 1000);
  const percent = ((ticksOf(pid) - before) / TICKS_A_SECOND / IDLE_SECONDS) * 100;
  scale.note(check("idle: resident memory", memoryOf(pid, "VmRSS"), 0, "≤", BARS.idle.rssMib, " MiB"));
  scale.note(check("idle: processor time", percent, 2, "≤", BARS.idle.processorPercent, " %"));
}

/** Ends with a daemon that was started anew after a kill. */
async function manyFiles(scale: Scale, first: Daemon, files: number): Promise<Daemon> {
  const bars = files > SMALL_FILES_MAX ? BARS.large : BARS.small;
  let daemon = first;
  const late = Math.floor(files * LATE_SHARE);
  const early = await scale.many("files", files - late, (number) => createFile(daemon.mount, number));
  scale.figures.filesCreatedPerSecond = (files - late) / early;
  await daemon.quiet();
  if (dropCaches()) {
    let state = 1;
    const looked = await scale.many("look-ups", LOOKUPS, () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      expectFile(daemon.mount, state % (files - late));
    });
    scale.figures.coldLookupsPerSecond = LOOKUPS / looked;
  }
  let peak = memoryOf((await daemon.status()).pid, "VmHWM");
  await daemon.stop();
  let begun = performance.now();
  daemon = await scale.start();
  scale.note(check("start after an orderly end", since(begun), 2, "≤", bars.cleanSeconds, " s"));
  expectFile(daemon.mount, 0);
  await scale.many("more files", late, (number) => createFile(daemon.mount, files - late + number));
  const last = openSync(pathOf(daemon.mount, files - 1), "r");
  fsyncSync(last);
  closeSync(last);
  peak = Math.max(peak, memoryOf((await daemon.status()).pid, "VmHWM"));
  scale.note(check(`${files} files: peak of resident memory`, peak, 0, "≤", bars.rssMib, " MiB"));
  await daemon.kill();
  begun = performance.now();
  daemon = await scale.start();
  scale.note(check("start after kill -9", since(begun), 2, "≤", bars.killedSeconds, " s"));
  for (let number = files - late; number < files; number += 997) expectFile(daemon.mount, number);
  expectFile(daemon.mount, files - 1);
  return daemon;
}

async function removedNames(scale: Scale, daemon: Daemon, names: number): Promise<void> {
  const directory = join(daemon.mount, "names");
  mkdirSync(directory);
  const name = (number: number): string => join(directory, `n${number}`);
  await scale.many("names", names, (number) => closeSync(openSync(name(number), "wx")));
  await daemon.quiet();
  await scale.many("removals", names, (number) => unlinkSync(name(number)));
  await daemon.quiet();
  const begun = performance.now();
  const left = readdirSync(directory).length;
  const took = performance.now() - begun;
  if (left !== 0) throw new Error(`${left} names are left`);
  scale.note(check(`listing after ${names} removed names`, took, 2, "≤", BARS.listingMs, " ms"));
}

async function overwritten(scale: Scale, daemon: Daemon): Promise<void> {
  const paths = [join(daemon.mount, "once"), join(daemon.mount, "often")] as const;
  const block = Buffer.alloc(BLOCK_BYTES, 1);
  paths.forEach((path) => writeFileSync(path, block, { flush: true }));
  const often = openSync(paths[1], "r+");
  const aSecond = Math.ceil(OVERWRITES / KEPT_SECONDS);
  const begun = performance.now();
  scale.progress.start(KEPT_SECONDS);
  for (let second = 0; second < KEPT_SECONDS; second += 1) {
    scale.progress.step("overwrites");
    for (let number = 0; number < aSecond; number += 1) writeSync(often, block, 0, BLOCK_BYTES, 0);
    await delay(Math.max(0, begun + (second + 1) * 1000 - performance.now()));
  }
  scale.progress.end();
  fsyncSync(often);
  closeSync(often);
  await daemon.quiet();
  const medians: [number[], number[]] = [[], []];
  for (let turn = 0; turn < READ_TURNS; turn += 1)
    for (const which of [0, 1] as const) medians[which].push(medianRead(paths[which], READS / READ_TURNS));
  const ratio = median(medians[1]) / median(medians[0]);
  const what = `reading a block that was overwritten ${OVERWRITES} times, against one written once`;
  scale.note(check(what, ratio, 2, "≤", BARS.overwrittenReads, " ×"));
}

/** Microseconds; past the kernel's page cache. */
function medianRead(path: string, count: number): number {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  const block = Buffer.alloc(BLOCK_BYTES);
  const times: number[] = [];
  for (let number = 0; number < count; number += 1) {
    const begun = performance.now();
    readSync(fd, block, 0, BLOCK_BYTES, 0);
    times.push((performance.now() - begun) * 1000);
  }
  closeSync(fd);
  return median(times);
}

const median = (values: readonly number[]): number => spread(values)?.median ?? NaN;

function pathOf(mount: string, number: number): string {
  return join(mount, `d${Math.floor(number / FILES_A_DIRECTORY)}`, `f${number}`);
}

function contentOf(number: number): Buffer {
  return Buffer.alloc(FILE_BYTES, `${number};`);
}

function createFile(mount: string, number: number): void {
  if (number % FILES_A_DIRECTORY === 0)
    mkdirSync(join(mount, `d${number / FILES_A_DIRECTORY}`), { recursive: true });
  const fd = openSync(pathOf(mount, number), "wx");
  writeSync(fd, contentOf(number));
  closeSync(fd);
}

function expectFile(mount: string, number: number): void {
  const path = pathOf(mount, number);
  if (statSync(path).size !== FILE_BYTES || !readFileSync(path).equals(contentOf(number)))
    throw new Error(`${path} is not what was written`);
}

function since(begunMs: number): number {
  return (performance.now() - begunMs) / 1000;
}

function memoryOf(pid: number, field: "VmRSS" | "VmHWM"): number {
  const line = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(line?.[1]) / 1024;
}

/** User and system time. */
function ticksOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
