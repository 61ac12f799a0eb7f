// Snapshots, earlier states and clones of an open pool.

import { exact, native, unwrap } from "./addon.js";
import { pathToText } from "./paths.js";

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

/** Seconds since 1970, and nanoseconds of the one that is not over. */
export interface Wall {
  wallSeconds: number;
  wallNanoseconds: number;
}

type NativeSnapshot = Exclude<Awaited<ReturnType<typeof native.pointFind>>, { failure: unknown }>;

/** ISO 8601 with nanoseconds. */
export function isoTime(seconds: number, nanoseconds: number): string {
  const whole = new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, "");
  return `${whole}.${String(nanoseconds).padStart(9, "0")}Z`;
}

const NS = 1_000_000_000n;

/** Nanoseconds since 1970 of a moment that comes in two parts. */
export function wallNsOf({ wallSeconds, wallNanoseconds }: Wall): bigint {
  return BigInt(wallSeconds) * NS + BigInt(wallNanoseconds);
}

export function wallOf(timeNs: bigint): Wall {
  return { wallSeconds: Number(timeNs / NS), wallNanoseconds: Number(timeNs % NS) };
}

/** ISO 8601 of nanoseconds since 1970. */
export function isoTimeOf(timeNs: bigint): string {
  const { wallSeconds, wallNanoseconds } = wallOf(timeNs);
  return isoTime(wallSeconds, wallNanoseconds);
}

/** The moment of a snapshot, in nanoseconds since 1970: `wallSeconds` and the fraction of `time`. */
export function timeNsOf({ wallSeconds, time }: Snapshot): bigint {
  return wallNsOf({ wallSeconds, wallNanoseconds: Number(/\.(\d{9})Z$/.exec(time)?.[1] ?? "0") });
}

function toSnapshot(point: NativeSnapshot): Snapshot {
  const { name, group, held, wallS, wallNs } = point;
  return { name, group, held, lsn: exact(point.lsn), time: isoTime(wallS, wallNs), wallSeconds: wallS };
}

/** What a snapshot holds of the past, in bytes of content, once, whatever its copies. */
export interface SnapshotSpace {
  /** Nobody else does: deleting it gives these back. */
  uniqueBytes: number;
  /** These, and what beside it only kept seconds hold, which go by themselves. */
  uniqueLastingBytes: number;
  /** What it sees, the present does not, and others hold as well. */
  sharedBytes: number;
}

/** What would be free if some snapshots went. */
export interface WouldFree {
  bytes: number;
  /** More, once the kept seconds that hold it too have gone by themselves. */
  laterBytes: number;
}

type NativeSpace = Exclude<Awaited<ReturnType<typeof native.snapshotSpace>>, { failure: unknown }>[number];

function toSpace(space: NativeSpace): SnapshotSpace {
  const uniqueBytes = exact(space.uniqueBytes);
  return {
    uniqueBytes,
    uniqueLastingBytes: exact(space.uniqueLastingBytes),
    sharedBytes: exact(space.seenBytes) - uniqueBytes,
  };
}

/** What became of one name or file between two points. */
export interface FileChange {
  kind: "added" | "removed" | "renamed" | "changed" | "attributes";
  /** From the volume's root; of the earlier state when it was removed. */
  path: Buffer;
  /** Where it was; null: it was not renamed. */
  oldPath: Buffer | null;
  inode: number;
  type: FileType;
  size: number;
  /**
   * Newest change of the inode, and its time; of a name that went, or came beside others, the newest change of its
   * directory (of the nearest above that is still there).
   */
  lsn: number;
  time: string;
  /** Who made that; null: not known. */
  actor: Actor | null;
  /** Bytes that may differ; of an added file all that hold data. */
  ranges: { offset: number; length: number }[];
}

export interface Actor {
  uid: number;
  /** Of the process; null: not known, or in another namespace. */
  pid: number | null;
  /** Name of its program, as far as the kernel keeps it; null: not known. */
  command: string | null;
}

