// One session with each peer, kept up: calls those that have an address, takes those that call, and drops the second of
// two that meet halfway.
//
// - Of two sessions with one peer the one that the daemon with the lower fingerprint called stays; of two that one
//   daemon called, the newer. Both ends decide alike, so one stays.
// - `setPeers` ends the sessions of those that are no peers any more before it returns.

import { parseAddress } from "../address.js";
import type { Fingerprint, Identity } from "../identity.js";
import { retryAfterMs } from "../machines/retry.js";
import type { Peer } from "../peers.js";
import type { Clock, Rng } from "../seams.js";
import { runSession } from "./alive.js";
import type { Work } from "./alive.js";
import { dial } from "./dialer.js";
import type { Self } from "./handshake.js";
import type { Session } from "./session.js";

export interface LinkState {
  fingerprint: Fingerprint;
  connected: boolean;
  /** Why not. */
  reason: string;
}

export interface SessionsOptions {
  identity: Identity;
  fingerprint: Fingerprint;
  self: Self;
  clock: Clock;
  rng: Rng;
  begin: (session: Session) => Work;
  changed: (state: LinkState) => void;
}

interface Link {
  peer: Peer;
  current: Session | undefined;
  roundTripMs: number | null;
  failures: number;
  /** Which of its addresses is next. */
  next: number;
  cancelRetry: () => void;
  abort: AbortController | undefined;
}

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #links = new Map<Fingerprint, Link>();

  constructor(options: SessionsOptions) {
    this.#options = options;
  }

  /** The current session with a peer. */
  with(fingerprint: Fingerprint): Session | undefined {
    return this.#links.get(fingerprint)?.current;
  }

  /** Of the newest heartbeat; null: none was answered yet. */
  roundTripMs(fingerprint: Fingerprint): number | null {
    return this.#links.get(fingerprint)?.roundTripMs ?? null;
  }

  setPeers(peers: readonly Peer[]): void {
    for (const [fingerprint, link] of this.#links) {
      if (peers.some((peer) => peer.fingerprint === fingerprint)) continue;
      this.#links.delete(fingerprint);
      link.cancelRetry();
      link.abort?.abort();
      link.current?.close("it is no peer any more");
    }
    for (const peer of peers) {
      const link = this.#links.get(peer.fingerprint);
      if (link === undefined) this.#start(peer);
      else this.#update(link, peer);
    }
  }

  /** A session that was made, by either side. */
  offer(session: Session): void {
    const link = this.#links.get(session.peer.fingerprint);
    if (link === undefined) return session.close("it is no peer any more");
    const before = link.current;
    if (before !== undefined && !this.#replaces(session, before)) {
      return session.close("another session with this peer is up");
    }
    link.current = session;
    link.failures = 0;
    link.cancelRetry();
    before?.close("a newer session took its place");
    this.#run(link, session);
    this.#options.changed({ fingerprint: link.peer.fingerprint, connected: true, reason: "" });
  }

  close(): void {
    this.setPeers([]);
  }

  #replaces(fresh: Session, before: Session): boolean {
    const low = this.#options.fingerprint < fresh.peer.fingerprint;
    return fresh.dialed === low || before.dialed !== low;
  }

  #start(peer: Peer): void {
    const link: Link = {
      peer,
      current: undefined,
      roundTripMs: null,
      failures: 0,
      next: 0,
      cancelRetry: () => undefined,
      abort: undefined,
    };
    this.#links.set(peer.fingerprint, link);
    this.#call(link);
  }

  #update(link: Link, peer: Peer): void {
    const moved = peer.addresses.join() !== link.peer.addresses.join();
    link.peer = peer;
    if (!moved || link.current !== undefined) return;
    link.cancelRetry();
    link.abort?.abort();
    link.next = 0;
    this.#call(link);
  }

  #call(link: Link): void {
    const text = link.peer.addresses[link.next % Math.max(1, link.peer.addresses.length)];
    if (text === undefined || link.current !== undefined || link.abort !== undefined) return;
    const abort = new AbortController();
    link.abort = abort;
    const { identity, self } = this.#options;
    dial({ identity, peer: link.peer, address: parseAddress(text), self, signal: abort.signal })
      .then(
        (session) => {
          link.abort = undefined;
          if (this.#links.get(link.peer.fingerprint) === link) this.offer(session);
          else session.close("it is no peer any more");
        },
        (error: Error) => {
          if (link.abort === abort) link.abort = undefined;
          this.#failed(link, error.message);
        },
      )
      .catch((error: unknown) => {
        throw error;
      });
  }

  #failed(link: Link, reason: string): void {
    if (this.#links.get(link.peer.fingerprint) !== link || link.current !== undefined) return;
    if (link.abort !== undefined) return;
    const { clock, rng, changed } = this.#options;
    link.failures += 1;
    link.next += 1;
    changed({ fingerprint: link.peer.fingerprint, connected: false, reason });
    link.cancelRetry();
    link.cancelRetry = clock.after(retryAfterMs(link.failures, rng()), () => this.#call(link));
  }

  #run(link: Link, session: Session): void {
    runSession(session, {
      clock: this.#options.clock,
      work: this.#options.begin(session),
      roundTrip: (ms) => {
        link.roundTripMs = ms;
      },
      closed: (reason) => {
        if (link.current !== session) return;
        link.current = undefined;
        link.roundTripMs = null;
        this.#failed(link, reason);
      },
    });
  }
}
