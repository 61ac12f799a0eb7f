// How far a replica is behind, measured: now minus the cut of the newest recovery point that the peer says is applied
// *and flushed*, on the owner's clock since boot. It grows by a second a second while nothing comes from the peer.
//
// The parts add up to the whole: what was not cut yet, what was cut and has not arrived, what arrived and is not
// visible, what is visible and not flushed. While the pipe is full no cuts are made; that waiting is the pipe's, not
// the cut's.

import type { Point } from "./door.js";

export interface Lag {
  everyMs: number;
  /** Cuts that are not flushed at the peer yet, and the newest that is, oldest first. */
  points: { lsn: number; bootMs: number }[];
  received: number;
  applied: number;
  flushed: number;
}

export interface LagReport {
  /** Null: the peer has no recovery point yet. */
  rpoMs: number | null;
  cutMs: number;
  shipMs: number;
  applyMs: number;
  flushMs: number;
}

export type LagEvent =
  | { type: "point"; point: Point }
  | { type: "ack"; received: number | null; applied: number | null; flushed: number | null };

const NS_IN_MS = 1e6;

export function newLag(everyMs: number): Lag {
  return { everyMs, points: [], received: 0, applied: 0, flushed: 0 };
}

export function lag(state: Lag, event: LagEvent): Lag {
  if (event.type === "point") {
    const { lsn } = event.point;
    const bootMs = Number(event.point.bootNs) / NS_IN_MS;
    // The same LSN cut again: nothing changed in between, so whoever has it has the later moment.
    const others = state.points.filter((point) => point.lsn !== lsn);
    const points = [...others, { lsn, bootMs }].sort((left, right) => left.lsn - right.lsn);
    return { ...state, points };
  }
  const received = Math.max(state.received, event.received ?? 0);
  const applied = Math.max(state.applied, event.applied ?? 0);
  const flushed = Math.max(state.flushed, event.flushed ?? 0);
  const newest = state.points.findLast(({ lsn }) => lsn <= flushed)?.lsn ?? 0;
  return { ...state, received, applied, flushed, points: state.points.filter(({ lsn }) => lsn >= newest) };
}

export function reportLag(state: Lag, nowMs: number): LagReport {
  const at = (lsn: number) => state.points.findLast((point) => point.lsn <= lsn)?.bootMs;
  const flushed = at(state.flushed);
  const none = { rpoMs: null, cutMs: 0, shipMs: 0, applyMs: 0, flushMs: 0 };
  if (flushed === undefined) return none;
  const newest = state.points.at(-1)?.bootMs ?? flushed;
  const applied = at(state.applied) ?? flushed;
  const received = at(state.received) ?? applied;
  const sinceCut = Math.max(0, nowMs - newest);
  // The newest cut has arrived: what is missing is a cut. Else the pipe is busy, and its share is the rest.
  const cutMs = received >= newest ? sinceCut : Math.min(sinceCut, state.everyMs);
  return {
    rpoMs: Math.max(0, nowMs - flushed),
    cutMs,
    shipMs: Math.max(0, newest - received) + (sinceCut - cutMs),
    applyMs: Math.max(0, received - applied),
    flushMs: Math.max(0, applied - flushed),
  };
}
