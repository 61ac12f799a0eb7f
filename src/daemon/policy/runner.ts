// Runs policies when they are due.
//
// - Due is told by the wall clock: the first moment of the schedule after the last run. However many were missed
//   (daemon down, machine asleep), there is one run. No wait is longer than WAKE_MS_MAX, so a jump of the clock or a
//   sleep of the machine is noticed within it.
// - A clock that went back far puts the last run to now: the next is one period away, not as long as the clock was
//   wrong. A clock that goes to and fro causes a run a minute at most, told by the monotonic clock.
// - One run of a policy at a time; policies do not wait for each other.
// - What failed is tried again after 10 s, 20 s … 10 min, until it works.

import { HoldfastError } from "../../io-path/errors.js";
import { toErrorBody } from "../failure.js";
import type { Log } from "../log.js";
import type { PolicyAnswer, PolicyForecast, PolicyStatus } from "../protocol.js";
import type { Clock } from "./clock.js";
import { parsePolicies } from "./file.js";
import type { Policy } from "./file.js";
import { forecast, parseUntil } from "./forecast.js";
import { callHook, runTarget } from "./run.js";
import type { RunResult } from "./run.js";
import type { PolicyRecord, PolicyState, PolicyStateFile } from "./state.js";
import { listAll } from "./store.js";
import type { SnapshotStore } from "./store.js";

export const WAKE_MS_MAX = 30_000;
/** A clock that is set back by less is being corrected: nothing runs twice for it. */
const BACK_MS_MAX = 60_000;
const BETWEEN_RUNS_MS_MAX = 60_000;
const RETRY_MS_MIN = 10_000;
const RETRY_MS_MAX = 600_000;

export interface RunnerOptions {
  store: SnapshotStore;
  file: PolicyStateFile;
  clock: Clock;
  log: Log;
}

interface Entry {
  policy: Policy;
  record: PolicyRecord;
  /** The last run, whether it worked or not. */
  lastMs: number;
  /** Of the monotonic clock. */
  notBeforeMs: number;
  retry: { targets: readonly string[]; atMs: number } | undefined;
  /** Runs in a row that failed. */
  failures: number;
  problems: string[];
  running: Promise<void> | undefined;
  /** No longer in the file; it stays while it runs. */
  gone: boolean;
  counts: { taken: number; failed: number; pruned: number };
}

