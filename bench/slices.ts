// A figure with something beside it, compared with the same alone on a machine that is not quiet: the two take turns in
// short slices, so that what the machine does hits both alike, and each half of a pair is what its slices saw together.

import type { Histogram, Measure } from "./load.js";
import { mergeHistograms } from "./results.js";

/** A bucket's lower bound × this is its upper one. */
const BUCKET = 2 ** (1 / 8);

export type Side = "alone" | "beside";

/** Turns of one pair: each side comes first as often as second, and pairs begin by turns. */
export function turnsOf(pair: number, slices: number): Side[] {
  const first: Side = pair % 2 === 0 ? "alone" : "beside";
  const second: Side = first === "alone" ? "beside" : "alone";
  return Array.from({ length: 2 * slices }, (_, turn) => ((turn + 1) % 4 < 2 ? first : second));
}

/** The 99th percentile in µs of all slices together; within a bucket as if its ops were spread evenly over its octaves. */
export function pooledP99(slices: readonly Measure[]): number {
  return quantile(mergeHistograms(slices.map(({ histogram }) => histogram)), 0.99) / 1000;
}

export function quantile(histogram: Histogram, share: number): number {
  const buckets = [...histogram].sort(([one], [two]) => one - two);
  const total = buckets.reduce((sum, [, operations]) => sum + operations, 0);
  let left = share * total;
  for (const [low, operations] of buckets) {
    if (left <= operations) return low * BUCKET ** (left / Math.max(1, operations));
    left -= operations;
  }
  throw new Error("a measure without a single operation");
}
