// How far something is, for people who watch: one line on a terminal, nothing elsewhere.

import { bar, printable } from "./output.js";

const CLEAR_LINE = "\r\x1b[K";

export class Progress {
  readonly isShown = process.stderr.isTTY;
  #last = "";

  /** `part` of `whole`, which may grow. */
  tell(part: number, whole: number, what: string): void {
    const share = whole <= 0 ? 0 : Math.min(1, part / whole);
    this.#write(`${bar(part, whole)} ${Math.floor(share * 100)} %  ${printable(what)}`);
  }

  /** Where nobody knows how much there is. */
  say(what: string): void {
    this.#write(printable(what));
  }

  /** Takes the line away again. */
  end(): void {
    if (this.#last !== "") this.#write("");
  }

  #write(line: string): void {
    if (!this.isShown || line === this.#last) return;
    this.#last = line;
    process.stderr.write(`${CLEAR_LINE}${line}`);
  }
}
