// Who waits until a follower has a recovery point, flushed.

import { HoldfastError } from "../../io-path/errors.js";
import type { Clock } from "../seams.js";

interface Waiting {
  lsn: number;
  resolve: () => void;
  reject: (error: HoldfastError) => void;
  cancel: () => void;
}

export class Arrivals {
  readonly #clock: Clock;
  #waiting: Waiting[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `Unavailable`: not within so long. */
  wait(lsn: number, limitMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const late = () => {
        this.#waiting = this.#waiting.filter((one) => one !== waiting);
        reject(new HoldfastError("Unavailable", `the peer did not have LSN ${lsn} within ${limitMs} ms`));
      };
      const waiting = { lsn, resolve, reject, cancel: this.#clock.after(limitMs, late) };
      this.#waiting.push(waiting);
    });
  }

  /** The follower has everything up to there. */
  reached(lsn: number): void {
    const [there, rest] = [true, false].map((has) => this.#waiting.filter((one) => one.lsn <= lsn === has));
    this.#waiting = rest ?? [];
    for (const { cancel, resolve } of there ?? []) {
      cancel();
      resolve();
    }
  }

  /** The follower is gone, or does not take any more. */
  fail(why: string): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { cancel, reject } of waiting) {
      cancel();
      reject(new HoldfastError("Unavailable", why));
    }
  }
}
