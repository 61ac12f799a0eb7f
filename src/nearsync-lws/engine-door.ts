// The machines' door on the real engine. Groups have their owner's uuid there and a pool and a name here.
//
// - An empty cursor of the engine is the end: of a staged batch it says that all chunks are in and only the commit is
//   missing, so its delta is one empty last chunk, which the replica's side lets go.
// - A first sync has base 0 there, null here.
// - The moment of a cut is taken before it, so that a lag is never told shorter than it is. The engine keeps wall time;
//   where this process did not cut the point itself, time since boot is reckoned back from that.

import { HoldfastError } from "../io-path/errors.js";
import { Headers } from "../io-path/headers.js";
import { History, timeNsOf, wallNsOf, wallOf } from "../io-path/history.js";
import { Replication } from "../io-path/replica.js";
import type { Delta } from "../io-path/replica.js";
import { chainText } from "./header-store.js";
import type { HeaderStore } from "./header-store.js";
import { CHUNK_BYTES_MAX, CHUNK_RAW_BYTES_MAX, POINTS_REMEMBERED_MAX } from "./limits.js";
import type { Door, DoorAnswers, DoorCall, Point } from "./machines/door.js";
import type { Clock } from "./seams.js";

/** Where a group lies here. */
export interface Place {
  /** The pool's number, which holds in every thread of the process. */
  pool: number;
  /** Of the group. */
  name: string;
}

export interface EngineDoorOptions {
  clock: Clock;
  /** Keeps what owners of replicas here tell ahead. */
  headers: HeaderStore;
  /** Finds the replica of a group, or makes it. */
  place: (wanted: { group: string; peer: string; description: Uint8Array }) => Promise<Place>;
}

interface Local {
  place: Place;
  replication: Replication;
  history: History;
  headers: Headers;
  /** Points that were cut here, by LSN, oldest first; a repeated cut has the later moment. */
  points: Map<number, Point>;
}

type Handlers = {
  [C in DoorCall["call"]]: (call: Extract<DoorCall, { call: C }>) => Promise<DoorAnswers[C]>;
};

const NONE = new Uint8Array(0);

export class EngineDoor {
  readonly #options: EngineDoorOptions;
  readonly #locals = new Map<string, Local>();
  /** Null: nothing is left of it but its end. */
  readonly #deltas = new Map<number, Delta | null>();
  readonly #running = new Set<Promise<unknown>>();
  #newestDelta = 0;

  constructor(options: EngineDoorOptions) {
    this.#options = options;
  }

  /** From now on the group is found there. */
  set(group: string, place: Place): void {
    const { pool, name } = place;
    const before = this.#locals.get(group);
    if (before?.place.pool === pool && before.place.name === name) return;
    const [replication, history, headers] = [new Replication(pool), new History(pool), new Headers(pool)];
    this.#locals.set(group, { place, replication, history, headers, points: new Map() });
  }

  /** `NotFound` where no group of this name is known, or not yet. */
  place(group: string): Place {
    return this.#at(group).place;
  }

