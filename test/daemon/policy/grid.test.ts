// Retention by a grid: worked examples, and properties on random histories. Seeds are printed with a failure.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseGrid, periodOf, planRetention, toPrune } from "../../../src/daemon/policy/grid.js";
import type { Point, Rule } from "../../../src/daemon/policy/grid.js";
import { HoldfastError } from "../../../src/io-path/errors.js";

const SEEDS = 400;
const HOUR = 3600;
const DAY = 86_400;

function seconds(iso: string): number {
  return Date.parse(iso) / 1000;
}

function points(...times: string[]): Point[] {
  return times.map((time, index) => ({
    name: time,
    lsn: index + 1,
    wallSeconds: seconds(time),
    held: false,
  }));
}

function prunedNames(all: readonly Point[], grid: string): string[] {
  return toPrune(planRetention(all, parseGrid(grid))).map(({ name }) => name);
}

describe("grids", () => {
  it("are read with x, × and *, with commas or without", () => {
    const texts = (grid: string) => parseGrid(grid).map(({ text }) => text);
    assert.deepEqual(texts("24x1h 14×1d, 8*1w"), ["24x1h", "14x1d", "8x1w"]);
    assert.deepEqual(texts("  "), []);
    assert.deepEqual(parseGrid("3x90m")[0]?.period, { unit: "second", count: 5400 });
    assert.deepEqual(parseGrid("2x1y")[0]?.period, { unit: "month", count: 12 });
  });

  for (const bad of [
    "24",
    "24x",
    "24x1q",
    "x1h",
    "-1x1h",
    "1x0h",
    "1.5x1h",
    "24x1h;",
    "100001x1h",
    "1x1hx",
  ]) {
    it(`refuse ${bad}`, () => {
      assert.throws(() => parseGrid(bad), HoldfastError);
    });
  }

  it("have at most 16 rules", () => {
    assert.equal(parseGrid("1x1h ".repeat(16)).length, 16);
    assert.throws(() => parseGrid("1x1h ".repeat(17)), /at most 16/);
  });
});

describe("periods", () => {
  const same = (period: Rule["period"], left: string, right: string) =>
    periodOf(period, seconds(left)) === periodOf(period, seconds(right));

  it("hours and days are those of UTC, weeks begin on Monday", () => {
    const [hour, day, week, month] = parseGrid("1x1h 1x1d 1x1w 1x1mo").map(({ period }) => period);
    assert.ok(hour !== undefined && day !== undefined && week !== undefined && month !== undefined);
    assert.ok(same(hour, "2026-11-28T05:00:00Z", "2026-11-28T05:59:59Z"));
    assert.ok(!same(hour, "2026-11-28T05:59:59Z", "2026-11-28T06:00:00Z"));
    assert.ok(!same(day, "2026-11-28T23:59:59Z", "2026-11-29T00:00:00Z"));
    assert.ok(same(week, "2026-11-23T00:00:00Z", "2026-11-29T23:59:59Z"), "Monday to Sunday");
    assert.ok(!same(week, "2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z"), "Sunday and Monday");
    assert.ok(same(month, "2024-02-01T00:00:00Z", "2024-02-29T23:59:59Z"));
    assert.ok(!same(month, "2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"));
  });

  it("follow each other without gaps, before 1970 too", () => {
    const [day] = parseGrid("1x1d");
    assert.ok(day !== undefined);
    assert.deepEqual(
      [-DAY - 1, -1, 0, DAY - 1, DAY].map((at) => periodOf(day.period, at)),
      [-2, -1, 0, 0, 1],
    );
  });
});

describe("retention", () => {
  it("keeps the newest of each of the last periods", () => {
    const all = points(
      "2026-11-26T10:00:00Z",
      "2026-11-27T09:00:00Z",
      "2026-11-27T21:00:00Z",
      "2026-11-28T04:10:00Z",
      "2026-11-28T04:50:00Z",
      "2026-11-28T05:10:00Z",
    );
    assert.deepEqual(prunedNames(all, "2x1h 2x1d"), [
      "2026-11-26T10:00:00Z",
      "2026-11-27T09:00:00Z",
      "2026-11-28T04:10:00Z",
    ]);
  });

  it("counts only periods that have one: a schedule that stood still loses nothing", () => {
    assert.deepEqual(
      prunedNames(points("2024-01-01T00:00:00Z", "2025-06-01T00:00:00Z", "2026-11-28T00:00:00Z"), "3x1d"),
      [],
    );
  });

  it("a clock that was years ahead for a moment costs one place, not everything", () => {
    const hours = Array.from({ length: 5 }, (_none, hour) => `2026-11-28T0${hour}:00:00Z`);
    const all = points(...hours.slice(0, 4), "2036-01-01T00:00:00Z", ...hours.slice(4));
    assert.deepEqual(prunedNames(all, "4x1h"), hours.slice(0, 2));
  });

  it("keeps nothing but the newest without rules, and what is held", () => {
    const all = points("2026-11-26T10:00:00Z", "2026-11-27T09:00:00Z", "2026-11-28T09:00:00Z");
    const held = all.map((point, index) => ({ ...point, held: index === 0 }));
    assert.deepEqual(prunedNames(all, ""), ["2026-11-26T10:00:00Z", "2026-11-27T09:00:00Z"]);
    assert.deepEqual(prunedNames(held, "0x1h"), ["2026-11-27T09:00:00Z"]);
    assert.deepEqual(prunedNames([], "4x1h"), []);
  });

  it("says which rule keeps what", () => {
    const [first, second] = planRetention(
      points("2026-11-27T09:00:00Z", "2026-11-28T09:00:00Z"),
      parseGrid("1x1h 2x1d"),
    );
    assert.deepEqual([first?.because, second?.because], [["2x1d"], ["newest", "1x1h", "2x1d"]]);
  });
});

