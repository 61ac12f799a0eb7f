// Asks peers something and waits for the answer, through sessions that come and go: what was asked in one that ended is
// asked again in the next. Every question means the same whenever it is asked.

import { HoldfastError } from "../../io-path/errors.js";
import type { ErrorCode } from "../../io-path/errors.js";
import { ANSWER_MS, RESUME_MS } from "../limits.js";
import type { Pipe } from "../replication/pipe.js";
import type { Clock } from "../seams.js";

interface Waiting {
  peer: string;
  resolve: (answer: Uint8Array) => void;
  reject: (error: unknown) => void;
}

/** What an answer says. */
export interface Answered {
  number: number;
  answer: Uint8Array;
  /** Empty: it is one. */
  code: string;
  message: string;
}

/** The session ended before an answer came. */
class Ended extends Error {}

const NUMBER_MAX = 2 ** 32 - 1;

export class Asker {
  readonly #clock: Clock;
  readonly #pipes = new Map<string, Pipe>();
  readonly #waiting = new Map<number, Waiting>();
  /** Those that wait for a session. */
  #wakes: (() => void)[] = [];
  #newest = 0;
  #isClosed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  up(peer: string, pipe: Pipe): void {
    this.#end(peer);
    this.#pipes.set(peer, pipe);
    this.#wake();
  }

  down(peer: string, pipe: Pipe): void {
    if (this.#pipes.get(peer) !== pipe) return;
    this.#pipes.delete(peer);
    this.#end(peer);
  }

  close(): void {
    this.#isClosed = true;
    for (const peer of new Set([...this.#waiting.values()].map((one) => one.peer))) this.#end(peer);
    this.#wake();
  }

  /** Where the peer can be told something that needs no answer. */
  pipe(peer: string): Pipe | undefined {
    return this.#pipes.get(peer);
  }

  /** `Unavailable`: no session for a minute. What the peer refuses with otherwise. */
  async ask(peer: string, send: (pipe: Pipe, number: number) => void): Promise<Uint8Array> {
    for (;;) {
      const pipe = this.#pipes.get(peer) ?? (await this.#session(peer));
      try {
        return await this.#once(peer, pipe, send);
      } catch (error) {
        if (!(error instanceof Ended)) throw error;
      }
    }
  }

  #once(peer: string, pipe: Pipe, send: (pipe: Pipe, number: number) => void): Promise<Uint8Array> {
    this.#newest = (this.#newest + 1) % NUMBER_MAX;
    const number = this.#newest;
    return new Promise((resolve, reject) => {
      const cancel = this.#clock.after(ANSWER_MS, () => {
        this.#waiting.delete(number);
        reject(new HoldfastError("Unavailable", `the peer did not answer within ${ANSWER_MS / 1000} s`));
      });
      const settled =
        <T>(settle: (value: T) => void) =>
        (value: T) => {
          cancel();
          settle(value);
        };
      this.#waiting.set(number, { peer, resolve: settled(resolve), reject: settled(reject) });
      send(pipe, number);
    });
  }

  /** An answer to something that nobody waits for any more is let go. */
  take(peer: string, { number, answer, code, message }: Answered): void {
    const waiting = this.#waiting.get(number);
    if (waiting?.peer !== peer) return;
    this.#waiting.delete(number);
    if (code === "") waiting.resolve(answer);
    else
      waiting.reject(
        new HoldfastError(Object.hasOwn(CODES, code) ? (code as ErrorCode) : "Internal", message),
      );
  }

  #end(peer: string): void {
    for (const [number, waiting] of this.#waiting) {
      if (waiting.peer !== peer) continue;
      this.#waiting.delete(number);
      waiting.reject(new Ended());
    }
  }

  async #session(peer: string): Promise<Pipe> {
    let late = false;
    const cancel = this.#clock.after(RESUME_MS, () => {
      late = true;
      this.#wake();
    });
    try {
      for (;;) {
        const pipe = this.#pipes.get(peer);
        if (pipe !== undefined) return pipe;
        if (this.#isClosed) throw new HoldfastError("Closed", "the daemon stops");
        if (late) {
          const message = `the peer has not been connected for ${RESUME_MS / 1000} s`;
          throw new HoldfastError("Unavailable", message, "see: holdfast peer list");
        }
        await new Promise<void>((resolve) => this.#wakes.push(resolve));
      }
    } finally {
      cancel();
    }
  }

  #wake(): void {
    const wakes = this.#wakes;
    this.#wakes = [];
    for (const wake of wakes) wake();
  }
}

/** What a peer may refuse with. */
const CODES: Readonly<Partial<Record<ErrorCode, true>>> = {
  Closed: true,
  Conflict: true,
  Corrupt: true,
  Denied: true,
  Fenced: true,
  Invalid: true,
  NoSpace: true,
  NotFound: true,
  Unavailable: true,
};
