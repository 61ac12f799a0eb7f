// Time and chance, as everything else in this room gets them.

import { readFileSync } from "node:fs";

export interface Clock {
  /** Nanoseconds since 1970. */
  wallNs(): bigint;
  /** Nanoseconds since the machine started, suspended times included (CLOCK_BOOTTIME). */
  bootNs(): bigint;
  /** Calls `run` after so long, once; the answer cancels it. */
  after(ms: number, run: () => void): () => void;
}

/** 0 ≤ number < 1. */
export type Rng = () => number;

export const systemClock: Clock = {
  wallNs: () => BigInt(Date.now()) * 1_000_000n,
  bootNs: () => {
    // Node has no CLOCK_BOOTTIME; the kernel shows it here, in hundredths of a second.
    const [seconds = "0", hundredths = "0"] = readFileSync("/proc/uptime", "latin1").split(/[. ]/, 2);
    return BigInt(seconds) * 1_000_000_000n + BigInt(hundredths) * 10_000_000n;
  },
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

export const systemRng: Rng = () => Math.random();
