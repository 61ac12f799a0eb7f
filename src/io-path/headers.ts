// Header streams of groups, and what is lost where one ends. Frames are opaque: what they say of themselves stands
// beside them.

import { native, unwrap } from "./addon.js";

/** A frame of a group's header stream. */
export interface HeaderFrame {
  bytes: Uint8Array;
  lineage: bigint;
  /** The LSNs that it speaks of. */
  first: bigint;
  last: bigint;
  /** The owner's newest LSN when it was made, and when that was. */
  newest: bigint;
  wallSeconds: number;
  wallNanoseconds: number;
  /** It follows the frame whose chain this is, and has this one itself. */
  previous: bigint;
  chain: bigint;
}

/** Some of what users did to a file. */
export interface LostFile {
  /** The volume's branch of the group. */
  branch: number;
  inode: bigint;
  /** As far as this site knows it; empty: it does not. */
  path: Uint8Array;
  ops: number;
  bytes: number;
  /** Of the ops. */
  fsynced: number;
}

/** What users did between two LSNs, added up; *fsynced*: what they were promised to be durable. */
export interface Loss {
  first: bigint;
  last: bigint;
  /** The newest LSN that is known of, and when that was. */
  newest: bigint;
  wallSeconds: number;
  wallNanoseconds: number;
  ops: number;
  bytes: number;
  files: number;
  fsyncedOps: number;
  fsyncedBytes: number;
  fsyncedFiles: number;
  /** False: the sums are bounds. */
  isExact: boolean;
  /** Twenty of the files at most: fsynced ones first, then by bytes. */
  named: LostFile[];
}

export interface HeaderRequest {
  from: bigint;
  /** The chain of the frame before; null: the stream begins. */
  previous: bigint | null;
  /** 512 to 48 KiB. */
  bytesMax: number;
  /** Where not all that is new fits: a summary of all of it, instead of the first part. */
  summarize: boolean;
}

type NativeFrame = Exclude<ReturnType<typeof native.headersCheck>, { failure: unknown }>;
type NativeLoss = Exclude<Awaited<ReturnType<typeof native.lossOfLog>>, { failure: unknown }>;

function toFrame({ wallS, wallNs, ...frame }: NativeFrame): HeaderFrame {
  return { ...frame, wallSeconds: wallS, wallNanoseconds: wallNs };
}

function toLoss({ wallS, wallNs, ...loss }: NativeLoss): Loss {
  return { ...loss, wallSeconds: wallS, wallNanoseconds: wallNs };
}

/** `Corrupt`: it is no frame. */
export function checkHeaders(frame: Uint8Array): HeaderFrame {
  return toFrame(unwrap(native.headersCheck(frame)));
}

/** The chain that a stream of this lineage begins with at an LSN. */
export function headersStart(lineage: bigint, first: bigint): bigint {
  return native.headersStart(lineage, first);
}

/** Frames of what came after `above`, in order, as one summary; null: there are none. */
export async function foldHeaders(above: bigint, frames: Uint8Array[]): Promise<HeaderFrame | null> {
  const folded = unwrap(await native.headersFold(above, frames));
  return folded === null ? null : toFrame(folded);
}

export class Headers {
  readonly #pool: number;

  constructor(pool: number) {
    this.#pool = pool;
  }

  /** LSN of the newest op, durable or not: a look that waits for nobody. */
  newest(group: string): bigint {
    return unwrap(native.headersNewest(this.#pool, group));
  }

  /** The next frame of the stream; null: nothing is new that could be told yet. `Fenced` at a replica. */
  async next(
    group: string,
    { from, previous, bytesMax, summarize }: HeaderRequest,
  ): Promise<HeaderFrame | null> {
    const frame = await native.headersNext(this.#pool, group, from, previous, bytesMax, summarize);
    const told = unwrap(frame);
    return told === null ? null : toFrame(told);
  }

  /** What a replica's owner did after its recovery point `above`, as these frames tell, in order. */
  async lossOfFrames(group: string, above: bigint, frames: Uint8Array[]): Promise<Loss> {
    return toLoss(unwrap(await native.lossOfFrames(this.#pool, group, above, frames)));
  }

  /** What a group of this site did itself after `above`, up to `until`, as its log tells. */
  async lossOfLog(group: string, above: bigint, until: bigint): Promise<Loss> {
    return toLoss(unwrap(await native.lossOfLog(this.#pool, group, above, until)));
  }
}
