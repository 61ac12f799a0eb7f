// One group that this daemon has a replica of: carries out what its receiver asks for.

import { HoldfastError } from "../../io-path/errors.js";
import { CONTROL_BYTES_MAX, HEADERS_UNACKED_MAX } from "../limits.js";
import type { DoorAnswer, DoorCall, DoorPort } from "../machines/door.js";
import type { HeaderMark } from "../machines/headers.js";
import { newReceiver, receiver } from "../machines/receiver.js";
import type { Receiver, ReceiverEffect, ReceiverEvent } from "../machines/receiver.js";
import type { Chunk } from "../wire/chunk.js";
import type { AckVector, Body } from "../wire/control.js";
import { Parcels } from "./pipe.js";
import type { Pipe } from "./pipe.js";

type Run = Extract<ReceiverEffect, { type: "run" }>;

export class Replica {
  readonly #group: string;
  readonly #door: DoorPort;
  readonly #parcels = new Parcels<{ bytes: Uint8Array; cursor: string }>();
  #state: Receiver = newReceiver();
  #pipe: Pipe | undefined;
  /** When its owner, which is followed, told of it last. */
  heardMs = Number.NEGATIVE_INFINITY;
  #epochId = "";
  /** The owner's headers are durable here up to there. */
  #headers: HeaderMark | null = null;
  /** Frames of them that wait for their turn, and whether some are being kept. */
  #told: Uint8Array[] = [];
  #keeping = false;
  /** Who sends it. */
  #peer = "";

  constructor(group: string, door: DoorPort) {
    this.#group = group;
    this.#door = door;
  }

  /** Whose session it follows, if any. */
  get pipe(): Pipe | undefined {
    return this.#pipe;
  }

  get state(): Receiver {
    return this.#state;
  }

  offer(peer: string, pipe: Pipe, { stream, epochId, description }: Body<"offer">): void {
    this.#told = [];
    this.#pipe = pipe;
    this.#peer = peer;
    this.#epochId = epochId;
    this.#feed({ type: "offer", stream, ref: this.#parcels.put({ bytes: description, cursor: "" }) });
  }

  begin({ stream, epochId, base, target }: Body<"begin">): void {
    this.#feed({ type: "begin", stream, epochId, base, target });
  }

  chunk({ stream, epochId, base, target, sequence, last, cursor, payload }: Chunk): void {
    const ref = this.#parcels.put({ bytes: payload, cursor: cursor.toString("hex") });
    const bytes = payload.length;
    this.#feed({ type: "chunk", stream, ref, bytes, epochId, base, target, sequence, last });
  }

