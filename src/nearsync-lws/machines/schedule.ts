// When a group is cut: every half RPO, on a grid of the time since boot, when somebody has room for the batch.
//
// - A tick for which nobody has room is skipped, never queued: the first follower with room again gets a cut at once,
//   and it holds everything since.
// - One cut at a time, and never two within 200 ms. A forced cut (a snapshot, a change of owner) does not wait for
//   the grid.

import { CUT_MS_MIN } from "../limits.js";
import type { Point } from "./door.js";

export interface Schedule {
  everyMs: number;
  /** The next tick, milliseconds since boot. */
  dueMs: number;
  cutting: boolean;
  forced: boolean;
  /** Ticks that nobody had room for. */
  skipped: number;
  newest: Point | null;
}

export type ScheduleEvent =
  /** `wanting`: followers with room for a batch. */
  | { type: "tick"; nowMs: number; wanting: string[] }
  | { type: "force" }
  | { type: "cut"; nowMs: number; point: Point }
  | { type: "cutFailed"; nowMs: number };

export type ScheduleEffect = { type: "cut"; followers: string[] };

export function newSchedule(rpoMs: number, nowMs: number): Schedule {
  const everyMs = Math.max(CUT_MS_MIN, rpoMs / 2);
  return { everyMs, dueMs: nowMs, cutting: false, forced: false, skipped: 0, newest: null };
}

export function schedule(state: Schedule, event: ScheduleEvent): [Schedule, ScheduleEffect[]] {
  switch (event.type) {
    case "force":
      return [{ ...state, forced: true }, []];
    case "tick": {
      const due = event.nowMs >= state.dueMs || state.forced;
      if (!due || state.cutting || event.wanting.length === 0) return [state, []];
      const cutting = { ...state, cutting: true, forced: false };
      return [cutting, [{ type: "cut", followers: [...event.wanting].sort() }]];
    }
    case "cut":
      return [{ ...next(state, event.nowMs), newest: event.point }, []];
    case "cutFailed":
      return [next(state, event.nowMs), []];
  }
}

/** The first point of the grid after now, and not sooner than cuts may follow each other; those between are skipped. */
function next(state: Schedule, nowMs: number): Schedule {
  const steps = Math.max(1, Math.floor((nowMs - state.dueMs) / state.everyMs) + 1);
  const dueMs = Math.max(state.dueMs + steps * state.everyMs, nowMs + CUT_MS_MIN);
  return { ...state, cutting: false, dueMs, skipped: state.skipped + steps - 1 };
}
