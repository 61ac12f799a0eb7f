// When a policy runs: every so often, aligned in UTC (weeks to Monday), or by a cron expression in a time zone. Pure.

import { Cron } from "croner";
import { HoldfastError } from "../../io-path/errors.js";
import { parseDuration } from "../units.js";

export interface Schedule {
  /** As it is shown: `every 15m`, `cron 0 3 * * * (Europe/Berlin)`. */
  text: string;
  /** The first moment after another one, in milliseconds since 1970. */
  after(wallMs: number): number;
}

const EVERY_SECONDS_MIN = 1;
const EVERY_SECONDS_MAX = 366 * 86_400;

export const EVERY_LIKE = "write it like 15m, 1h, 1d or 1w";
export const CRON_LIKE = 'write it like "0 3 * * *": minute, hour, day of month, month, day of week';

/** 1970-01-05 was a Monday. */
const MONDAY_MS = 4 * 86_400_000;
const WEEK_MS = 604_800_000;

export function parseEvery(text: string): Schedule {
  let seconds: number;
  try {
    seconds = parseDuration(text, "every");
  } catch {
    throw new HoldfastError("Invalid", `"${text}" is not a time: ${EVERY_LIKE}`);
  }
  if (!Number.isInteger(seconds) || seconds < EVERY_SECONDS_MIN || seconds > EVERY_SECONDS_MAX) {
    throw new HoldfastError("Invalid", `"${text}": whole seconds, from 1s to 366d`);
  }
  const ms = seconds * 1000;
  const from = ms % WEEK_MS === 0 ? MONDAY_MS : 0;
  return {
    text: `every ${text.trim()}`,
    after: (wallMs) => from + (Math.floor((wallMs - from) / ms) + 1) * ms,
  };
}

export function checkZone(zone: string): string {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: zone }).resolvedOptions().timeZone;
  } catch {
    throw new HoldfastError("Invalid", `"${zone}" is not a time zone: write it like Europe/Berlin or UTC`);
  }
}

/** Five fields, or a word like `@daily`. Times that a change of the clock skips or repeats run once. */
export function parseCron(text: string, zone: string): Schedule {
  let cron: Cron;
  try {
    cron = new Cron(text, { timezone: zone, mode: "5-part", paused: true });
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^CronPattern: /, "") : String(error);
    throw new HoldfastError("Invalid", `"${text}" is not a cron expression (${reason}): ${CRON_LIKE}`);
  }
  const after = (wallMs: number): number => {
    const next = cron.nextRun(new Date(wallMs));
    if (next === null) throw new HoldfastError("Invalid", `"${text}" never comes: ${CRON_LIKE}`);
    return next.getTime();
  };
  return { text: `cron ${text} (${zone})`, after };
}
