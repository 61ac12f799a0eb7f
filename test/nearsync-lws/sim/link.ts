// Sessions between two sites over simulated sockets: each direction of each socket in order, with delays of its own, so
// that control and bulk overtake each other. A direction can be cut; then nothing comes, and nobody is told.

import type { Pipe } from "../../../src/nearsync-lws/replication/pipe.js";
import type { Running } from "../../../src/nearsync-lws/transport/alive.js";
import type { Chunk } from "../../../src/nearsync-lws/wire/chunk.js";
import { decodeMessage, encodeMessage } from "../../../src/nearsync-lws/wire/control.js";
import type { Body, Message, MessageType } from "../../../src/nearsync-lws/wire/control.js";
import { HoldfastError } from "../../../src/io-path/errors.js";
import { Violation } from "./world.js";
import type { Host, World } from "./world.js";

export interface LinkQuality {
  latencyMs: number;
  bytesPerMs: number;
  /** Of chunks that a middleman who broke TLS would drop, repeat or swap. */
  tamper: number;
}

/** Which directions are cut, by `FROM>TO`. */
export type Cuts = Set<string>;

/** One direction of one socket. */
interface Way {
  freeAtMs: number;
  arrivesAtMs: number;
  waiting: (() => void)[];
}

function newWay(): Way {
  return { freeAtMs: 0, arrivesAtMs: 0, waiting: [] };
}

type Handlers = Parameters<Running["attach"]>[0];

export class End implements Running, Pipe {
  closed: string | undefined;
  other!: End;
  #handlers: Handlers | undefined;
  readonly counters = { bulkSent: 0, bulkReceived: 0 };
  #isHole = false;
  #sent = 0;
  #received = 0;
  readonly #ways = { control: newWay(), bulk: newWay() };

  constructor(
    readonly world: World,
    readonly host: Host,
    readonly quality: LinkQuality,
    readonly cuts: Cuts,
    /** Every message goes through the real encoder and decoder. */
    readonly wire: boolean,
    /** A frame was dropped, repeated or swapped: the session has to notice. */
    readonly tampered: { yes: boolean },
  ) {}

  attach(handlers: Handlers): void {
    this.#handlers = handlers;
  }

  send<T extends MessageType>(type: T, body: Body<T>): void {
    if (this.closed !== undefined) return;
    const number = this.#sent;
    this.#sent += 1;
    const frame = this.wire ? encodeMessage(type, number, body) : undefined;
    this.#transmit("control", frame?.length ?? 60, () => {
      this.other.#take(() => {
        const { other } = this;
        if (number !== other.#received) throw new HoldfastError("Invalid", `message ${number} out of order`);
        other.#received += 1;
        const message = frame === undefined ? ({ type, body } as Message) : decodeMessage(frame, number);
        other.#handlers?.message(message);
      });
    });
  }

  sendChunk(chunk: Chunk): void {
    if (this.closed !== undefined) return;
    const { world } = this;
    this.counters.bulkSent += chunk.payload.length;
    if (this.#isHole) return;
    const deliver = () => {
      this.other.counters.bulkReceived += chunk.payload.length;
      this.other.#take(() => this.other.#handlers?.chunk(chunk));
    };
    if (!world.chance(this.quality.tamper)) return this.#transmit("bulk", chunk.payload.length, deliver);
    this.tampered.yes = true;
    world.count("chunks dropped, repeated or swapped");
    const what = world.pick(["drop", "repeat", "late", "hole"]);
    // A firewall that forgot this connection, and not the other.
    this.#isHole = what === "hole";
    if (this.#isHole) world.count("bulk sockets dead without a word");
    if (what === "drop" || what === "hole") return;
    if (what === "repeat") {
      this.#transmit("bulk", chunk.payload.length, deliver);
      this.#transmit("bulk", chunk.payload.length, deliver);
      return;
    }
    world.at(world.between(1, 200), this.other.host, deliver);
  }

  fail(reason: string): void {
    this.#take(() => {
      throw new HoldfastError("Invalid", reason);
    });
  }

  close(reason: string): void {
    if (this.closed !== undefined) return;
    this.closed = reason;
    this.world.tell(`${this.host.name} ends the session with ${this.other.host.name}: ${reason}`);
    this.#handlers?.closed(reason);
    // The end of a connection takes the way of everything else.
    this.#transmit("control", 40, () => this.other.close("the other end closed the connection"));
  }

  /** The process is gone; the kernel of a machine that is there still says so. */
  vanish(told: boolean): void {
    this.closed ??= "killed";
    if (told) this.#transmit("control", 40, () => this.other.close("connection reset"));
  }

  #transmit(socket: "control" | "bulk", bytes: number, deliver: () => void): void {
    const { world, quality, other } = this;
    const way = this.#ways[socket];
    way.freeAtMs = Math.max(world.nowMs, way.freeAtMs) + bytes / quality.bytesPerMs;
    // A lost packet holds up one socket, not the other.
    const again = !world.calm && world.chance(0.003) ? world.between(200, 2000) : 0;
    const arrives = way.freeAtMs + quality.latencyMs * world.between(0.8, 1.5) + again;
    // In order on a socket, however the delays are drawn.
    way.arrivesAtMs = Math.max(way.arrivesAtMs, arrives);
    world.atMoment(way.arrivesAtMs, other.host, () => {
      way.waiting.push(deliver);
      if (way.waiting.length === 1) this.#drain(way);
    });
  }

  /** TCP sends again until the way is free; if the session is over by then, nobody listens. */
  #drain(way: Way): void {
    const { world, host, other, cuts } = this;
    if (cuts.has(`${host.name}>${other.host.name}`)) {
      world.count("messages held up by a cut");
      world.at(200, other.host, () => this.#drain(way));
      return;
    }
    for (const deliver of way.waiting.splice(0)) deliver();
  }

  #take(run: () => void): void {
    if (this.closed !== undefined) return;
    try {
      run();
    } catch (error) {
      if (error instanceof Violation || !(error instanceof HoldfastError)) throw error;
      this.world.demand(this.tampered.yes, () => `a session ended without a middleman: ${error.message}`);
      this.world.count("middlemen noticed");
      this.close(error.message);
    }
  }
}