  readonly call: Door = <C extends DoorCall["call"]>(call: Extract<DoorCall, { call: C }>) => {
    const run = this.#handlers[call.call] as (given: typeof call) => Promise<DoorAnswers[C]>;
    const running = run(call).finally(() => this.#running.delete(running));
    this.#running.add(running);
    return running;
  };

  /** The group is not to be found any more; fulfils when nothing that was asked for until now runs in the engine. */
  async forget(group: string): Promise<void> {
    this.#locals.delete(group);
    await Promise.allSettled([...this.#running]);
  }

  /** Fulfils when nothing runs in the engine any more, and no batch is open. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#running]);
    for (const delta of this.#deltas.values()) delta?.close();
    this.#deltas.clear();
  }

  readonly #handlers: Handlers = {
    cut: ({ group }) => this.#cut(group),
    deltaOpen: (call) => this.#open(call),
    deltaNext: ({ delta, bytesMax }) => this.#next(delta, bytesMax),
    deltaClose: async ({ delta }) => {
      this.#deltas.get(delta)?.close();
      this.#deltas.delete(delta);
      return null;
    },
    follow: (call) => this.#follow(call),
    replicaCreate: async ({ group, peer, description }) => {
      this.set(group, await this.#options.place({ group, peer, description }));
      return null;
    },
    replicaState: ({ group }) => this.#state(group),
    stage: async ({ group, chunk, cursor }) => {
      // What ends a batch of which everything was staged already.
      if (chunk.length === 0) return null;
      const { replication, place } = this.#at(group);
      await replication.stage(place.name, chunk, Buffer.from(cursor, "hex"));
      return null;
    },
    commit: async ({ group, epochId, target }) => {
      const { replication, place } = this.#at(group);
      const { lsn, name, timeNs } = target;
      await replication.complete(place.name, BigInt(`0x${epochId}`), {
        lsn: BigInt(lsn),
        name,
        ...wallOf(timeNs),
      });
      (await this.#options.headers.of(group)).release(lsn);
      return null;
    },
    headers: (call) => this.#tell(call),
    headersKeep: async ({ group, epochId, frames }) => {
      const file = await this.#options.headers.of(group);
      return await file.keep(frames, BigInt(`0x${epochId}`));
    },
    headersBeat: async ({ group, newest, timeNs }) => {
      (await this.#options.headers.of(group)).beat({ newest, timeNs });
      return null;
    },
  };

  #at(group: string): Local {
    const local = this.#locals.get(group);
    if (local === undefined) throw new HoldfastError("NotFound", `group ${group} is not here`);
    return local;
  }

  async #cut(group: string): Promise<Point> {
    const { replication, place, points } = this.#at(group);
    const { clock } = this.#options;
    const [timeNs, bootNs] = [clock.wallNs(), clock.bootNs()];
    const { lsn: exactly, wallSeconds, wallNanoseconds, name } = await replication.cut(place.name);
    const lsn = Number(exactly);
    const wall = wallNsOf({ wallSeconds, wallNanoseconds });
    points.delete(lsn);
    points.set(lsn, { lsn, name, timeNs: wall, bootNs });
    const [oldest] = points.keys();
    if (oldest !== undefined && points.size > POINTS_REMEMBERED_MAX) points.delete(oldest);
    return { lsn, name, timeNs, bootNs };
  }

  /** `NotFound` where it is not kept any more, `Conflict` where it never was. */
  async #point({ points, history, place }: Local, lsn: number): Promise<Point> {
    const known = points.get(lsn);
    if (known !== undefined) return known;
    const found = await history.exactly(place.name, lsn).catch((error: unknown) => {
      if (!(error instanceof HoldfastError) || error.code !== "Invalid") throw error;
      // It lies in the future: somebody has what this owner never did, or lost.
      throw new HoldfastError("Conflict", `LSN ${lsn} is not in this history: ${error.message}`);
    });
    if (found === null) throw new HoldfastError("NotFound", `recovery point ${lsn} is not kept any more`);
    const { clock } = this.#options;
    const timeNs = timeNsOf(found);
    const age = clock.wallNs() - timeNs;
    const [now, since] = [clock.bootNs(), age > 0n ? age : 0n];
    return { lsn, name: found.name, timeNs, bootNs: now > since ? now - since : 0n };
  }

  async #open(call: Extract<DoorCall, { call: "deltaOpen" }>): Promise<DoorAnswers["deltaOpen"]> {
    const { group, base, target, cursor } = call;
    const local = this.#at(group);
    const to = await this.#point(local, target);
    const from = base === null ? null : await this.#point(local, base);
    const start = cursor === null ? NONE : Buffer.from(cursor, "hex");
    const whole = cursor === "";
    const { replication, place } = local;
    const opened = whole
      ? null
      : await replication.openDelta(place.name, BigInt(base ?? 0), BigInt(target), start);
    this.#newestDelta += 1;
    this.#deltas.set(this.#newestDelta, opened);
    return { delta: this.#newestDelta, base: from, target: to };
  }

  async #next(delta: number, bytesMax: number): Promise<DoorAnswers["deltaNext"]> {
    const open = this.#deltas.get(delta);
    if (open === undefined) throw new HoldfastError("Closed", `no batch ${delta}: it was closed`);
    const part = await open?.next(Math.min(bytesMax, CHUNK_RAW_BYTES_MAX));
    if (part == null) return { chunk: NONE, cursor: "", done: true };
    const { chunk, cursor } = part;
    if (chunk.length > CHUNK_BYTES_MAX) {
      throw new HoldfastError(
        "Internal",
        `a chunk has ${chunk.length} bytes, at most ${CHUNK_BYTES_MAX} fit`,
      );
    }
    return { chunk, cursor: Buffer.from(cursor).toString("hex"), done: cursor.length === 0 };
  }

  /** Mostly nothing is new: that is seen without a thread of the engine. */
  async #tell(call: Extract<DoorCall, { call: "headers" }>): Promise<DoorAnswers["headers"]> {
    const { group, from, chain, bytesMax, summarize } = call;
    const { headers, place } = this.#at(group);
    const newest = Number(headers.newest(place.name));
    if (newest < from) return { newest, frame: null };
    const previous = chain === null ? null : BigInt(`0x${chain}`);
    const told = await headers.next(place.name, { from: BigInt(from), previous, bytesMax, summarize });
    if (told === null) return { newest, frame: null };
    const frame = { bytes: told.bytes, last: Number(told.last), chain: chainText(told.chain) };
    return { newest: Number(told.newest), frame };
  }

  async #follow(call: Extract<DoorCall, { call: "follow" }>): Promise<null> {
    const { group, follower, lsn, ifNone } = call;
    const { replication, place } = this.#at(group);
    if (lsn === null) {
      await replication.forgetFollower(place.name, follower);
      return null;
    }
    const known = (await replication.followers(place.name)).find(({ name }) => name === follower);
    if (known !== undefined && (ifNone || known.lsn >= BigInt(lsn))) return null;
    await replication.followerHas(place.name, follower, BigInt(lsn));
    return null;
  }

  async #state(group: string): Promise<DoorAnswers["replicaState"]> {
    const { replication, place } = this.#at(group);
    const state = await replication.state(place.name);
    if (state?.isReplica !== true) {
      throw new HoldfastError(
        "Fenced",
        `${place.name} is no replica any more: it was promoted here`,
        "the former owner can come back as its follower",
      );
    }
    const { lineage, lsn, staging } = state;
    const headers = await this.#options.headers.of(group);
    headers.release(Number(lsn));
    return {
      headers: headers.mark,
      epochId: epochIdOf(lineage),
      last: lsn === 0n ? null : Number(lsn),
      staging:
        staging === null
          ? null
          : {
              base: staging.base === 0n ? null : Number(staging.base),
              target: Number(staging.target),
              cursor: Buffer.from(staging.cursor).toString("hex"),
            },
    };
  }
}

/** A lineage as the wire has it. */
export function epochIdOf(lineage: bigint): string {
  return lineage.toString(16).padStart(16, "0");
}

/** The same, back. */
export function lineageOf(epochId: string): bigint {
  return BigInt(`0x${epochId}`);
}

/** The uuid that a group has on the wire. */
export function uuidOf(group: string): string {
  return group.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** A group's uuid as the wire has it. */
export function groupIdOf(uuid: string): string {
  return uuid.replaceAll("-", "");
}
