// A model of the engine's door, too simple to be wrong: a log of (key, value), states as arrays, batches as lists.
//
// - What an owner wrote survives a kill; a power cut takes what no cut has flushed, and its LSNs are given again.
// - Staging is durable now and then only; a crash takes the rest. A commit is durable when it is answered, or before.

import type {
  DoorAnswer,
  DoorAnswers,
  DoorCall,
  Point,
  Staging,
} from "../../../src/nearsync-lws/machines/door.js";
import { CHUNK_BYTES_MAX, CUT_MS_MIN } from "../../../src/nearsync-lws/limits.js";
import type { ErrorCode } from "../../../src/io-path/errors.js";
import { keepHeaders, tellHeaders } from "./headers.js";
import type { HeadersModel } from "./headers.js";
import type { Host, World } from "./world.js";

export const KEYS = 24;
/** Not there. */
const NONE = 0;

export interface OwnedModel {
  epochId: string;
  /** ops[lsn - 1] */
  ops: { key: number; value: number; atMs: number }[];
  durable: number;
  /** Recovery points that were cut, and the state at each. */
  points: Map<number, Point>;
  /** For each follower the LSN from which on history is kept for it. */
  marks: Map<string, number>;
  lastCutMs: number;
  /** Of the site, at the last cut. */
  life: number;
}

export interface ReplicaModel {
  epochId: string | null;
  last: number | null;
  /** What readers see. */
  visible: number[];
  staged: { staging: Staging; entries: [number, number][]; begun: boolean } | null;
  /** What a crash leaves of it. */
  kept: { staging: Staging; entries: [number, number][]; begun: boolean } | null;
  headers: HeadersModel;
}

interface Delta {
  entries: [number, number][];
  sizes: number[];
  next: number;
}

/** What a seeded bug of the engine changes. */
export interface EngineBugs {
  cutWithoutFlush?: boolean;
  dropTombstones?: boolean;
}

class Refused extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
  }
}

export class Engine {
  readonly owned = new Map<string, OwnedModel>();
  readonly replicas = new Map<string, ReplicaModel>();
  readonly #deltas = new Map<number, Delta>();
  #newestDelta = 0;
  /** Until then the drives are full. */
  fullUntilMs = 0;
  /** Snapshots that are gone, `GROUP LSN`. */
  readonly deleted = new Set<string>();
  /** Called after each commit. */
  committed: (group: string, from: number, replica: ReplicaModel) => void = () => undefined;

  constructor(
    readonly world: World,
    readonly host: Host,
    readonly bugs: EngineBugs,
  ) {}

  /** The door, with answers that come later. */
  readonly port = <C extends DoorCall["call"]>(
    call: Extract<DoorCall, { call: C }>,
    done: (answer: DoorAnswer<C>) => void,
  ): void => {
    const { world, host } = this;
    const slow = !world.calm && world.chance(0.02) ? world.between(200, 3000) : world.between(0.1, 8);
    world.at(slow, host, () => {
      let answer: DoorAnswer<C>;
      try {
        answer = { ok: true, value: this.#run(call) as DoorAnswers[C] };
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        answer = { ok: false, code: error.code, message: error.message };
      }
      // Done, and its answer is on the way: a crash in between is one that nobody heard of.
      world.at(world.between(0.01, 1), host, () => done(answer));
    });
  };

  write(group: string, key: number, value: number): void {
    this.owned.get(group)?.ops.push({ key, value, atMs: this.world.nowMs });
  }

  /** A snapshot: a named point of now, durable. Undefined: there is nothing yet that it could be of. */
  snapshot(group: string, name: string): Point | undefined {
    const owned = this.owned.get(group);
    if (owned === undefined || owned.ops.length === 0) return undefined;
    const lsn = owned.ops.length;
    owned.durable = lsn;
    const ns = BigInt(Math.round(this.world.nowMs * 1e6));
    const point = { lsn, name, timeNs: ns, bootNs: ns };
    owned.points.set(lsn, point);
    return point;
  }

  /** `power`: what was not flushed goes. */
  crash(power: boolean): void {
    this.#deltas.clear();
    for (const [group, owned] of this.owned) {
      if (!power || owned.ops.length === owned.durable) continue;
      this.world.count("writes lost with the power");
      this.world.tell(`${group} loses LSN ${owned.durable + 1} to ${owned.ops.length}`);
      owned.ops.length = owned.durable;
    }
    for (const replica of this.replicas.values()) replica.staged = replica.kept;
  }

  #run(call: DoorCall): DoorAnswers[DoorCall["call"]] {
    switch (call.call) {
      case "cut":
        return this.#cut(call.group);
      case "deltaOpen":
        return this.#open(call);
      case "deltaNext":
        return this.#next(call.delta, call.bytesMax);
      case "deltaClose":
        this.#deltas.delete(call.delta);
        return null;
      case "follow":
        return this.#follow(call);
      case "replicaCreate":
        return this.#create(call.group);
      case "replicaState": {
        const { epochId, last, staged, headers } = this.#replica(call.group);
        return {
          epochId,
          last,
          staging: staged?.begun === true ? staged.staging : null,
          headers: headers.marks.at(-1) ?? null,
        };
      }
      case "headers":
        return this.#headers(call);
      case "headersKeep": {
        const { headers } = this.#replica(call.group);
        for (const frame of call.frames) {
          const kept = keepHeaders(headers, frame, call.epochId);
          if (kept === null) throw new Refused("Conflict", "headers that do not continue what is here");
          this.world.count("frames of headers");
        }
        return headers.marks.at(-1) ?? null;
      }
      case "headersBeat":
        return null;
      case "stage":
        return this.#stage(call);
      case "commit":
        return this.#commit(call);
    }
  }

