// Sides that take turns, and the percentile of what slices saw together.

import assert from "node:assert/strict";
import { test } from "node:test";
import { pooledP99, quantile, turnsOf } from "../../bench/slices.js";
import type { Histogram, Measure } from "../../bench/load.js";

test("sides take turns, and pairs begin by turns", () => {
  assert.deepEqual(turnsOf(0, 2), ["alone", "beside", "beside", "alone"]);
  assert.deepEqual(turnsOf(1, 2), ["beside", "alone", "alone", "beside"]);
  assert.deepEqual(turnsOf(2, 1), ["alone", "beside"]);
});

test("a percentile of several slices is that of all their operations", () => {
  const measure = (histogram: Histogram) => ({ histogram }) as unknown as Measure;
  const [low, high] = [1_000_000, 4_000_000];
  const quiet = measure([[low, 990]]);
  const noisy = measure([
    [low, 970],
    [high, 40],
  ]);
  assert.ok(pooledP99([quiet]) < 1100);
  // 40 of 2000 are slow: half of them are below the percentile.
  const pooled = pooledP99([quiet, noisy]);
  assert.ok(Math.abs(pooled - 4000 * 2 ** (1 / 16)) < 1, `${pooled}`);
});

test("a bucket's operations are spread over it", () => {
  assert.ok(Math.abs(quantile([[1000, 10]], 1) - 1000 * 2 ** (1 / 8)) < 1e-6);
  assert.ok(Math.abs(quantile([[1000, 10]], 0.5) - 1000 * 2 ** (1 / 16)) < 1e-6);
  assert.throws(() => quantile([], 0.5), /without a single operation/);
});
