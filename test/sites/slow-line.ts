// A line between two sites that takes its time, that can be held (what is under way arrives later) and cut (it never
// does, and nothing new gets through). It runs in the test's own process, so that a test which acts on what a daemon
// logs is always quicker than what the daemon sends after that.

import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { parseAddress } from "../../src/nearsync-lws/address.js";

export class SlowLine {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #held: (() => void)[] | undefined;
  #isCut = false;

  private constructor(to: string, delayMs: number) {
    const target = parseAddress(to);
    this.#server = createServer((near) => {
      if (this.#isCut) {
        near.destroy();
        return;
      }
      const far = connect(target.port, target.host);
      this.#join(near, far, delayMs);
      this.#join(far, near, delayMs);
    });
  }

  static async open(to: string, delayMs: number): Promise<SlowLine> {
    const line = new SlowLine(to, delayMs);
    line.#server.listen(0, "127.0.0.1");
    await once(line.#server, "listening");
    return line;
  }

  /** What is to be called in place of the other site. */
  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  #join(from: Socket, to: Socket, delayMs: number): void {
    this.#sockets.add(from);
    const later = (run: () => void) =>
      setTimeout(() => {
        if (this.#held === undefined) run();
        else this.#held.push(run);
      }, delayMs);
    from.on("data", (bytes) => later(() => to.write(bytes)));
    from.on("error", () => undefined);
    from.on("close", () => {
      this.#sockets.delete(from);
      later(() => to.destroy());
    });
  }

  hold(): void {
    this.#held ??= [];
  }

  letGo(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const run of held) run();
  }

  cut(): void {
    this.#isCut = true;
    this.#held = undefined;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#isCut = false;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
