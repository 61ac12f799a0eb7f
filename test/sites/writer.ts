// A user who appends records of 4 KiB, numbered, one every few milliseconds, until it is refused, has written enough,
// or its standard input ends. Then it tells how many were acknowledged, why it ended, and how long it waited at most.

import { closeSync, openSync, writeSync } from "node:fs";

export const RECORD_BYTES = 4096;
const EVERY_MS = 2;

export interface WriterReport {
  acknowledged: number;
  /** Empty: nobody refused anything. */
  error: string;
  longestMs: number;
}

export function record(number: number): Buffer {
  const bytes = Buffer.alloc(RECORD_BYTES, number % 251);
  bytes.writeUInt32LE(number);
  return bytes;
}

function write(file: string, count: number): void {
  const fd = openSync(file, "a");
  const report: WriterReport = { acknowledged: 0, error: "", longestMs: 0 };
  const end = () => {
    clearInterval(timer);
    process.stdin.destroy();
    process.stdout.write(`${JSON.stringify(report)}\n`);
    try {
      closeSync(fd);
    } catch {
      // What could not be written was told already.
    }
  };
  const timer = setInterval(() => {
    const began = performance.now();
    try {
      writeSync(fd, record(report.acknowledged));
      report.acknowledged += 1;
      report.longestMs = Math.max(report.longestMs, performance.now() - began);
    } catch (error) {
      report.error = (error as NodeJS.ErrnoException).code ?? "";
    }
    if (report.error !== "" || report.acknowledged === count) end();
  }, EVERY_MS);
  process.stdin.on("end", end).resume();
  process.stdout.write("writing\n");
}

const [file, count] = process.argv.slice(2);
if (file !== undefined && count !== undefined) write(file, Number(count));
