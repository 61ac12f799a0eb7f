// An authenticated pair of sockets to one peer: control messages in order, chunks of batches beside them.
//
// - Either socket's end is the session's end. Nothing is sent again by itself: what the other side has is asked for
//   when the next session begins.
// - A message that cannot be taken ends the session, with an audit line: peers do not send such things.

import { HoldfastError } from "../../io-path/errors.js";
import type { Audit } from "../audit.js";
import { CONTROL_BACKLOG_MAX } from "../limits.js";
import type { Peer } from "../peers.js";
import { decodeChunk, encodeChunk } from "../wire/chunk.js";
import type { Chunk } from "../wire/chunk.js";
import { decodeMessage, encodeMessage } from "../wire/control.js";
import type { Body, Message, MessageType } from "../wire/control.js";
import type { Agreement } from "../wire/handshake.js";
import type { Channel } from "./channel.js";

export interface SessionHandlers {
  message: (message: Message) => void;
  chunk: (chunk: Chunk) => void;
  closed: (reason: string) => void;
}

export interface SessionParts {
  peer: Peer;
  /** Hexadecimal, the same at both ends. */
  id: string;
  agreement: Agreement;
  /** What the other side calls itself. */
  site: string;
  /** We called; else the peer did. */
  dialed: boolean;
  control: Channel;
  bulk: Channel;
  /** Control messages of the handshake, by direction. */
  sent: number;
  received: number;
  audit: Audit;
}

export class Session {
  readonly #parts: SessionParts;
  #sent: number;
  #received: number;
  #handlers: SessionHandlers | undefined;
  #reason: string | undefined;

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.#sent = parts.sent;
    this.#received = parts.received;
  }

  get peer(): Peer {
    return this.#parts.peer;
  }

  get id(): string {
    return this.#parts.id;
  }

  get agreement(): Agreement {
    return this.#parts.agreement;
  }

  get site(): string {
    return this.#parts.site;
  }

  get dialed(): boolean {
    return this.#parts.dialed;
  }

  get closed(): string | undefined {
    return this.#reason;
  }

  /** Bytes of messages since the session began, without TLS and WebSocket headers. */
  get counters() {
    const { control, bulk } = this.#parts;
    return {
      controlSent: control.sentBytes,
      controlReceived: control.receivedBytes,
      bulkSent: bulk.sentBytes,
      bulkReceived: bulk.receivedBytes,
    };
  }

  /** Chunks that wait in this process for the network. */
  get bulkBacklog(): number {
    return this.#parts.bulk.backlog;
  }

  /** To be called once, in the turn in which the session was made: messages may be there already. */
  attach(handlers: SessionHandlers): void {
    const { control, bulk } = this.#parts;
    this.#handlers = handlers;
    const closed = (reason: string) => this.close(reason);
    control.attach({ message: (frame) => this.#take(() => this.#onMessage(frame)), closed });
    bulk.attach({ message: (frame) => this.#take(() => handlers.chunk(decodeChunk(frame))), closed });
  }

  send<T extends MessageType>(type: T, body: Body<T>): void {
    if (this.#reason !== undefined) return;
    const { control } = this.#parts;
    if (control.backlog > CONTROL_BACKLOG_MAX) return this.close("the peer does not read what it is sent");
    control.send(encodeMessage(type, this.#sent, body));
    this.#sent += 1;
  }

  sendChunk(chunk: Chunk): void {
    if (this.#reason === undefined) this.#parts.bulk.send(encodeChunk(chunk));
  }

  fail(reason: string): void {
    this.#take(() => {
      throw new HoldfastError("Invalid", reason);
    });
  }

  close(reason: string): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#parts.control.close(reason);
    this.#parts.bulk.close(reason);
    this.#handlers?.closed(reason);
  }

  #onMessage(frame: Buffer): void {
    const message = decodeMessage(frame, this.#received);
    this.#received += 1;
    this.#handlers?.message(message);
  }

  #take(run: () => void): void {
    if (this.#reason !== undefined) return;
    try {
      run();
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      const { peer, control, audit } = this.#parts;
      audit({ event: "message refused", peer: peer.name, from: control.from, reason: error.message });
      this.close(error.message);
    }
  }
}
