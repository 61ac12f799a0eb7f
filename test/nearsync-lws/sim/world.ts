// Virtual time and chance for several sites. Everything that happens is an event with a moment; two at one moment
// happen in the order in which they were made. A site that is paused does nothing, and does it all when it goes on.

import { createHash } from "node:crypto";
import type { Clock } from "../../../src/nearsync-lws/seams.js";
import { randomOf } from "../random.js";

interface Event {
  atMs: number;
  order: number;
  host: Host | undefined;
  life: number;
  run: () => void;
  cancelled: boolean;
}

/** Something that can be killed and paused: a site. */
export interface Host {
  name: string;
  /** Grows with each start; events of an earlier life do not happen. */
  life: number;
  pausedUntilMs: number;
}

/** A demand of FAULTS.md that was not met. */
export class Violation extends Error {}

export class World {
  readonly random: () => number;
  readonly #heap: Event[] = [];
  readonly #trace = createHash("sha256");
  readonly counts = new Map<string, number>();
  /** The newest lines of the story, for a failure. */
  readonly story: string[] = [];
  nowMs = 1000;
  /** Faults are over. */
  calm = false;
  #order = 0;

  constructor(readonly seed: number) {
    this.random = randomOf(seed);
  }

  between(least: number, most: number): number {
    return least + this.random() * (most - least);
  }

  whole(least: number, most: number): number {
    return Math.floor(this.between(least, most + 1));
  }

  chance(probability: number): boolean {
    return this.random() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.random() * from.length)] as T;
  }

  /** Something that a run should have met now and then. */
  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  tell(line: string): void {
    const text = `${this.nowMs.toFixed(1)} ${line}`;
    this.#trace.update(text);
    this.story.push(text);
    if (this.story.length > 400) this.story.splice(0, 200);
  }

  get traceHash(): string {
    return this.#trace.copy().digest("hex");
  }

  demand(holds: boolean, what: () => string): void {
    if (holds) return;
    throw new Violation(`${what()}\nseed ${this.seed} at ${this.nowMs.toFixed(1)} ms`);
  }

  /** `host`: it happens only in this life of it, and not while it is paused. */
  at(delayMs: number, host: Host | undefined, run: () => void): () => void {
    return this.atMoment(this.nowMs + delayMs, host, run);
  }

  atMoment(atMs: number, host: Host | undefined, run: () => void): () => void {
    this.#order += 1;
    const life = host?.life ?? 0;
    const event = { atMs, order: this.#order, host, life, run, cancelled: false };
    push(this.#heap, event);
    return () => {
      event.cancelled = true;
    };
  }

  clockOf(host: Host, wallOffsetMs: () => number): Clock {
    return {
      wallNs: () => BigInt(Math.round((this.nowMs + wallOffsetMs()) * 1e6)),
      bootNs: () => BigInt(Math.round(this.nowMs * 1e6)),
      after: (ms, run) => this.at(ms, host, run),
    };
  }

  runUntil(endMs: number): void {
    for (;;) {
      const event = this.#heap[0];
      if (event === undefined || event.atMs > endMs) break;
      pop(this.#heap);
      this.nowMs = Math.max(this.nowMs, event.atMs);
      const { host } = event;
      if (event.cancelled || (host !== undefined && host.life !== event.life)) continue;
      if (host !== undefined && host.pausedUntilMs > this.nowMs) {
        event.atMs = host.pausedUntilMs;
        push(this.#heap, event);
        continue;
      }
      event.run();
    }
    this.nowMs = endMs;
  }
}

function before(left: Event, right: Event): boolean {
  return left.atMs < right.atMs || (left.atMs === right.atMs && left.order < right.order);
}

function push(heap: Event[], event: Event): void {
  let at = heap.push(event) - 1;
  while (at > 0) {
    const above = (at - 1) >> 1;
    const parent = heap[above] as Event;
    if (!before(event, parent)) break;
    heap[at] = parent;
    at = above;
  }
  heap[at] = event;
}

function pop(heap: Event[]): void {
  const last = heap.pop() as Event;
  if (heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = at * 2 + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && before(heap[child + 1] as Event, heap[child] as Event)) child += 1;
    if (!before(heap[child] as Event, last)) break;
    heap[at] = heap[child] as Event;
    at = child;
  }
  heap[at] = last;
}
