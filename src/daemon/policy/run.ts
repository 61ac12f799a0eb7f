// One run of a policy on one target: before, snapshot, after, prune. In this order:
//
// 1. What exists is listed: the new name is free, and nothing is pruned that was not seen.
// 2. That a thaw is owed becomes durable (only with an `after` hook): if the daemon dies from here on, its next start
//    pays it.
// 3. `before` runs. If it fails and says abort, there is no snapshot.
// 4. The snapshot is taken; it is durable when the engine answers.
// 5. `after` runs, whatever happened in 3 and 4, so that a frozen application is always thawed; then nothing is owed.
// 6. Only after a new snapshot (and, if it says abort, an `after` that did not fail): the policy's own snapshots that
//    no rule keeps are deleted, oldest first.
//
// Killed between 4 and the state file's next write, the run is caught up: one more snapshot, never one fewer.

import { HoldfastError } from "../../io-path/errors.js";
import { toErrorBody } from "../failure.js";
import type { Log } from "../log.js";
import type { Hook, Policy } from "./file.js";
import { planRetention, toPrune } from "./grid.js";
import { runHook } from "./hook.js";
import { freeName, isOwn } from "./snapshot-name.js";
import type { PolicySnapshot, SnapshotStore } from "./store.js";
import { listAll } from "./store.js";

/** An application that is to be thawed: what its `after` hook gets. */
export interface Thaw {
  target: string;
  group: string;
  volumes: string[];
  snapshot: string;
}

export interface RunOptions {
  store: SnapshotStore;
  log: Log;
  /** The daemon stops: hooks end, no further snapshot is taken. */
  stop: AbortSignal;
  /** Makes durable that a thaw is owed, or that none is any more. */
  owe: (policy: string, thaw: Thaw | undefined) => void;
}

export interface RunResult {
  /** The new snapshot, if there is one. */
  taken: string | undefined;
  pruned: string[];
  /** Why it is to be tried again; `undefined`: it is not. */
  failure: string | undefined;
  /** What else went wrong. */
  remarks: string[];
  /** The `after` hook failed. */
  afterFailed: boolean;
}

const HOOK_GRACE_MS = 2000;
/** When the daemon stops, an `after` hook still has this long. */
const AFTER_STOP_MS = 3000;

export async function runTarget(
  policy: Policy,
  target: string,
  wallMs: number,
  options: RunOptions,
): Promise<RunResult> {
  const { store, stop, log } = options;
  const result: RunResult = {
    taken: undefined,
    pruned: [],
    failure: undefined,
    remarks: [],
    afterFailed: false,
  };
  try {
    const { group, volumes } = await store.resolve(target);
    const there = await listAll(store, target);
    const snapshot = freeName(policy.prefix, wallMs, new Set(there.map(({ name }) => name)));
    if (snapshot === undefined) {
      throw new HoldfastError("Conflict", "a hundred snapshots of this second are there already");
    }
    if (stop.aborted) throw new HoldfastError("Closed", "the daemon stops");
    const thaw = { target, group, volumes, snapshot };
    const taken = await takeBetweenHooks(policy, thaw, result, options);
    if (taken === undefined) return result;
    result.taken = taken.name;
    log.info({ policy: policy.name, target, snapshot, lsn: taken.lsn }, "snapshot taken");
    if (policy.hold) await store.hold(target, snapshot);
    else if (!result.afterFailed || policy.after?.abort !== true)
      await prune(policy, target, [...there, taken], result, options);
  } catch (error) {
    result.failure ??= toErrorBody(error).message;
  }
  return result;
}

/** `undefined`: there is none, and `failure` says why. */
async function takeBetweenHooks(
  policy: Policy,
  thaw: Thaw,
  result: RunResult,
  options: RunOptions,
): Promise<PolicySnapshot | undefined> {
  const { store, owe } = options;
  let taken: PolicySnapshot | undefined;
  if (policy.after !== undefined) owe(policy.name, thaw);
  try {
    const problem = await callHook("before", policy, thaw, "", options);
    if (problem !== "" && policy.before?.abort === true) result.failure = problem;
    else if (options.stop.aborted) result.failure = "the daemon stops";
    else {
      if (problem !== "") result.remarks.push(problem);
      taken = await store.create(thaw.target, thaw.snapshot);
    }
  } catch (error) {
    result.failure = toErrorBody(error).message;
  } finally {
    const problem = await callHook("after", policy, thaw, taken === undefined ? "failed" : "taken", options);
    if (problem !== "") result.remarks.push(problem);
    result.afterFailed = problem !== "";
    // Cut short by the daemon's stop, it runs once more at the next start.
    if (policy.after !== undefined && !(result.afterFailed && options.stop.aborted)) {
      owe(policy.name, undefined);
    }
  }
  return taken;
}

/** Runs a policy's hook, if it has one; empty, or what went wrong. */
export async function callHook(
  when: "before" | "after",
  policy: Policy,
  thaw: Thaw,
  outcome: "" | "taken" | "failed",
  { log, stop }: Pick<RunOptions, "log" | "stop">,
): Promise<string> {
  const hook: Hook | undefined = policy[when];
  if (hook === undefined) return "";
  const environment = {
    HOLDFAST_POLICY: policy.name,
    HOLDFAST_GROUP: thaw.group,
    HOLDFAST_VOLUME: thaw.volumes.join(" "),
    HOLDFAST_SNAPSHOT: thaw.snapshot,
    HOLDFAST_HOOK: when,
    HOLDFAST_OUTCOME: outcome,
  };
  const stopMs = when === "before" ? 0 : AFTER_STOP_MS;
  const ran = await runHook(hook, { environment, stop, stopMs, graceMs: HOOK_GRACE_MS });
  const about = { policy: policy.name, target: thaw.target, hook: when, output: ran.output };
  if (ran.ok) {
    log.info(about, "hook ran");
    return "";
  }
  log.warn({ ...about, problem: ran.problem }, "hook failed");
  const said = ran.output.split("\n").at(-1) ?? "";
  return `the hook ${when} (${hook.run[0]}) ${ran.problem}${said === "" ? "" : `: ${said}`}`;
}

/** What cannot be deleted now is looked at again by the next run. */
async function prune(
  policy: Policy,
  target: string,
  points: readonly PolicySnapshot[],
  result: RunResult,
  { store, log, stop }: RunOptions,
): Promise<void> {
  const own = points.filter(({ name }) => isOwn(policy.prefix, name));
  for (const { name } of toPrune(planRetention(own, policy.rules))) {
    if (stop.aborted) return;
    try {
      await store.delete(target, name);
      result.pruned.push(name);
      log.info({ policy: policy.name, target, snapshot: name }, "snapshot pruned");
    } catch (error) {
      const { code, message } = toErrorBody(error);
      // Somebody held it or deleted it since it was listed.
      if (code === "Conflict" || code === "NotFound") continue;
      result.remarks.push(`${name} cannot be pruned: ${message}`);
    }
  }
}
