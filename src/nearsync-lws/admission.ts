// Strangers at the door: how many there are at once and how long each may stay one.
//
// - A connection counts from `accept` until it closes or somebody calls `admit` for it. All listeners share one.
// - Whoever is not admitted in time is closed, however many bytes still trickle in.

import type { Socket } from "node:net";
import type { Audit } from "./audit.js";
import { HANDSHAKE_MS, UNAUTHENTICATED_MAX } from "./limits.js";

export class Admission {
  /** By address of the other end: the TLS socket over a TCP socket is another object, with the same one. */
  readonly #strangers = new Map<string, { socket: Socket; timer: NodeJS.Timeout }>();
  readonly #audit: Audit;
  readonly #deadlineMs: number;

  constructor(audit: Audit, deadlineMs: number = HANDSHAKE_MS) {
    this.#audit = audit;
    this.#deadlineMs = deadlineMs;
  }

  get strangers(): number {
    return this.#strangers.size;
  }

  /** A fresh TCP connection; false: it is closed already. */
  accept(socket: Socket): boolean {
    const from = socket.remoteAddress;
    if (this.#strangers.size >= UNAUTHENTICATED_MAX) {
      this.#audit({ event: "connection refused", from, reason: "too many connections are not known yet" });
      socket.destroy();
      return false;
    }
    const timer = setTimeout(() => {
      this.#audit({ event: "connection refused", from, reason: `no session within ${this.#deadlineMs} ms` });
      socket.destroy();
    }, this.#deadlineMs);
    const key = keyOf(socket);
    this.#strangers.set(key, { socket, timer });
    socket.once("close", () => this.#forget(key));
    return true;
  }

  /** It is no stranger any more. */
  admit(socket: Socket): void {
    this.#forget(keyOf(socket));
  }

  /** Closes every stranger. */
  close(): void {
    for (const { socket } of this.#strangers.values()) socket.destroy();
  }

  #forget(key: string): void {
    clearTimeout(this.#strangers.get(key)?.timer);
    this.#strangers.delete(key);
  }
}

function keyOf({ localPort, remoteAddress, remotePort }: Socket): string {
  return `${localPort} ${remoteAddress} ${remotePort}`;
}
