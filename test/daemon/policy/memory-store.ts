// Snapshots in memory under the same contract as the engine's, and a clock that stands still until it is told.

import { setImmediate } from "node:timers/promises";
import type { Clock } from "../../../src/daemon/policy/clock.js";
import type { PolicyState, PolicyStateFile } from "../../../src/daemon/policy/state.js";
import type { PolicySnapshot, SnapshotStore, Target } from "../../../src/daemon/policy/store.js";
import { HoldfastError } from "../../../src/io-path/errors.js";

export class MemoryStore implements SnapshotStore {
  readonly snapshots: PolicySnapshot[] = [];
  /** Names ever taken, to find one that came twice. */
  readonly history: string[] = [];
  /** Thrown by the next calls of `create`, one each. */
  failures: Error[] = [];
  /** What `create` waits for. */
  gate: Promise<void> = Promise.resolve();
  active = 0;
  activeMost = 0;
  #lsn = 100;

  constructor(
    readonly clock: Clock,
    readonly groups: readonly string[],
  ) {}

  async resolve(target: string): Promise<Target> {
    if (!this.groups.includes(target)) {
      throw new HoldfastError(
        "NotFound",
        `there is no volume ${target}`,
        `volumes: ${this.groups.join(", ")}`,
      );
    }
    return { group: target, volumes: [target] };
  }

  async create(target: string, name: string): Promise<PolicySnapshot> {
    this.active += 1;
    this.activeMost = Math.max(this.activeMost, this.active);
    await this.gate;
    this.active -= 1;
    const failure = this.failures.shift();
    if (failure !== undefined) throw failure;
    if (this.#find(target, name) !== undefined) throw new HoldfastError("Conflict", `${name} exists already`);
    this.#lsn += 7;
    const wallSeconds = Math.floor(this.clock.wallMs() / 1000);
    const made = { name, group: target, lsn: this.#lsn, wallSeconds, held: false };
    this.snapshots.push(made);
    this.history.push(`${target}@${name}`);
    return made;
  }

  async list(target: string, after: number, limit: number): Promise<PolicySnapshot[]> {
    return this.snapshots.filter(({ group, lsn }) => group === target && lsn > after).slice(0, limit);
  }

  async delete(target: string, name: string): Promise<void> {
    const found = this.#find(target, name);
    if (found === undefined) throw new HoldfastError("NotFound", `there is no snapshot ${name}`);
    if (found.held) throw new HoldfastError("Conflict", `${name} is held`);
    this.snapshots.splice(this.snapshots.indexOf(found), 1);
  }

  async hold(target: string, name: string): Promise<void> {
    const found = this.#find(target, name);
    if (found !== undefined) found.held = true;
  }

  names(target: string): string[] {
    return this.snapshots.filter(({ group }) => group === target).map(({ name }) => name);
  }

  #find(target: string, name: string): PolicySnapshot | undefined {
    return this.snapshots.find((snapshot) => snapshot.group === target && snapshot.name === name);
  }
}

export class FakeClock implements Clock {
  #wall: number;
  #monotonic = 5000;
  #timers: { atMs: number; call: () => void }[] = [];

  constructor(start: string) {
    this.#wall = Date.parse(start);
  }

  wallMs(): number {
    return this.#wall;
  }

  monotonicMs(): number {
    return this.#monotonic;
  }

  wake(afterMs: number, call: () => void): () => void {
    const timer = { atMs: this.#monotonic + Math.ceil(afterMs), call };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** The wall clock is set; nothing else happens. */
  jump(toMs: number): void {
    this.#wall = toMs;
  }

  /** The machine sleeps: the wall clock goes on, the monotonic one does not. */
  sleep(ms: number): void {
    this.#wall += ms;
  }

  /** Time passes, timer by timer. */
  async pass(ms: number): Promise<void> {
    const end = this.#monotonic + ms;
    for (;;) {
      await settled();
      const next = this.#timers
        .filter(({ atMs }) => atMs <= end)
        .sort((left, right) => left.atMs - right.atMs)
        .at(0);
      if (next === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#move(Math.max(next.atMs, this.#monotonic));
      next.call();
    }
    this.#move(end);
  }

  #move(toMs: number): void {
    this.#wall += toMs - this.#monotonic;
    this.#monotonic = toMs;
  }
}

/** Promises that wait for nothing but each other are done. */
async function settled(): Promise<void> {
  await setImmediate();
}

/** A state file that survives the runner, not the test. */
export class MemoryFile implements PolicyStateFile {
  text: string | undefined;
  writes = 0;
  failure: Error | undefined;

  read(): PolicyState | undefined {
    if (this.text === undefined) return undefined;
    const { records, ...rest } = JSON.parse(this.text) as Omit<PolicyState, "records"> & {
      records: [string, { doneMs: number; successMs: number | null; thaw: null }][];
    };
    return { ...rest, records: new Map(records) };
  }

  write({ records, ...rest }: PolicyState): void {
    if (this.failure !== undefined) throw this.failure;
    this.writes += 1;
    this.text = JSON.stringify({ ...rest, records: [...records] });
  }
}
