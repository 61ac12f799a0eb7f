// What one follower of a group is told ahead of the batches: carries out what its header machine asks for.

import type { DoorAnswer, DoorPort } from "../machines/door.js";
import { headerLagMs, headerSender, newHeaderSender } from "../machines/headers.js";
import type { HeaderEffect, HeaderEvent, HeaderMark, HeaderSender } from "../machines/headers.js";
import type { Clock } from "../seams.js";
import { Parcels } from "./pipe.js";
import type { Pipe } from "./pipe.js";

export interface ToldOptions {
  group: string;
  epochId: string;
  /** Of the whole link; null: no limit. */
  bytesPerSecond: number | null;
  door: DoorPort;
  clock: Clock;
  /** So many bytes went over the link. */
  paid: (bytes: number) => void;
}

/** How far a follower knows what is done. */
export interface HeaderStatus {
  /** It has headers durably up to here; null: it is not told any now. */
  lsn: number | null;
  /** How long ago the moment is up to which it knows everything; null: not known. */
  lagMs: number | null;
  bytesSent: number;
}

export class Told {
  readonly #options: ToldOptions;
  readonly #parcels = new Parcels<Uint8Array>();
  #state: HeaderSender;
  #pipe: Pipe | undefined;
  #turn = 0;
  #cancelWake: () => void = () => undefined;
  #bytesSent = 0;
  /** The group's newest LSN, and when that was looked at. */
  #look: { newest: number; timeNs: bigint } | null = null;

  constructor(options: ToldOptions) {
    this.#options = options;
    this.#state = newHeaderSender(options.bytesPerSecond, this.#nowMs());
  }

  get look(): { newest: number; timeNs: bigint } | null {
    return this.#look;
  }

  status(): HeaderStatus {
    const { turn, acked } = this.#state;
    const lagMs = headerLagMs(this.#state, this.#nowMs());
    return { lsn: turn === null ? null : acked, lagMs, bytesSent: this.#bytesSent };
  }

  /** The follower said what it has, in answer to the offer `turn`. */
  up(pipe: Pipe, turn: number, last: number | null, headers: HeaderMark | null): void {
    [this.#pipe, this.#turn] = [pipe, turn];
    this.#feed({ type: "up", nowMs: this.#nowMs(), turn, last, headers });
  }

  down(): void {
    this.#pipe = undefined;
    this.#cancelWake();
    this.#feed({ type: "down" });
  }

  /** `last`: its recovery point. */
  ack(headers: HeaderMark | null, last: number | null): void {
    if (this.#pipe === undefined) return;
    const nowMs = this.#nowMs();
    // The first one: from now on there is something that could be recovered.
    if (this.#state.turn === null && last !== null)
      this.#feed({ type: "up", nowMs, turn: this.#turn, last, headers: null });
    this.#feed({ type: "ack", nowMs, headers, last });
  }

  #nowMs(): number {
    return Number(this.#options.clock.bootNs()) / 1e6;
  }

  #feed(event: HeaderEvent): void {
    const [next, effects] = headerSender(this.#state, event);
    this.#state = next;
    for (const effect of effects) this.#carryOut(effect);
  }

  #carryOut(effect: HeaderEffect): void {
    switch (effect.type) {
      case "read":
        return this.#read(effect);
      case "send": {
        const frame = this.#parcels.take(effect.ref);
        if (frame === undefined) return;
        const { group, epochId } = this.#options;
        const { from, to } = effect;
        this.#bytesSent += frame.length;
        return this.#pipe?.send("headers", { group, stream: this.#turn, epochId, from, to, frame });
      }
      case "drop":
        return void this.#parcels.take(effect.ref);
      case "paid":
        return this.#options.paid(effect.bytes);
      case "wake": {
        this.#cancelWake();
        const wait = Math.max(1, effect.atMs - this.#nowMs());
        const tick = () => this.#feed({ type: "tick", nowMs: this.#nowMs() });
        this.#cancelWake = this.#options.clock.after(wait, tick);
      }
    }
  }

  #read({ turn, from, chain, bytesMax, summarize }: Extract<HeaderEffect, { type: "read" }>): void {
    const { group, door, clock } = this.#options;
    // Before it is looked: what is told never looks newer than it is.
    const [wallNs, askedMs] = [clock.wallNs(), this.#nowMs()];
    const timeNs = wallNs > 0n ? wallNs : 0n;
    door({ call: "headers", group, from, chain, bytesMax, summarize }, (answer: DoorAnswer<"headers">) => {
      const nowMs = this.#nowMs();
      if (!answer.ok) return this.#feed({ type: "readFailed", nowMs, turn });
      const { newest, frame } = answer.value;
      if (newest >= (this.#look?.newest ?? 0)) this.#look = { newest, timeNs };
      const ref = frame === null ? 0 : this.#parcels.put(frame.bytes);
      const told = frame && { last: frame.last, chain: frame.chain, bytes: frame.bytes.length };
      this.#feed({ type: "read", nowMs, askedMs, turn, ref, newest, frame: told });
    });
  }
}