export class PolicyRunner {
  readonly #options: RunnerOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #stop = new AbortController();
  #state: PolicyState | undefined;
  /** Why the state cannot be read, or not be written. */
  #problem: string | undefined;
  #unwake: () => void = () => undefined;
  #started = false;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /** Reads what was applied, thaws what a killed daemon left frozen, and begins. */
  start(): void {
    const { file, log } = this.#options;
    try {
      const state = file.read();
      if (state !== undefined) this.#take(state, parsePolicies(state.text, state.file));
    } catch (error) {
      this.#problem = `policies do not run: ${toErrorBody(error).message}`;
      log.error({ problem: this.#problem }, "policies");
    }
    this.#started = true;
    for (const entry of this.#entries.values()) {
      if (entry.record.thaw !== null) this.#begin(entry, () => this.#payThaw(entry));
    }
    this.#tick();
  }

  /** Ends hooks, waits for what is running, starts nothing more. */
  async stop(): Promise<void> {
    this.#started = false;
    this.#unwake();
    this.#stop.abort();
    await Promise.all([...this.#entries.values()].flatMap(({ running }) => running ?? []));
  }

  /** Replaces every policy. Durable when it fulfils; a policy that keeps nothing needs `yes`. */
  async apply(file: string, text: string, how: { yes: boolean }): Promise<void> {
    const policies = parsePolicies(text, file);
    await checkTargets(this.#options.store, policies, file);
    const keepNothing = policies.filter(
      ({ hold, rules }) => !hold && rules.every(({ periods }) => periods === 0),
    );
    if (keepNothing.length > 0 && !how.yes) {
      const names = keepNothing.map(({ name }) => name).join(", ");
      throw new HoldfastError(
        "NeedsYes",
        `${names}: keeps nothing but the newest snapshot: every run prunes all older ones of the policy`,
        "give it keep: 24x1h 14x1d 8x1w, or hold: true; or add --yes to have it so",
      );
    }
    const now = this.#options.clock.wallMs();
    const before = this.#state?.records;
    const records = new Map(
      policies.map(({ name, schedule }): [string, PolicyRecord] => {
        const old = before?.get(name);
        const same = this.#entries.get(name)?.policy.schedule.text === schedule.text;
        const doneMs = old !== undefined && same ? old.doneMs : now;
        return [name, { doneMs, successMs: old?.successMs ?? null, thaw: old?.thaw ?? null }];
      }),
    );
    const state: PolicyState = { file, text, appliedMs: now, records };
    this.#options.file.write(state);
    this.#problem = undefined;
    this.#take(state, policies);
    this.#options.log.info({ file, policies: policies.map(({ name }) => name) }, "policies applied");
    this.#tick();
  }

  #take(state: PolicyState, policies: readonly Policy[]): void {
    this.#state = state;
    const wall = this.#options.clock.wallMs();
    for (const [name, entry] of this.#entries) {
      entry.gone = !policies.some((policy) => policy.name === name);
      if (entry.gone && entry.running === undefined) this.#entries.delete(name);
    }
    for (const policy of policies) {
      const record = state.records.get(policy.name) ?? { doneMs: wall, successMs: null, thaw: null };
      state.records.set(policy.name, record);
      const entry = this.#entries.get(policy.name);
      if (entry === undefined) this.#entries.set(policy.name, newEntry(policy, record));
      else {
        if (entry.policy.schedule.text !== policy.schedule.text) entry.lastMs = record.doneMs;
        const retry = entry.retry?.targets.filter((target) => policy.targets.includes(target)) ?? [];
        entry.retry =
          entry.retry === undefined || retry.length === 0 ? undefined : { ...entry.retry, targets: retry };
        Object.assign(entry, { policy, record });
      }
    }
  }

  answer(): PolicyAnswer {
    const state = this.#state;
    const applied =
      state === undefined
        ? null
        : { file: state.file, text: state.text, appliedSeconds: Math.floor(state.appliedMs / 1000) };
    return { applied, policies: this.answers() };
  }

  /** What a file would do until then; nothing is changed. */
  async test(file: string, text: string, until: string): Promise<PolicyForecast[]> {
    const { store, clock } = this.#options;
    const policies = parsePolicies(text, file);
    const nowMs = clock.wallMs();
    const span = { nowMs, untilMs: parseUntil(until, nowMs) };
    await checkTargets(store, policies, file);
    const forecasts: PolicyForecast[] = [];
    for (const policy of policies) {
      for (const target of policy.targets) {
        forecasts.push(await forecast(policy, target, await listAll(store, target), span));
      }
    }
    return forecasts;
  }

  /** Of every policy that is applied, in the file's order. */
  answers(): PolicyStatus[] {
    const { clock } = this.#options;
    const wall = clock.wallMs();
    const monotonic = clock.monotonicMs();
    return [...this.#entries.values()]
      .filter(({ gone }) => !gone)
      .map((entry) => toStatus(entry, wall, monotonic));
  }

  /** Sentences for the administrator. */
  warnings(): string[] {
    const policies = this.answers().flatMap(({ name, problems, failures, nextSeconds }) => {
      if (problems.length === 0) return [];
      const often = failures > 1 ? ` (${failures} times in a row)` : "";
      const again = `; tried again at ${new Date(nextSeconds * 1000).toISOString()}`;
      return [`policy ${name}: ${problems.join("; ")}${often}${failures > 0 ? again : ""}`];
    });
    return [...(this.#problem === undefined ? [] : [this.#problem]), ...policies];
  }

  /** Starts what is due, and sleeps until the next is. */
  #tick(): void {
    if (!this.#started) return;
    this.#unwake();
    const { clock } = this.#options;
    let waitMs = WAKE_MS_MAX;
    for (const entry of this.#entries.values()) {
      if (entry.running !== undefined || entry.gone) continue;
      const wall = clock.wallMs();
      if (entry.lastMs > wall + BACK_MS_MAX) {
        this.#options.log.warn(
          { policy: entry.policy.name },
          "the clock went back: the schedule begins anew",
        );
        entry.lastMs = wall;
      }
      const left = waitOf(entry, wall, clock.monotonicMs());
      if (left <= 0) this.#run(entry, wall);
      else waitMs = Math.min(waitMs, left);
    }
    this.#unwake = clock.wake(waitMs, () => this.#tick());
  }

  #run(entry: Entry, wall: number): void {
    const { policy, retry, lastMs } = entry;
    const { log, clock } = this.#options;
    const due = policy.schedule.after(lastMs);
    const targets = retry !== undefined && due > wall ? retry.targets : policy.targets;
    if (due <= wall && policy.schedule.after(due) <= wall) {
      log.info({ policy: policy.name, since: new Date(due).toISOString() }, "missed runs are caught up once");
    }
    if (due <= wall) entry.lastMs = wall;
    entry.notBeforeMs = clock.monotonicMs() + betweenRuns(policy, wall);
    entry.retry = undefined;
    this.#begin(entry, () => this.#runTargets(entry, targets, wall));
  }

  /** Marks a policy as running until `work` is done; then the next is looked for. */
  #begin(entry: Entry, work: () => Promise<void>): void {
    const name = entry.policy.name;
    entry.running = work()
      .catch((error: unknown) => this.#options.log.error(error, `policy ${name}`))
      .then(() => {
        entry.running = undefined;
        if (entry.gone) this.#entries.delete(name);
        this.#tick();
      });
  }

  async #runTargets(entry: Entry, targets: readonly string[], wall: number): Promise<void> {
    const { policy } = entry;
    const { store, log, clock } = this.#options;
    const owe = (_policy: string, thaw: PolicyRecord["thaw"] | undefined): void => {
      entry.record.thaw = thaw ?? null;
      this.#save();
    };
    const options = { store, log, stop: this.#stop.signal, owe };
    const failed: string[] = [];
    const problems: string[] = [];
    for (const target of targets) {
      const result = await runTarget(policy, target, clock.wallMs(), options);
      note(entry, result);
      if (result.failure !== undefined) failed.push(target);
      const words = [...(result.failure === undefined ? [] : [result.failure]), ...result.remarks];
      problems.push(...words.map((word) => `${target}: ${word}`));
    }
    entry.problems = problems;
    if (failed.length > 0) {
      const delay = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(entry.failures, 10));
      entry.failures += 1;
      entry.retry = { targets: failed, atMs: clock.monotonicMs() + delay };
      log.error({ policy: policy.name, problems, retrySeconds: delay / 1000 }, "policy failed");
    } else {
      entry.failures = 0;
      entry.record.doneMs = entry.lastMs;
      entry.record.successMs = wall;
      if (problems.length > 0) log.warn({ policy: policy.name, problems }, "policy ran, with problems");
    }
    this.#save();
  }

  /** The `after` hook of a run that a killed daemon did not end. */
  async #payThaw(entry: Entry): Promise<void> {
    const { policy, record } = entry;
    const { log } = this.#options;
    if (record.thaw === null) return;
    log.warn({ policy: policy.name, ...record.thaw }, "the daemon ended between the hooks: after runs now");
    const problem = await callHook("after", policy, record.thaw, "failed", { log, stop: this.#stop.signal });
    if (problem !== "") entry.problems = [`${record.thaw.target}: ${problem}`];
    if (problem !== "" && this.#stop.signal.aborted) return;
    record.thaw = null;
    this.#save();
  }

  /** Goes on in memory when it cannot be written: then a restart may repeat a run. */
  #save(): void {
    if (this.#state === undefined) return;
    try {
      this.#options.file.write(this.#state);
      this.#problem = undefined;
    } catch (error) {
      this.#problem = `when policies ran cannot be noted: ${toErrorBody(error).message}`;
      this.#options.log.error({ problem: this.#problem }, "policies");
    }
  }
}

function newEntry(policy: Policy, record: PolicyRecord): Entry {
  return {
    policy,
    record,
    lastMs: record.doneMs,
    notBeforeMs: Number.NEGATIVE_INFINITY,
    retry: undefined,
    failures: 0,
    problems: [],
    running: undefined,
    gone: false,
    counts: { taken: 0, failed: 0, pruned: 0 },
  };
}

function note({ counts }: Entry, { taken, failure, pruned }: RunResult): void {
  counts.taken += taken === undefined ? 0 : 1;
  counts.failed += failure === undefined ? 0 : 1;
  counts.pruned += pruned.length;
}

/** Milliseconds until a policy is due; not above 0: it is. */
function waitOf({ policy, lastMs, notBeforeMs, retry }: Entry, wall: number, monotonic: number): number {
  if (retry !== undefined) return retry.atMs - monotonic;
  return Math.max(policy.schedule.after(lastMs) - wall, notBeforeMs - monotonic);
}

/** Half a period, a minute at most. */
function betweenRuns({ schedule }: Policy, wall: number): number {
  const next = schedule.after(wall);
  return Math.min(BETWEEN_RUNS_MS_MAX, (schedule.after(next) - next) / 2);
}

function toStatus(entry: Entry, wall: number, monotonic: number): PolicyStatus {
  const { policy, record, running, failures, problems, counts } = entry;
  return {
    name: policy.name,
    targets: [...policy.targets],
    schedule: policy.schedule.text,
    keep: policy.rules.map(({ text }) => text),
    hold: policy.hold,
    prefix: policy.prefix,
    running: running !== undefined,
    nextSeconds: Math.floor((wall + Math.max(0, waitOf(entry, wall, monotonic))) / 1000),
    lastSuccessSeconds: record.successMs === null ? null : Math.floor(record.successMs / 1000),
    failures,
    problems: [...problems],
    ...counts,
  };
}

/** A name that is nothing's is a mistake in the file; what cannot be looked at now may come later. */
async function checkTargets(store: SnapshotStore, policies: readonly Policy[], file: string): Promise<void> {
  const problems: string[] = [];
  for (const policy of policies) {
    for (const target of policy.targets) {
      await store.resolve(target).catch((error: unknown) => {
        const { code, message, hint } = toErrorBody(error);
        if (code === "Unavailable") return;
        problems.push(`policies.${policy.name}.targets: ${message}${hint === "" ? "" : ` (${hint})`}`);
      });
    }
  }
  if (problems.length > 0)
    throw new HoldfastError("Invalid", problems.map((text) => `${file}: ${text}`).join("\n"));
}
