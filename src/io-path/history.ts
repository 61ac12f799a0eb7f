// Snapshots, earlier states and clones of an open pool.

import { exact, native, unwrap } from "./addon.js";

/** A snapshot, or a second that is kept. */
export interface Snapshot {
  /** Empty: a kept second. */
  name: string;
  group: string;
  lsn: number;
  /** ISO 8601, UTC, to the nanosecond. */
  time: string;
  /** Seconds since 1970. */
  wallSeconds: number;
  /** It cannot be deleted. */
  held: boolean;
}

type NativeSnapshot = Exclude<Awaited<ReturnType<typeof native.pointFind>>, { failure: unknown }>;

/** ISO 8601 with nanoseconds. */
export function isoTime(seconds: number, nanoseconds: number): string {
  const whole = new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, "");
  return `${whole}.${String(nanoseconds).padStart(9, "0")}Z`;
}

function toSnapshot(point: NativeSnapshot): Snapshot {
  const { name, group, held, wallS, wallNs } = point;
  return { name, group, held, lsn: exact(point.lsn), time: isoTime(wallS, wallNs), wallSeconds: wallS };
}

export interface ListRange {
  /** Only later ones; 0: from the first on. */
  after: number;
  limit: number;
  /** With the seconds that are kept. */
  seconds: boolean;
}

/** Where nothing else is said a target is a group, or a volume that is alone in its group. */
export class History {
  readonly #handle: number;

  constructor(handle: number) {
    this.#handle = handle;
  }

  /** Of now, or of an earlier moment that is kept still; durable when it fulfils. */
  async create(target: string, name: string, at?: string): Promise<Snapshot> {
    return toSnapshot(unwrap(await native.snapshotCreate(this.#handle, target, name, at)));
  }

  /** Oldest first. */
  async list(target: string, { after, limit, seconds }: ListRange): Promise<Snapshot[]> {
    const points = await native.snapshotList(this.#handle, target, BigInt(after), limit, seconds);
    return unwrap(points).map(toSnapshot);
  }

  /** A held one is a `Conflict`. */
  async delete(target: string, name: string): Promise<void> {
    unwrap(await native.snapshotDelete(this.#handle, target, name));
  }

  async rename(target: string, name: string, newName: string): Promise<void> {
    unwrap(await native.snapshotRename(this.#handle, target, name, newName));
  }

  async hold(target: string, name: string, held: boolean): Promise<void> {
    unwrap(await native.snapshotHold(this.#handle, target, name, held));
  }

  /** The kept point that words mean: a snapshot's name, a time, an LSN. */
  async find(target: string, words: string): Promise<Snapshot> {
    return toSnapshot(unwrap(await native.pointFind(this.#handle, target, words)));
  }
}