  #headers(call: Extract<DoorCall, { call: "headers" }>): DoorAnswers["headers"] {
    if (!this.world.calm && this.world.chance(0.002)) throw new Refused("Unavailable", "too many calls");
    const told = tellHeaders(this.#owner(call.group), call);
    if (told.frame !== null && told.frame.last < told.newest) this.world.count("headers in parts");
    return told;
  }

  #owner(group: string): OwnedModel {
    const owned = this.owned.get(group);
    if (owned === undefined) throw new Refused("NotFound", `no group ${group}`);
    return owned;
  }

  #replica(group: string): ReplicaModel {
    const replica = this.replicas.get(group);
    if (replica === undefined) throw new Refused("NotFound", `no replica of ${group}`);
    return replica;
  }

  #cut(group: string): Point {
    const owned = this.#owner(group);
    const { world } = this;
    const lsn = owned.ops.length;
    if (this.bugs.cutWithoutFlush !== true) owned.durable = lsn;
    // An LSN stays what it was: its later cut has the later times.
    const ns = BigInt(Math.round(world.nowMs * 1e6));
    const name = owned.points.get(lsn)?.name ?? "";
    const point = { lsn, name, timeNs: ns, bootNs: ns };
    if (owned.points.has(lsn)) world.count("cuts without a change");
    owned.points.set(lsn, point);
    const since = world.nowMs - owned.lastCutMs;
    world.demand(
      since >= CUT_MS_MIN || owned.life !== this.host.life,
      () => `${group} is cut after ${since} ms`,
    );
    owned.lastCutMs = world.nowMs;
    owned.life = this.host.life;
    return point;
  }

  #open({ group, base, target, cursor }: Extract<DoorCall, { call: "deltaOpen" }>): DoorAnswers["deltaOpen"] {
    const owned = this.#owner(group);
    const to = owned.points.get(target);
    const from = base === null ? null : owned.points.get(base);
    if (from === undefined) throw new Refused("Conflict", `LSN ${base} is not of this history`);
    const isNamed = to !== undefined && to.name !== "";
    const isNewest = target === Math.max(...owned.points.keys());
    const kept = isNamed || isNewest || [...owned.marks.values()].some((mark) => mark <= target);
    // A batch that was cut off may find its target thinned; a snapshot may be deleted before its turn.
    const deleted = isNamed && this.world.chance(0.02);
    if (deleted) this.deleted.add(`${group} ${target}`);
    const thinned = deleted || (cursor !== null && this.world.chance(0.1));
    if (to === undefined || !kept || thinned) {
      this.world.count("targets that are not kept any more");
      throw new Refused("NotFound", `LSN ${target} is not kept`);
    }
    const entries = this.#difference(owned, base ?? 0, target);
    const next = cursor === null ? 0 : Number.parseInt(cursor, 16);
    if (next > entries.length) throw new Refused("NotFound", "a cursor of another delta");
    if (cursor !== null) this.world.count("batches resumed inside");
    if (base === null) this.world.count("first syncs");
    const large = this.world.chance(0.1) ? 1 : 0.03;
    const sizes = entries.map(() =>
      this.world.chance(large) ? CHUNK_BYTES_MAX : this.world.whole(64, 2048),
    );
    this.#newestDelta += 1;
    this.#deltas.set(this.#newestDelta, { entries, sizes, next });
    return { delta: this.#newestDelta, base: from, target: to };
  }

  /** Keys whose newest version at or below the target is above the base. */
  #difference(owned: OwnedModel, base: number, target: number): [number, number][] {
    const changed = new Map<number, number>();
    for (let lsn = base + 1; lsn <= target; lsn += 1) {
      const op = owned.ops[lsn - 1];
      if (op !== undefined) changed.set(op.key, op.value);
    }
    const entries = [...changed].sort(([left], [right]) => left - right);
    if (this.bugs.dropTombstones === true) return entries.filter(([, value]) => value !== NONE);
    return entries;
  }

  #next(id: number, bytesMax: number): DoorAnswers["deltaNext"] {
    // A fault as the others: each costs a wait, so some in a row are more than the quiet at the end has time for.
    if (!this.world.calm && this.world.chance(0.005)) {
      this.world.count("drives that did not answer");
      throw new Refused("Unavailable", "a drive does not answer");
    }
    const delta = this.#deltas.get(id);
    if (delta === undefined) throw new Refused("NotFound", `no delta ${id}`);
    const entry = delta.entries[delta.next];
    // Only its first bytes mean something.
    const chunk = Buffer.allocUnsafe(
      entry === undefined ? 0 : Math.min(bytesMax, delta.sizes[delta.next] ?? 8),
    );
    if (entry !== undefined) {
      chunk.writeUInt32LE(entry[0], 0);
      chunk.writeUInt32LE(entry[1], 4);
      delta.next += 1;
    }
    const done = delta.next >= delta.entries.length;
    return { chunk, cursor: delta.next.toString(16).padStart(4, "0"), done };
  }

  #follow({ group, follower, lsn, ifNone }: Extract<DoorCall, { call: "follow" }>): null {
    const { marks } = this.#owner(group);
    if (lsn === null) marks.delete(follower);
    else if (ifNone && marks.has(follower)) return null;
    else marks.set(follower, Math.max(lsn, marks.get(follower) ?? 0));
    return null;
  }

  #create(group: string): null {
    if (this.owned.has(group)) throw new Refused("Conflict", "owned here");
    if (!this.replicas.has(group)) {
      const visible = new Array<number>(KEYS).fill(NONE);
      const headers: HeadersModel = { marks: [], ops: new Map() };
      this.replicas.set(group, { epochId: null, last: null, visible, staged: null, kept: null, headers });
    }
    return null;
  }

  #stage(call: Extract<DoorCall, { call: "stage" }>): null {
    const replica = this.#replica(call.group);
    this.#requireSpace();
    const { base, target, cursor, epochId } = call;
    if (base !== replica.last)
      throw new Refused("Conflict", `a batch from ${base}, the replica is at ${replica.last}`);
    const { staged } = replica;
    const goesOn = staged?.staging.target === target && staged.staging.base === base;
    const entries = goesOn ? [...staged.entries] : [];
    const chunk = Buffer.from(call.chunk);
    if (chunk.length > 0) entries.push([chunk.readUInt32LE(0), chunk.readUInt32LE(4)]);
    replica.epochId = epochId;
    replica.staged = { staging: { base, target, cursor }, entries, begun: true };
    if (this.world.chance(0.3)) replica.kept = replica.staged;
    return null;
  }

  #commit({ group, base, target }: Extract<DoorCall, { call: "commit" }>): null {
    const replica = this.#replica(group);
    if (replica.last !== null && replica.last >= target.lsn) return null;
    this.#requireSpace();
    const { staged } = replica;
    if (staged?.staging.target !== target.lsn || staged.staging.base !== base) {
      throw new Refused("Conflict", `nothing is staged to ${target.lsn}`);
    }
    for (const [key, value] of staged.entries) replica.visible[key] = value;
    const before = replica.last ?? 0;
    this.world.demand(target.lsn > before, () => `${group}: from LSN ${before} back to ${target.lsn}`);
    replica.last = target.lsn;
    replica.staged = null;
    replica.kept = null;
    this.world.count("commits");
    this.committed(group, before, replica);
    return null;
  }

  #requireSpace(): void {
    if (this.fullUntilMs > this.world.nowMs) throw new Refused("NoSpace", "the drives are full");
  }
}

export function stateAt({ ops }: OwnedModel, lsn: number): number[] {
  const state = new Array<number>(KEYS).fill(NONE);
  for (const { key, value } of ops.slice(0, lsn)) state[key] = value;
  return state;
}
