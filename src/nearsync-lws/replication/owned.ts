// One group that this daemon owns and replicates: its schedule, and a sender and a lag for each follower. Carries out
// what the machines ask for; decides nothing itself.

import { HoldfastError } from "../../io-path/errors.js";
import type { DoorAnswer, DoorPort, Point } from "../machines/door.js";
import { lag, newLag, reportLag } from "../machines/lag.js";
import type { Lag, LagReport } from "../machines/lag.js";
import { newSchedule, schedule } from "../machines/schedule.js";
import type { Schedule, ScheduleEvent } from "../machines/schedule.js";
import { newSender, sender, wantsCut } from "../machines/sender.js";
import type { AckVector, Sender, SenderEffect, SenderEvent } from "../machines/sender.js";
import type { Clock } from "../seams.js";
import type { HeaderMark } from "../machines/headers.js";
import { Arrivals } from "./arrivals.js";
import { Parcels } from "./pipe.js";
import type { Pipe } from "./pipe.js";
import { Told } from "./told.js";
import type { HeaderStatus } from "./told.js";

export interface OwnedOptions {
  /** 32 hexadecimal digits. */
  group: string;
  /** Of the owner's present epoch, 16 hexadecimal digits. */
  epochId: string;
  rpoMs: number;
}

export interface FollowerOptions {
  /** Null: no limit. */
  bytesPerSecond: number | null;
  /** What its replica is made from, opaque here. */
  description: Uint8Array;
}

export interface Follower {
  description: Uint8Array;
  sender: Sender;
  lag: Lag;
  told: Told;
  pipe: Pipe | undefined;
  cancelWake: () => void;
  arrivals: Arrivals;
}

export interface FollowerStatus extends LagReport {
  link: Sender["link"];
  /** Why it is stopped. */
  problem: { code: string; message: string } | null;
  /** The follower's newest recovery point. */
  has: number | null;
  bytesSent: number;
  /** Under way, not applied there. */
  batches: number;
  /** Cuts of the group that nobody had room for. */
  skipped: number;
  /** How far it knows what is done, ahead of the batches. */
  headers: HeaderStatus;
}

type Opened = Extract<SenderEffect, { type: "open" }>;
type Next = Extract<SenderEffect, { type: "next" }>;

export class Owned {
  readonly options: OwnedOptions;
  readonly #door: DoorPort;
  readonly #clock: Clock;
  readonly #followers = new Map<string, Follower>();
  readonly #parcels = new Parcels<{ chunk: Uint8Array; cursor: string }>();
  #schedule: Schedule;
  #cancelTick: () => void = () => undefined;
  #bytesSent = new Map<string, number>();
  /** Why the last cut failed. */
  #cutProblem: { code: string; message: string } | null = null;
  #closed = false;

  constructor(options: OwnedOptions, door: DoorPort, clock: Clock) {
    this.options = options;
    this.#door = door;
    this.#clock = clock;
    this.#schedule = newSchedule(options.rpoMs, nowOf(clock));
  }

  get followers(): ReadonlyMap<string, Follower> {
    return this.#followers;
  }

  /** The newest cut, which is durable. */
  get newest(): Point | null {
    return this.#schedule.newest;
  }