  /** What the owner did, ahead of the batches. */
  headers({ stream, epochId, frame }: Body<"headers">): void {
    if (this.#state.link !== "up" || this.#state.stream !== stream) return;
    const bytes = this.#told.reduce((sum, { length }) => sum + length, frame.length);
    if (bytes > HEADERS_UNACKED_MAX + CONTROL_BYTES_MAX)
      this.#pipe?.fail("more headers than are acknowledged");
    this.#told.push(frame);
    this.#keep(epochId);
  }

  /** All that came, one call after the other. */
  #keep(epochId: string): void {
    const [pipe, frames] = [this.#pipe, this.#told];
    if (this.#keeping || pipe === undefined || frames.length === 0) return;
    [this.#told, this.#keeping] = [[], true];
    const { turn } = this.#state;
    this.#door({ call: "headersKeep", group: this.#group, epochId, frames }, (answer) => {
      this.#keeping = false;
      if (this.#pipe !== pipe || this.#state.turn !== turn) return this.#keep(this.#epochId);
      // What cannot be kept is not acknowledged: the owner shows that. What does not belong here ends the session.
      if (!answer.ok && (answer.code === "Conflict" || answer.code === "Corrupt"))
        return pipe.fail(answer.message);
      if (answer.ok) this.#headers = answer.value;
      const vector = this.ack();
      if (answer.ok && vector !== undefined) pipe.send("ack", vector);
      this.#keep(epochId);
    });
  }

  /** The owner has so much, and looked then. */
  beat({ newest, lookedNs }: Body<"beat">["groups"][number], nowMs: number): void {
    if (this.#state.link !== "up") return;
    this.heardMs = nowMs;
    const group = this.#group;
    this.#door({ call: "headersBeat", group, newest, timeNs: lookedNs }, () => undefined);
  }

  down(): void {
    this.#told = [];
    this.#pipe = undefined;
    this.#feed({ type: "down" });
  }

  /** It was promoted here: who sends it has to know, also while nothing changes there. */
  fence(): void {
    const [group, { stream }] = [this.#group, this.#state];
    const message = "it was promoted here: the former owner can come back as its follower";
    this.#pipe?.send("stop", { group, stream, code: "Fenced", message, retry: false });
    this.down();
  }

  /** What a heartbeat's answer says; nothing before the engine was asked. */
  ack(): AckVector | undefined {
    const { link, last, batches, stream } = this.#state;
    if (link !== "up") return undefined;
    const received = batches.findLast(({ whole }) => whole)?.target ?? last;
    return {
      group: this.#group,
      stream,
      epochId: this.#epochId,
      received,
      applied: last,
      flushed: last,
      headers: this.#headers,
    };
  }

  #feed(event: ReceiverEvent): void {
    const [next, effects] = receiver(this.#state, event);
    this.#state = next;
    for (const effect of effects) this.#carryOut(effect);
  }

  #carryOut(effect: ReceiverEffect): void {
    const group = this.#group;
    const { stream } = this.#state;
    switch (effect.type) {
      case "run":
        return this.#run(effect);
      case "drop":
        return void this.#parcels.take(effect.ref);
      case "state": {
        const { epochId, last, creditBytes } = effect;
        const staging =
          effect.staging === null
            ? null
            : { ...effect.staging, cursor: Buffer.from(effect.staging.cursor, "hex") };
        const headers = this.#headers;
        return this.#pipe?.send("state", { group, stream, epochId, last, staging, creditBytes, headers });
      }
      case "ack": {
        const { epochId, received, applied, flushed } = effect;
        const headers = this.#headers;
        return this.#pipe?.send("ack", { group, stream, epochId, received, applied, flushed, headers });
      }
      case "credit":
        return this.#pipe?.send("credit", { group, stream, bytesMax: effect.bytesMax });
      case "stop": {
        const { code, message, retry } = effect;
        return this.#pipe?.send("stop", { group, stream, code, message: message.slice(0, 500), retry });
      }
      case "violation":
        throw new HoldfastError("Invalid", effect.reason);
    }
  }

  #run({ turn, work, batch }: Run): void {
    if (work.work === "query") return this.#query(turn);
    const call = this.#callOf(work, batch);
    const done = (answer: DoorAnswer<"stage" | "commit" | "replicaCreate">) => {
      if (answer.ok) this.#feed({ type: "done", turn });
      else this.#feed({ type: "failed", turn, code: answer.code, message: answer.message });
    };
    if (call === undefined)
      throw new HoldfastError("Internal", "a piece of a batch was lost before it was staged");
    this.#door(call, done);
  }

  #query(turn: number): void {
    this.#door({ call: "replicaState", group: this.#group }, (answer: DoorAnswer<"replicaState">) => {
      if (answer.ok) {
        const { headers, ...told } = answer.value;
        this.#headers = headers;
        this.#feed({ type: "queried", turn, ...told });
      } else this.#feed({ type: "failed", turn, code: answer.code, message: answer.message });
    });
  }

  #callOf(
    work: Run["work"],
    batch: Run["batch"],
  ): Extract<DoorCall, { call: "stage" | "commit" | "replicaCreate" }> | undefined {
    const group = this.#group;
    if (work.work === "commit") {
      if (batch?.point == null) return undefined;
      return { call: "commit", group, epochId: batch.epochId, base: batch.base, target: batch.point };
    }
    if (work.work === "query") return undefined;
    const parcel = this.#parcels.take(work.ref);
    if (parcel === undefined) return undefined;
    if (work.work === "create") {
      return { call: "replicaCreate", group, peer: this.#peer, description: parcel.bytes };
    }
    const { epochId, base, target } = work;
    return { call: "stage", group, epochId, base, target, chunk: parcel.bytes, cursor: parcel.cursor };
  }
}
