// One WebSocket over one TLS connection, fenced.
//
// - Only whole binary messages of at most `bytesMax`; a text, a fragment, a ping or a pong ends the connection: our own
//   heartbeats are messages, so nobody who means well sends one.
// - Until `attach`, messages wait for `receive`, a few at most.

import type { TLSSocket } from "node:tls";
import WebSocket from "ws";
import type { ClientOptions, ServerOptions } from "ws";
import { HoldfastError } from "../../io-path/errors.js";
import { HANDSHAKE_MESSAGES_MAX } from "../limits.js";
import { exporterOf } from "./tls.js";

/** For both ends. `maxFragments` is newer than the types. */
export function socketOptions(bytesMax: number): ServerOptions & ClientOptions & { maxFragments: number } {
  return {
    perMessageDeflate: false,
    maxPayload: bytesMax,
    maxFragments: 1,
    autoPong: false,
    skipUTF8Validation: true,
  };
}

export interface ChannelHandlers {
  message: (bytes: Buffer) => void;
  closed: (reason: string) => void;
}

export class Channel {
  readonly #socket: WebSocket;
  readonly tls: TLSSocket;
  readonly from: string;
  /** Ties messages to this TLS connection. */
  readonly exporter: Buffer;
  readonly #early: Buffer[] = [];
  #wake: (() => void) | undefined;
  #handlers: ChannelHandlers | undefined;
  #reason: string | undefined;
  #ending = false;
  sentBytes = 0;
  receivedBytes = 0;

  constructor(socket: WebSocket, tls: TLSSocket) {
    this.#socket = socket;
    this.tls = tls;
    this.from = tls.remoteAddress ?? "";
    this.exporter = exporterOf(tls);
    socket.on("message", (data, isBinary) => {
      if (!isBinary || !Buffer.isBuffer(data)) this.close("a message that is not binary");
      else this.#receive(data);
    });
    socket.on("ping", () => this.close("a WebSocket ping"));
    socket.on("pong", () => this.close("a WebSocket pong"));
    socket.on("error", (error) => this.close(error.message));
    socket.on("close", () => this.close("the other end closed the connection"));
  }

  get closed(): string | undefined {
    return this.#reason;
  }

  /** Bytes that wait in this process. */
  get backlog(): number {
    return this.#socket.bufferedAmount;
  }

  send(bytes: Buffer): void {
    if (this.#reason !== undefined) return;
    this.sentBytes += bytes.length;
    this.#socket.send(bytes);
  }

  /** The next message; fails when the connection ends. */
  async receive(): Promise<Buffer> {
    for (;;) {
      const message = this.#early.shift();
      if (message !== undefined) return message;
      if (this.#reason !== undefined) throw new HoldfastError("Unavailable", this.#reason);
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
  }

  /** From now on messages go there, those that wait already first. */
  attach(handlers: ChannelHandlers): void {
    this.#handlers = handlers;
    for (const message of this.#early.splice(0)) handlers.message(message);
    if (this.#reason !== undefined) handlers.closed(this.#reason);
  }

  /** At once: what is not sent yet is dropped. */
  close(reason: string): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#socket.terminate();
    this.tls.destroy();
    this.#wake?.();
    this.#handlers?.closed(reason);
  }

  /** Says a last thing and closes; whoever does not answer to that is the deadline's. */
  end(last: Buffer): void {
    if (this.#reason !== undefined) return;
    this.#ending = true;
    this.#socket.send(last, () => this.#socket.close());
  }

  get ending(): boolean {
    return this.#ending;
  }

  #receive(bytes: Buffer): void {
    if (this.#reason !== undefined) return;
    this.receivedBytes += bytes.length;
    if (this.#handlers !== undefined) return this.#handlers.message(bytes);
    if (this.#early.length >= HANDSHAKE_MESSAGES_MAX)
      return this.close("messages before the handshake is done");
    this.#early.push(bytes);
    this.#wake?.();
  }
}
