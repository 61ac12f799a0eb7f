// What the drivers of the machines need of a session.

import type { Chunk } from "../wire/chunk.js";
import type { Body, MessageType } from "../wire/control.js";

export interface Pipe {
  send<T extends MessageType>(type: T, body: Body<T>): void;
  sendChunk(chunk: Chunk): void;
  /** The other side broke the rules, as turned out later. */
  fail(reason: string): void;
}

/** Bytes that wait for their turn, by number: the machines hold plain data only. */
export class Parcels<T> {
  readonly #held = new Map<number, T>();
  #newest = 0;

  put(parcel: T): number {
    this.#newest += 1;
    this.#held.set(this.#newest, parcel);
    return this.#newest;
  }

  take(ref: number): T | undefined {
    const parcel = this.#held.get(ref);
    this.#held.delete(ref);
    return parcel;
  }

  get size(): number {
    return this.#held.size;
  }
}
