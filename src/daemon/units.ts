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

function scaled(value: string | number, units: Readonly<Record<string, number>>): number | undefined {
  if (typeof value === "number") return value >= 0 ? value : undefined;
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*$/.exec(value);
  const factor = units[match?.[2]?.toLowerCase() ?? ""];
  if (match === null || factor === undefined) return undefined;
  const result = Number(match[1]) * factor;
  return factor >= 1 ? Math.round(result) : result;
}
