// What a policy would do, without doing it: the same planner on what is there and on the runs to come.

import { setImmediate } from "node:timers/promises";
import { HoldfastError } from "../../io-path/errors.js";
import type { PolicyForecast } from "../protocol.js";
import { parseDuration } from "../units.js";
import type { Policy } from "./file.js";
import { planRetention, toPrune } from "./grid.js";
import type { Point } from "./grid.js";
import { freeName, isOwn } from "./snapshot-name.js";

/** Snapshots that are looked at, over all runs. */
const LOOKS_MAX = 500_000;
/** Between two of them the daemon does other things. */
const LOOKS_AT_ONCE = 10_000;
const NEXT_RUNS = 5;
/** Of what would be pruned, the first are named. */
const PRUNED_NAMED_MAX = 1000;

/** `7d` from now, or a time; milliseconds since 1970. */
export function parseUntil(text: string, nowMs: number): number {
  let until: number;
  try {
    until = nowMs + parseDuration(text, "until") * 1000;
  } catch {
    until = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?$/.test(text)
      ? Date.parse(text)
      : Number.NaN;
  }
  if (Number.isNaN(until)) {
    throw new HoldfastError(
      "Invalid",
      `until: "${text}" is not a time`,
      "write it like 7d, 2026-12-24 or 2026-12-24T18:00:00Z",
    );
  }
  if (until < nowMs) throw new HoldfastError("Invalid", `until: ${text} is in the past`);
  return until;
}

export interface Span {
  nowMs: number;
  untilMs: number;
}

/** `points`: every snapshot of the target, the policy's own and others. */
export async function forecast(
  policy: Policy,
  target: string,
  points: readonly Point[],
  { nowMs, untilMs }: Span,
): Promise<PolicyForecast> {
  const { prefix, schedule, rules, hold } = policy;
  let own = points.filter(({ name }) => isOwn(prefix, name));
  const there = own.length;
  const pruned: PolicyForecast["pruned"] = [];
  let prunedCount = 0;
  let lsn = points.reduce((most, point) => Math.max(most, point.lsn), 0);
  const existing = new Set(points);
  const names = new Set(points.map(({ name }) => name));
  let runs = 0;
  let looks = 0;
  let yielded = 0;
  for (let at = schedule.after(nowMs); at <= untilMs; at = schedule.after(at)) {
    runs += 1;
    lsn += 1;
    const name = freeName(prefix, at, names) ?? "";
    names.add(name);
    own.push({ name, lsn, wallSeconds: Math.floor(at / 1000), held: hold });
    looks += hold ? 1 : own.length;
    if (looks > LOOKS_MAX) {
      const message = `policy ${policy.name} has too many runs until then: ${runs} of them were looked at`;
      throw new HoldfastError("Invalid", message, "look less far ahead: --until");
    }
    if (looks - yielded > LOOKS_AT_ONCE) {
      yielded = looks;
      await setImmediate();
    }
    if (hold) continue;
    const gone = toPrune(planRetention(own, rules));
    if (gone.length === 0) continue;
    prunedCount += gone.length;
    for (const point of gone.slice(0, PRUNED_NAMED_MAX - pruned.length)) {
      pruned.push({ name: point.name, atSeconds: Math.floor(at / 1000), exists: existing.has(point) });
    }
    const dead = new Set(gone);
    own = own.filter((point) => !dead.has(point));
  }
  const kept = hold ? own.map((point) => ({ point, because: ["held"] })) : planRetention(own, rules);
  return {
    policy: policy.name,
    target,
    schedule: schedule.text,
    nextRunsSeconds: nextRuns(policy, nowMs),
    there,
    runs,
    prunedCount,
    pruned,
    kept: kept.map(({ point, because }) => ({
      name: point.name,
      wallSeconds: point.wallSeconds,
      exists: existing.has(point),
      because,
    })),
  };
}

function nextRuns({ schedule }: Policy, nowMs: number): number[] {
  const runs: number[] = [];
  for (let at = nowMs; runs.length < NEXT_RUNS;) {
    at = schedule.after(at);
    runs.push(Math.floor(at / 1000));
  }
  return runs;
}
