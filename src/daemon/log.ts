// Structured logs to standard error, one JSON object a line.

import { pino } from "pino";
import type { Logger } from "pino";
import type { LogLevel } from "./config.js";

export type Log = Logger;

export function createLog(level: LogLevel): Log {
  return pino(
    { name: "holdfast", level, base: { pid: process.pid } },
    pino.destination({ dest: 2, sync: true }),
  );
}