/** Mulberry32: small, and the same everywhere. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface History {
  points: Point[];
  rules: Rule[];
}

/** Steps of minutes to weeks; now and then the clock goes back or far ahead. */
function historyOf(seed: number): History {
  const chance = random(seed);
  const below = (limit: number) => Math.floor(chance() * limit);
  const step = [60, HOUR, 6 * HOUR, DAY, 10 * DAY][below(5)] ?? HOUR;
  const units = ["m", "h", "d", "w", "mo"];
  const grid = Array.from({ length: below(4) }, () => `${below(7)}x${1 + below(3)}${units[below(5)] ?? "h"}`);
  let at = seconds("2026-01-01T00:00:00Z") + below(400 * DAY);
  const all = Array.from({ length: 2 + below(60) }, (_none, index): Point => {
    at += below(2 * step);
    if (chance() < 0.03) at -= below(20 * step);
    if (chance() < 0.02) at += 50 * step;
    return { name: `s${index}`, lsn: 10 + 3 * index, wallSeconds: at, held: chance() < 0.05 };
  });
  return { points: all, rules: parseGrid(grid.join(" ")) };
}

/** By definition, without the planner's maps: newer in the same period, and periods after it. */
function isNeeded(point: Point, all: readonly Point[], { periods, period }: Rule): boolean {
  const own = periodOf(period, point.wallSeconds);
  const others = all.map((other) => ({ lsn: other.lsn, number: periodOf(period, other.wallSeconds) }));
  if (others.some(({ lsn, number }) => number === own && lsn > point.lsn)) return false;
  return new Set(others.filter(({ number }) => number > own).map(({ number }) => number)).size < periods;
}

function forSeeds(name: string, check: (history: History) => void): void {
  it(name, () => {
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      try {
        check(historyOf(seed));
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
    }
  });
}

describe("retention of random histories", () => {
  const prune = (all: readonly Point[], rules: readonly Rule[]) => toPrune(planRetention(all, rules));

  it("are of every kind", () => {
    const kinds = Array.from({ length: SEEDS }, (_none, index) => historyOf(index + 1));
    const some = kinds.filter(({ points: all, rules }) => prune(all, rules).length > 0).length;
    const back = kinds.filter(({ points: all }) =>
      all.some(({ wallSeconds }, index) => wallSeconds < (all[index - 1]?.wallSeconds ?? 0)),
    ).length;
    assert.ok(some > SEEDS / 2 && back > SEEDS / 4, `${some} prune, ${back} go back`);
  });

  forSeeds("the newest and the held stay", ({ points: all, rules }) => {
    const gone = prune(all, rules);
    assert.ok(!gone.some(({ held }) => held));
    assert.ok(!gone.includes(all.at(-1) as Point));
  });

  forSeeds("exactly what no rule needs goes", ({ points: all, rules }) => {
    const gone = new Set(prune(all, rules));
    for (const point of all) {
      const stays = point.held || point === all.at(-1) || rules.some((rule) => isNeeded(point, all, rule));
      assert.equal(gone.has(point), !stays, point.name);
    }
  });

  forSeeds("a second look asks for nothing more", ({ points: all, rules }) => {
    const gone = new Set(prune(all, rules));
    const left = all.filter((point) => !gone.has(point));
    assert.deepEqual(prune(left, rules), []);
  });

  forSeeds("what goes once is never asked for again, pruned at once or late", ({ points: all, rules }) => {
    let kept: Point[] = [];
    for (const [index, point] of all.entries()) {
      kept.push(point);
      const late = new Set(prune(all.slice(0, index + 1), rules));
      const now = new Set(prune(kept, rules));
      kept = kept.filter((other) => !now.has(other));
      const keptLate = all.slice(0, index + 1).filter((other) => !late.has(other));
      assert.deepEqual(kept, keptLate, `after ${point.name}`);
    }
  });

  forSeeds("the order in which they are listed does not matter", ({ points: all, rules }) => {
    assert.deepEqual(prune([...all].reverse(), rules), prune(all, rules));
  });
});
