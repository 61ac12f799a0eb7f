// How far a long bench is, on standard error: a bar with the time left on a terminal, lines elsewhere.

const BAR_CHARACTERS = 20;

export class Progress {
  #done = 0;
  #total = 0;
  #startedMs = 0;
  readonly #terminal = process.stderr.isTTY === true;

  start(total: number): void {
    [this.#done, this.#total, this.#startedMs] = [0, total, performance.now()];
  }

  /** Before each step, with what it is. */
  step(words: string): void {
    const done = this.#done;
    this.#done += 1;
    const share = done / Math.max(1, this.#total);
    const filled = Math.round(share * BAR_CHARACTERS);
    const left = done === 0 ? "" : timeText(((performance.now() - this.#startedMs) / share) * (1 - share));
    if (this.#terminal) {
      const bar = `${"█".repeat(filled)}${"░".repeat(BAR_CHARACTERS - filled)}`;
      process.stderr.write(`\r\u001b[K${bar} ${Math.round(share * 100)} %${left}  ${words}`);
    } else process.stderr.write(`${done}/${this.#total}${left}  ${words}\n`);
  }

  /** A line that stays. */
  note(words: string): void {
    this.end();
    process.stderr.write(`${words}\n`);
  }

  end(): void {
    if (this.#terminal) process.stderr.write("\r\u001b[K");
  }
}

function timeText(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return ` (${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} left)`;
}