/** A change in a feed. */
export interface FeedChange extends FileChange {
  /** LSN of the kept state that shows it first. All changes with one make a step: a set that leads to that state. */
  seenAt: number;
}

export interface FeedPage {
  /** In the order of LSNs. */
  changes: FeedChange[];
  /** What to ask with for what comes next. */
  cursor: string;
  /** LSN of the kept state up to which everything was told before; 0: none. */
  beganAt: number;
  /** The same after this page. */
  toldTo: number;
  /** There is more to be told already. */
  more: boolean;
}

export interface FeedRequest {
  /** A cursor; or where to begin: a moment that is kept, `now`, `beginning`. */
  from: string;
  /** About so many changes. */
  limit: number;
  /** How long to wait for the next change when there is none. */
  waitMs: number;
  /** What was acknowledged before the request, too, though its second is not over. */
  latest: boolean;
  /** One step to the newest state, so that each file is told once, instead of a step for each second. */
  coalesce: boolean;
}

export type FileType = "file" | "directory" | "symlink" | "other";

/** Some changes, by inode number. */
export interface DifferencePage {
  from: Snapshot;
  to: Snapshot;
  changes: FileChange[];
  /** Where the next page begins; null: this was the last one. */
  next: number | null;
}

const FILE_TYPES: Readonly<Record<number, FileType>> = { 4: "directory", 8: "file", 10: "symlink" };

export interface ListRange {
  /** Only later ones; 0: from the first on. */
  after: number;
  limit: number;
  /** With the seconds that are kept. */
  seconds: boolean;
}

type NativePage = Exclude<Awaited<ReturnType<typeof native.volumeDifference>>, { failure: unknown }>;

function toChange(change: NativePage["changes"][number]): FileChange {
  return {
    kind: change.kind as FileChange["kind"],
    path: Buffer.from(change.path),
    oldPath: change.oldPath === undefined ? null : Buffer.from(change.oldPath),
    inode: exact(change.ino),
    type: FILE_TYPES[change.fileType] ?? "other",
    size: exact(change.size),
    lsn: exact(change.lsn),
    time: isoTime(change.timeS, change.timeNs),
    actor: change.actor === undefined ? null : toActor(change.actor),
    ranges: change.ranges.map(({ offset, length }) => ({ offset: exact(offset), length: exact(length) })),
  };
}

function toActor({ uid, pid, command }: NonNullable<NativePage["changes"][number]["actor"]>): Actor {
  const name = Buffer.from(command);
  return { uid, pid: pid === 0 ? null : pid, command: name.length === 0 ? null : pathToText(name) };
}

/** One point for every so many seconds is kept for so long. */
export interface ThinStep {
  everySeconds: number;
  forSeconds: number;
}

/** What a group keeps of the past by itself, and what it holds. */
export interface Retention {
  /** Every second is kept for so long. */
  windowSeconds: number;
  /** And then these, finest first. */
  thin: ThinStep[];
  /** Bytes on drives that its history may take; null: the pool's limit alone. */
  limitBytes: number | null;
  /** Seconds back to which every second is there. */
  heldWindowSeconds: number;
  /** Age of the oldest second that is there. */
  heldOldestSeconds: number;
  /** Seconds that are kept, thinned or not, and snapshots. */
  ticks: number;
  snapshots: number;
  /** Seconds of the window that was promised went for want of space. */
  isShort: boolean;
}

/** What to change; absent: nothing. */
export interface RetentionChange {
  windowSeconds?: number | undefined;
  thin?: ThinStep[] | undefined;
  /** `none`: only the pool's. */
  limit?: { bytes: number } | { percent: number } | "none" | undefined;
}

type NativeRetention = Exclude<
  Awaited<ReturnType<typeof native.volumeList>>,
  { failure: unknown }
>[number]["retention"];

