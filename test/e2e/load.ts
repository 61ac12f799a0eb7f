// A writer that a kill -9 of the daemon interrupts: run as a program of its own, it reports on standard output what was
// acknowledged, and what was flushed, one line each, in order. Lines are complete: a report is one write to a pipe.
//
//   node load.js MOUNT PREFIX WORKER [KEPT]      acked NAME HASH | synced NAME HASH | goes NAME | stop CODE
//
// With KEPT it removes all but its newest files, and says so before.

import { createHash, randomBytes } from "node:crypto";
import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";

const [mount = "", prefix = "", worker = "0", limit] = process.argv.slice(2);
const KEPT = limit === undefined ? Number.POSITIVE_INFINITY : Number(limit);
const BYTES_MAX = 256 * 1024;
/** Every n-th file is flushed. */
const SYNC_EVERY = 4;

function report(line: string): void {
  writeSync(1, `${line}\n`);
}

function writeOne(number: number): void {
  const name = `${prefix}-${worker}-${number}`;
  const data = randomBytes(1 + Math.floor((BYTES_MAX * ((number * 7919) % 100)) / 100));
  const hash = createHash("sha256").update(data).digest("hex");
  const fd = openSync(join(mount, "load", `.${name}`), "wx");
  try {
    for (let at = 0; at < data.length;) at += writeSync(fd, data, at, Math.min(16 * 1024, data.length - at));
    if (number % SYNC_EVERY === 0) fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(join(mount, "load", `.${name}`), join(mount, "load", name));
  report(`acked ${name} ${hash}`);
  if (number % SYNC_EVERY !== 0) return;
  const again = openSync(join(mount, "load", name), "r");
  fsyncSync(again);
  closeSync(again);
  report(`synced ${name} ${hash}`);
}

try {
  mkdirSync(join(mount, "load"), { recursive: true });
  for (let number = 0; ; number += 1) {
    writeOne(number);
    if (number < KEPT) continue;
    const old = `${prefix}-${worker}-${number - KEPT}`;
    report(`goes ${old}`);
    unlinkSync(join(mount, "load", old));
  }
} catch (error) {
  report(`stop ${(error as NodeJS.ErrnoException).code ?? "UNKNOWN"}`);
}
