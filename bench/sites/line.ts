// A narrow line, in user space: 1 MiB/s to the peer, whatever number of connections, while 10 MiB/s are changed.

import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { join } from "node:path";
import { Figures } from "../ground.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { withSites } from "./ground.js";
import type { Wishes } from "./ground.js";
import { makeFile, percentile, watching, writeSteadily } from "./writing.js";

const LINE_BYTES = 2 ** 20;
const CHANGE_MIB = 10;
const LOOK_MS = 100;
const SAY_EVERY = 200;
const TICK_MS = 5;
/** Bytes of one connection that wait in the line itself: a router has a queue, too. */
const QUEUE_BYTES = 32 * 1024;
/** Blocks are random and seldom met twice: what the writer changes is what is to be sent. */
const FILE_MIB = 1024;

/** One direction of one connection. */
interface Flow {
  from: Socket;
  to: Socket;
  waiting: Buffer[];
  bytes: number;
}

/** Passes connections on to a port; what goes there shares one rate, connection by connection in turn. */
class Line {
  readonly #flows = new Set<Flow>();
  #server: Server | undefined;
  #clock: NodeJS.Timeout | undefined;
  #tokens = 0;
  #last = 0;

  async open(port: number): Promise<number> {
    const server = createServer({ allowHalfOpen: false, noDelay: true }, (near) => this.#carry(near, port));
    this.#server = server;
    await new Promise<void>((done, fail) => server.on("error", fail).listen(0, "127.0.0.1", done));
    this.#last = performance.now();
    this.#clock = setInterval(() => this.#pour(), TICK_MS);
    return (server.address() as AddressInfo).port;
  }

  close(): void {
    clearInterval(this.#clock);
    this.#server?.close();
    for (const { from, to } of this.#flows) for (const end of [from, to]) end.destroy();
  }

  #carry(near: Socket, port: number): void {
    const far = connect({ port, host: "127.0.0.1", noDelay: true });
    const flow: Flow = { from: near, to: far, waiting: [], bytes: 0 };
    this.#flows.add(flow);
    near.on("data", (piece) => {
      flow.waiting.push(piece);
      flow.bytes += piece.length;
      if (flow.bytes > QUEUE_BYTES) near.pause();
    });
    far.pipe(near);
    const end = () => {
      this.#flows.delete(flow);
      for (const socket of [near, far]) socket.destroy();
    };
    for (const socket of [near, far]) socket.on("close", end).on("error", end);
  }

  /** A piece of each flow in turn, as long as the rate allows. */
  #pour(): void {
    const now = performance.now();
    this.#tokens = Math.min(LINE_BYTES / 10, this.#tokens + ((now - this.#last) * LINE_BYTES) / 1000);
    this.#last = now;
    for (let poured = true; poured && this.#tokens > 0;) {
      poured = false;
      for (const flow of this.#flows) {
        const [first, ...rest] = flow.waiting;
        if (first === undefined || this.#tokens <= 0) continue;
        const piece = first.subarray(0, 1500);
        flow.waiting = piece.length < first.length ? [first.subarray(1500), ...rest] : rest;
        flow.bytes -= piece.length;
        this.#tokens -= piece.length;
        flow.to.write(piece);
        if (flow.bytes <= QUEUE_BYTES) flow.from.resume();
        poured = true;
      }
    }
  }
}

export async function measureLine(place: Place, wishes: Wishes): Promise<Figure[]> {
  const figures = new Figures();
  const line = new Line();
  const making = { north: "3GiB", south: "3GiB", line: (port: number) => line.open(port) };
  try {
    await withSites(place, making, async (sites) => {
      const mount = await sites.north.addVolume("data", 2);
      const path = join(mount, "file");
      const mib = Math.min(FILE_MIB, wishes.lineSeconds * CHANGE_MIB * 2);
      // It compresses to nearly nothing: the first sync is short.
      makeFile(path, mib);
      await sites.protect("data");
      const { bytesSent: first } = await sites.caughtUp("data");
      const seconds = wishes.lineSeconds;
      const begun = performance.now();
      const work = writeSteadily(path, { mib, rate: CHANGE_MIB, seconds, seed: 3 });
      const beats: number[] = [];
      const headers: number[] = [];
      let [backlog, rpoMs] = [0, 0];
      const look = async () => {
        const told = await sites.protection("data");
        if (told.roundTripMs !== null) beats.push(told.roundTripMs);
        if (told.headers.lagMs !== null) headers.push(told.headers.lagMs);
        const elapsed = Math.min((performance.now() - begun) / 1000, seconds);
        backlog = Math.max(backlog, elapsed * CHANGE_MIB * 2 ** 20 - (told.bytesSent - first));
        rpoMs = Math.max(rpoMs, told.lag.rpoMs ?? 0);
        if (beats.length % SAY_EVERY === 1) {
          const waits = `${(backlog / 2 ** 20).toFixed(0)} MiB`;
          place.say(`${elapsed.toFixed(0)} s: RPO at most ${(rpoMs / 1000).toFixed(1)} s, backlog ${waits}`);
        }
      };
      await watching(work, LOOK_MS, look);
      const ended = performance.now();
      place.say("waiting until the peer has everything");
      await watching(sites.caughtUp("data"), LOOK_MS, look);
      const after = (performance.now() - ended) / 1000;
      // While it grows, the RPO cannot be older than the writing; it is at its most when the last batch arrives.
      const ratio = rpoMs / 1000 / (backlog / LINE_BYTES);
      figures.note("line-beat", 0, percentile(beats, 0.99), { looks: beats.length });
      figures.note("line-headers", 0, percentile(headers, 0.99), { looks: headers.length });
      figures.note("line-rpo-least", 0, 1 / ratio, { rpoMs, backlog });
      figures.note("line-rpo-most", 0, ratio);
      figures.note("line-after", 0, after / (backlog / LINE_BYTES), { after, backlog });
    });
  } finally {
    line.close();
  }
  return figures.all;
}