  /** `turn`: of the offers that were made to the peer before, while it followed an earlier time. */
  add(
    peer: string,
    { bytesPerSecond, description, turn }: FollowerOptions & { turn: number },
    pipe: Pipe | undefined,
  ): void {
    const { group, epochId } = this.options;
    const paid = (bytes: number) => this.#feed(peer, { type: "paid", nowMs: nowOf(this.#clock), bytes });
    const link = { bytesPerSecond, door: this.#door, clock: this.#clock, paid };
    const follower: Follower = {
      told: new Told({ group, epochId, ...link }),
      description,
      sender: { ...newSender(bytesPerSecond, nowOf(this.#clock)), turn },
      lag: newLag(this.#schedule.everyMs),
      pipe: undefined,
      cancelWake: () => undefined,
      arrivals: new Arrivals(this.#clock),
    };
    this.#followers.set(peer, follower);
    if (pipe !== undefined) this.up(peer, pipe);
  }

  /** Its pins go; a session goes on without the group. Answers with the turn of its last offer. */
  remove(peer: string): number {
    this.down(peer);
    const turn = this.#followers.get(peer)?.sender.turn ?? 0;
    if (!this.#followers.delete(peer)) return turn;
    const { group } = this.options;
    this.#door({ call: "follow", group, follower: peer, lsn: null, ifNone: false }, () => undefined);
    return turn;
  }

  close(): void {
    for (const peer of this.#followers.keys()) this.down(peer);
    this.#closed = true;
    this.#cancelTick();
  }

  up(peer: string, pipe: Pipe): void {
    const follower = this.#followers.get(peer);
    if (follower === undefined) return;
    follower.pipe = pipe;
    this.#feed(peer, { type: "up", nowMs: nowOf(this.#clock) });
  }

  down(peer: string): void {
    const follower = this.#followers.get(peer);
    if (follower === undefined) return;
    follower.pipe = undefined;
    follower.cancelWake();
    follower.arrivals.fail("the session with the peer ended");
    follower.told.down();
    this.#feed(peer, { type: "down" });
  }

  /** The follower says what it has. */
  state(peer: string, event: Extract<SenderEvent, { type: "state" }>, headers: HeaderMark | null): void {
    this.#feed(peer, event);
    const follower = this.#followers.get(peer);
    if (follower?.pipe === undefined || follower.sender.turn !== event.stream) return;
    if (follower.sender.link === "up") follower.told.up(follower.pipe, event.stream, event.last, headers);
  }

  /** The group's newest LSN as it was seen last, and when; null: nobody looks. */
  look(peer: string): { newest: number; timeNs: bigint } | null {
    return this.#followers.get(peer)?.told.look ?? null;
  }

  /** What the follower says. */
  take(peer: string, event: SenderEvent): void {
    this.#feed(peer, event);
  }

  ack(
    peer: string,
    stream: number,
    { headers, ...vector }: AckVector & { headers: HeaderMark | null },
  ): void {
    const follower = this.#followers.get(peer);
    if (follower?.sender.turn !== stream) return;
    this.#feed(peer, { type: "ack", nowMs: nowOf(this.#clock), stream, ...vector });
    follower.lag = lag(follower.lag, { type: "ack", ...vector });
    follower.told.ack(headers, vector.flushed);
    follower.arrivals.reached(follower.sender.has ?? 0);
  }

  /** Sends a point that is durable; fulfils when the follower has it, flushed. `Unavailable`: it has not in time. */
  async ship(peer: string, point: Point, limitMs: number): Promise<void> {
    const follower = this.#followers.get(peer);
    const { link, has, problem } = follower?.sender ?? { link: "down", has: null, problem: null };
    if (follower === undefined || link === "down" || link === "stopped") {
      throw new HoldfastError("Unavailable", problem?.message ?? "the peer is not connected");
    }
    if ((has ?? 0) >= point.lsn) return;
    const arrived = follower.arrivals.wait(point.lsn, limitMs);
    this.announce(point);
    await arrived;
  }

  /** A point that was made by somebody else, a snapshot, and is durable: every follower gets it. */
  announce(point: Point): void {
    const nowMs = nowOf(this.#clock);
    for (const [peer, follower] of this.#followers) {
      follower.lag = lag(follower.lag, { type: "point", point });
      this.#feed(peer, { type: "cut", nowMs, point });
    }
  }

  /** A cut as soon as somebody has room, without waiting for the grid. */
  force(): void {
    this.#step({ type: "force" });
    this.#tick();
  }

  status(peer: string): FollowerStatus | undefined {
    const follower = this.#followers.get(peer);
    if (follower === undefined) return undefined;
    const { link, problem, has, sent: whole, sending } = follower.sender;
    const batches = whole.length + (sending === null ? 0 : 1);
    const { skipped } = this.#schedule;
    const report = reportLag(follower.lag, nowOf(this.#clock));
    const sent = this.#bytesSent.get(peer) ?? 0;
    const why = problem ?? this.#cutProblem;
    const headers = follower.told.status();
    return { ...report, link, problem: why, has, bytesSent: sent, batches, skipped, headers };
  }

  #feed(peer: string, event: SenderEvent): void {
    const follower = this.#followers.get(peer);
    if (follower === undefined || this.#closed) return;
    const [next, effects] = sender(follower.sender, event);
    follower.sender = next;
    for (const effect of effects) this.#carryOut(peer, follower, effect);
    if (next.link !== "up") follower.told.down();
    this.#tick();
  }

  #step(event: ScheduleEvent): void {
    const [next, effects] = schedule(this.#schedule, event);
    this.#schedule = next;
    for (const { followers } of effects) this.#cut(followers);
  }

  /** Cuts if it is time and somebody has room; else looks again when it is time. */
  #tick(): void {
    this.#cancelTick();
    if (this.#closed) return;
    const nowMs = nowOf(this.#clock);
    const wanting = [...this.#followers].flatMap(([peer, one]) => (wantsCut(one.sender) ? [peer] : []));
    this.#step({ type: "tick", nowMs, wanting });
    const { cutting, dueMs } = this.#schedule;
    if (cutting || wanting.length === 0) return;
    this.#cancelTick = this.#clock.after(Math.max(1, dueMs - nowMs), () => this.#tick());
  }

  #cut(followers: string[]): void {
    this.#door({ call: "cut", group: this.options.group }, (answer) => {
      if (this.#closed) return;
      const nowMs = nowOf(this.#clock);
      if (!answer.ok) {
        this.#cutProblem = { code: answer.code, message: answer.message };
        this.#step({ type: "cutFailed", nowMs });
        return this.#tick();
      }
      this.#cutProblem = null;
      this.#step({ type: "cut", nowMs, point: answer.value });
      for (const peer of followers) {
        const follower = this.#followers.get(peer);
        if (follower === undefined) continue;
        follower.lag = lag(follower.lag, { type: "point", point: answer.value });
        this.#feed(peer, { type: "cut", nowMs, point: answer.value });
      }
    });
  }

  #carryOut(peer: string, follower: Follower, effect: SenderEffect): void {
    const { group, epochId, rpoMs } = this.options;
    switch (effect.type) {
      case "offer": {
        const { description } = follower;
        return follower.pipe?.send("offer", { group, stream: effect.stream, epochId, rpoMs, description });
      }
      case "open":
        return this.#open(peer, effect);
      case "next":
        return this.#next(peer, effect);
      case "close":
        return this.#door({ call: "deltaClose", group, delta: effect.delta }, () => undefined);
      case "begin": {
        const { base, target } = effect;
        return follower.pipe?.send("begin", { group, stream: follower.sender.turn, epochId, base, target });
      }
      case "chunk": {
        const parcel = this.#parcels.take(effect.ref);
        if (parcel === undefined) return;
        const { base, target, sequence, last } = effect;
        const stream = follower.sender.turn;
        const cursor = Buffer.from(parcel.cursor, "hex");
        const { buffer, byteOffset, length } = parcel.chunk;
        const payload = Buffer.from(buffer, byteOffset, length);
        this.#bytesSent.set(peer, (this.#bytesSent.get(peer) ?? 0) + payload.length);
        return follower.pipe?.sendChunk({
          group,
          stream,
          epochId,
          base,
          target,
          sequence,
          last,
          cursor,
          payload,
        });
      }
      case "drop":
        return void this.#parcels.take(effect.ref);
      case "follow":
        return this.#follow(peer, effect.lsn, effect.ifNone);
      case "violation":
        throw new HoldfastError("Invalid", effect.reason);
      case "wake": {
        follower.cancelWake();
        const wait = Math.max(1, effect.atMs - nowOf(this.#clock));
        follower.cancelWake = this.#clock.after(wait, () =>
          this.#feed(peer, { type: "tick", nowMs: nowOf(this.#clock) }),
        );
      }
    }
  }

  #follow(peer: string, lsn: number, ifNone: boolean): void {
    const { group } = this.options;
    this.#door({ call: "follow", group, follower: peer, lsn, ifNone }, () => undefined);
  }

  #open(peer: string, { turn, base, target, cursor }: Opened): void {
    const { group } = this.options;
    this.#door({ call: "deltaOpen", group, base, target, cursor }, (answer: DoorAnswer<"deltaOpen">) => {
      const nowMs = nowOf(this.#clock);
      if (!answer.ok) {
        const { code, message } = answer;
        return this.#feed(peer, { type: "openFailed", nowMs, turn, code, message });
      }
      const { delta, base: from, target: to } = answer.value;
      const follower = this.#followers.get(peer);
      if (follower === undefined || this.#closed) {
        return this.#door({ call: "deltaClose", group, delta }, () => undefined);
      }
      for (const point of [from, to]) {
        if (point !== null) follower.lag = lag(follower.lag, { type: "point", point });
      }
      const has = follower.sender.has;
      follower.lag = lag(follower.lag, { type: "ack", received: has, applied: has, flushed: has });
      this.#feed(peer, { type: "opened", nowMs, turn, delta, target: to });
    });
  }

  #next(peer: string, { turn, delta, bytesMax }: Next): void {
    const { group } = this.options;
    this.#door({ call: "deltaNext", group, delta, bytesMax }, (answer: DoorAnswer<"deltaNext">) => {
      const nowMs = nowOf(this.#clock);
      if (!answer.ok) {
        const { code, message } = answer;
        return this.#feed(peer, { type: "readFailed", nowMs, turn, delta, code, message });
      }
      const { chunk, cursor, done } = answer.value;
      const ref = this.#parcels.put({ chunk, cursor });
      this.#feed(peer, { type: "read", nowMs, turn, delta, ref, bytes: chunk.length, done });
    });
  }
}

/** Milliseconds since boot. */
export function nowOf(clock: Clock): number {
  return Number(clock.bootNs()) / 1e6;
}
