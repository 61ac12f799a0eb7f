// One group that this daemon has a replica of: carries out what its receiver asks for.

import { HoldfastError } from "../../io-path/errors.js";
import type { DoorAnswer, DoorCall, DoorPort } from "../machines/door.js";
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
  #epochId = "";
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

  down(): void {
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
        return this.#pipe?.send("state", { group, stream, epochId, last, staging, creditBytes });
      }
      case "ack": {
        const { epochId, received, applied, flushed } = effect;
        return this.#pipe?.send("ack", { group, stream, epochId, received, applied, flushed });
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
      if (answer.ok) this.#feed({ type: "queried", turn, ...answer.value });
      else this.#feed({ type: "failed", turn, code: answer.code, message: answer.message });
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
