// Retention by a grid: `24x1h 14x1d 8x1w` keeps the newest snapshot of each of the last 24 hours, 14 days and 8 weeks
// that have one. Pure: no clock, no drives.
//
// - Periods are aligned in UTC; weeks begin on Monday, months and years are the calendar's.
// - Periods without a snapshot do not count. So a schedule that stood still, or a clock that was years ahead for a
//   moment, takes nothing away: only newer snapshots push older ones out.
// - The newest snapshot (by LSN, not by clock) and held ones stay, whatever the grid says.
// - What was to be pruned once is to be pruned whatever is added later; a second look right after asks for nothing.

import { HoldfastError } from "../../io-path/errors.js";

export interface Period {
  unit: "second" | "month";
  count: number;
}

export interface Rule {
  /** As it is shown: `24x1h`. */
  text: string;
  periods: number;
  period: Period;
}

/** What retention looks at. LSNs say which is newer, also where the clock went back. */
export interface Point {
  name: string;
  lsn: number;
  /** Seconds since 1970. */
  wallSeconds: number;
  held: boolean;
}

export interface Decision<T extends Point> {
  point: T;
  /** Rules that keep it, `newest`, `held`; empty: it is pruned. */
  because: string[];
}

export const RULES_MAX = 16;
export const PERIODS_MAX = 100_000;

export const GRID_LIKE = "write it like 24x1h 14x1d 8x1w; units: s, m, h, d, w, mo, y";

const UNITS: Readonly<Record<string, Period>> = {
  s: { unit: "second", count: 1 },
  m: { unit: "second", count: 60 },
  h: { unit: "second", count: 3600 },
  d: { unit: "second", count: 86_400 },
  w: { unit: "second", count: 604_800 },
  mo: { unit: "month", count: 1 },
  y: { unit: "month", count: 12 },
};

/** `24x1h 14×1d, 8x1w` → rules; an empty text has none. */
export function parseGrid(text: string): Rule[] {
  const words = text.split(/[\s,]+/).filter((word) => word !== "");
  if (words.length > RULES_MAX) {
    throw new HoldfastError("Invalid", `${words.length} rules are too many, at most ${RULES_MAX}`);
  }
  return words.map(parseRule);
}

function parseRule(word: string): Rule {
  const match = /^(\d{1,9})[x×*](\d{1,4})([a-z]+)$/.exec(word);
  const unit = UNITS[match?.[3] ?? ""];
  if (match === null || unit === undefined) {
    throw new HoldfastError("Invalid", `"${word}" is not part of a grid: ${GRID_LIKE}`);
  }
  const periods = Number(match[1]);
  const count = Number(match[2]);
  if (periods > PERIODS_MAX || count === 0) {
    throw new HoldfastError(
      "Invalid",
      `"${word}": from 0 to ${PERIODS_MAX} periods, each of at least 1${match[3]}`,
    );
  }
  return {
    text: `${periods}x${count}${match[3]}`,
    periods,
    period: { unit: unit.unit, count: count * unit.count },
  };
}

/** 1970-01-05 was a Monday. */
const MONDAY_SECONDS = 4 * 86_400;
const WEEK_SECONDS = 604_800;

/** The number of the period that a moment lies in; it grows by one from each period to the next. */
export function periodOf({ unit, count }: Period, wallSeconds: number): number {
  if (unit === "month") {
    const date = new Date(wallSeconds * 1000);
    return Math.floor(((date.getUTCFullYear() - 1970) * 12 + date.getUTCMonth()) / count);
  }
  const from = count % WEEK_SECONDS === 0 ? MONDAY_SECONDS : 0;
  return Math.floor((wallSeconds - from) / count);
}

/** What stays and what goes, in the order of LSNs. */
export function planRetention<T extends Point>(points: readonly T[], rules: readonly Rule[]): Decision<T>[] {
  const decisions = points
    .map((point): Decision<T> => ({ point, because: point.held ? ["held"] : [] }))
    .sort((left, right) => left.point.lsn - right.point.lsn);
  decisions.at(-1)?.because.push("newest");
  for (const { text, periods, period } of rules) {
    const newest = new Map<number, Decision<T>>();
    for (const decision of decisions) newest.set(periodOf(period, decision.point.wallSeconds), decision);
    const last = [...newest.keys()].sort((left, right) => right - left).slice(0, periods);
    for (const number of last) newest.get(number)?.because.push(text);
  }
  return decisions;
}

export function toPrune<T extends Point>(decisions: readonly Decision<T>[]): T[] {
  return decisions.flatMap(({ point, because }) => (because.length === 0 ? [point] : []));
}
