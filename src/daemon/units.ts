// Sizes and times with units, as people write them.

import { HoldfastError } from "../io-path/errors.js";

const SIZES: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
  p: 2 ** 50,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
  pib: 2 ** 50,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  pb: 1e15,
};

const SECONDS: Readonly<Record<string, number>> = {
  ms: 0.001,
  s: 1,
  m: 60,
  min: 60,
  h: 3600,
  d: 86_400,
  w: 604_800,
};

/** `64MiB`, `1.5GiB`, `4096`, `2TB` → bytes. `K`, `M`, `G`, `T` alone are powers of 1024. */
export function parseSize(value: string | number, what: string): number {
  const bytes = scaled(value, SIZES);
  if (bytes === undefined || !Number.isSafeInteger(bytes)) {
    throw new HoldfastError(
      "Invalid",
      `${what}: "${value}" is not a size`,
      "write it like 64MiB, 4GiB or 2TB",
    );
  }
  return bytes;
}

/** `250ms`, `1s`, `90m`, `7d` → seconds. */
export function parseDuration(value: string | number, what: string): number {
  const seconds = typeof value === "number" ? undefined : scaled(value, SECONDS);
  if (seconds === undefined) {
    throw new HoldfastError(
      "Invalid",
      `${what}: "${value}" is not a time`,
      "write it like 250ms, 1s, 90m or 7d",
    );
  }
  return seconds;
}

/** A share of the whole, bytes, or no limit: `10%`, `20GiB`, `none`. */
export function parseLimit(value: string | number): { bytes: number } | { percent: number } | "none" {
  if (value === "none" || value === 0) return "none";
  const share = typeof value === "string" ? /^\s*(\d{1,2})\s*%\s*$/.exec(value) : null;
  if (share !== null) return { percent: Number(share[1]) };
  return { bytes: parseSize(value, "history limit") };
}

/** One point for every so many seconds is kept for so long. */
export interface ThinStep {
  everySeconds: number;
  forSeconds: number;
}

/** `1m:24h,1h:7d` → one point a minute for 24 hours, one an hour for 7 days; `none`: no steps. */
export function parseThin(text: string, what: string): ThinStep[] {
  if (text.trim() === "none") return [];
  return text.split(",").map((step) => {
    const [every = "", until = "", ...more] = step.split(":");
    const [everySeconds, forSeconds] = [scaled(every, SECONDS), scaled(until, SECONDS)];
    const whole = [everySeconds, forSeconds].every(
      (value) => value !== undefined && Number.isSafeInteger(value) && value >= 1,
    );
    if (more.length === 0 && whole && everySeconds !== undefined && forSeconds !== undefined) {
      return { everySeconds, forSeconds };
    }
    const hint =
      "write it like 1m:24h,1h:7d (one a minute for 24 hours, then one an hour for 7 days), or none";
    throw new HoldfastError("Invalid", `${what}: "${step}" is not a step of thinning`, hint);
  });
}

function scaled(value: string | number, units: Readonly<Record<string, number>>): number | undefined {
  if (typeof value === "number") return value >= 0 ? value : undefined;
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*$/.exec(value);
  const factor = units[match?.[2]?.toLowerCase() ?? ""];
  if (match === null || factor === undefined) return undefined;
  const result = Number(match[1]) * factor;
  return factor >= 1 ? Math.round(result) : result;
}
