// Work that must not overlap: one piece after the other, in the order in which it was handed in.

export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** A failure is its caller's alone: what comes next runs all the same. */
  take<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#last.then(run);
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** Fulfils when all that was handed in before has ended. */
  async settled(): Promise<void> {
    await this.#last;
  }
}