export function toRetention(retention: NativeRetention): Retention {
  const limitBytes = exact(retention.limitBytes);
  return {
    windowSeconds: exact(retention.windowS),
    thin: retention.thin.map(({ everyS, forS }) => ({
      everySeconds: exact(everyS),
      forSeconds: exact(forS),
    })),
    limitBytes: limitBytes === 0 ? null : limitBytes,
    heldWindowSeconds: exact(retention.heldWindowS),
    heldOldestSeconds: exact(retention.heldOldestS),
    ticks: retention.ticks,
    snapshots: retention.snapshots,
    isShort: retention.isShort,
  };
}

export function fromThin(steps: readonly ThinStep[]): { everyS: bigint; forS: bigint }[] {
  return steps.map(({ everySeconds, forSeconds }) => ({
    everyS: BigInt(everySeconds),
    forS: BigInt(forSeconds),
  }));
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

  /** What snapshots hold, by LSN; `Unavailable` when that would read more than so many bytes of tables. */
  async space(
    target: string,
    { after, limit, tableBytesMax }: { after: number; limit: number; tableBytesMax: number },
  ): Promise<Map<number, SnapshotSpace>> {
    const spaces = unwrap(
      await native.snapshotSpace(this.#handle, target, BigInt(after), limit, BigInt(tableBytesMax)),
    );
    return new Map(spaces.map((space) => [exact(space.lsn), toSpace(space)]));
  }

  /** What would be free if all of these were deleted. Fails as deleting one of them would. */
  async wouldFree(target: string, names: readonly string[]): Promise<WouldFree> {
    const free = unwrap(await native.snapshotWouldFree(this.#handle, target, [...names]));
    return { bytes: exact(free.bytes), laterBytes: exact(free.laterBytes) };
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

  /** What is kept without a name. What is not kept any more goes within seconds. */
  async setRetention(target: string, { windowSeconds, thin, limit }: RetentionChange): Promise<void> {
    const limits =
      limit === undefined
        ? {}
        : limit === "none"
          ? { limitBytes: 0n }
          : "bytes" in limit
            ? { limitBytes: BigInt(limit.bytes) }
            : { limitPercent: limit.percent };
    const change = {
      ...(windowSeconds === undefined ? {} : { windowS: BigInt(windowSeconds) }),
      ...(thin === undefined ? {} : { thin: fromThin(thin) }),
      ...limits,
    };
    unwrap(await native.retentionSet(this.#handle, target, change));
  }

  /** What changed in a volume between two moments (absent: now), of inodes from `first` on: about `limit` changes. */
  async difference(
    volume: string,
    span: { from: string; to?: string | undefined },
    { first, limit }: { first: number; limit: number },
  ): Promise<DifferencePage> {
    const page = unwrap(
      await native.volumeDifference(this.#handle, volume, span.from, span.to, BigInt(first), limit),
    );
    return {
      from: toSnapshot(page.from),
      to: toSnapshot(page.to),
      changes: page.changes.map(toChange),
      next: page.next === undefined ? null : exact(page.next),
    };
  }

  /** What happened to a volume. A cursor whose history has gone is `NotFound`, one of another volume `Invalid`. */
  async feed(volume: string, request: FeedRequest): Promise<FeedPage> {
    const page = unwrap(await native.volumeFeed(this.#handle, volume, request));
    return {
      changes: page.changes.map(({ change, seenAt }) => ({ ...toChange(change), seenAt: exact(seenAt) })),
      cursor: page.cursor,
      beganAt: exact(page.beganAt),
      toldTo: exact(page.toldTo),
      more: page.more,
    };
  }

  /** The kept point that words mean: a snapshot's name, a time, an LSN. */
  async find(target: string, words: string): Promise<Snapshot> {
    return toSnapshot(unwrap(await native.pointFind(this.#handle, target, words)));
  }

  /** The kept point of this LSN; null: an earlier one is the newest before it. */
  async exactly(target: string, lsn: number): Promise<Snapshot | null> {
    const found = await this.find(target, `lsn:${lsn}`);
    return found.lsn === lsn ? found : null;
  }
}
