// What a clone lies on, and how it comes to stand alone.

import { exact, native } from "./addon.js";
import { isoTime } from "./history.js";

export interface CloneBase {
  /** `@N`: what is left of a parent whose volumes were destroyed. */
  group: string;
  lsn: number;
  /** Of the snapshot that it was made of, while there is one; empty otherwise. */
  name: string;
  /** When that state was, ISO 8601 in UTC; null: it is kept for clones only, which note no time. */
  time: string | null;
  /** Generations below: 1 is a clone of what is no clone. */
  depth: number;
}

/** How far it is, in bytes of the records that are looked at. */
export interface Promotion {
  doneBytes: number;
  totalBytes: number;
  /** Why its newest step failed; it is tried again. Empty: it did not. */
  problem: string;
}

/** What it holds, in bytes of content, once, whatever its copies. */
export interface CloneSpace {
  /** What it has itself, of now and of its past. */
  ownBytes: number;
  /** What it shows of its ancestors. */
  sharedBytes: number;
  /** What its parent keeps of its past for this clone alone. */
  keptBytes: number;
}

type NativeVolume = Exclude<Awaited<ReturnType<typeof native.volumeList>>, { failure: unknown }>[number];

export function toCloneBase(base: NonNullable<NativeVolume["base"]>): CloneBase {
  const { group, name, depth, wallS, wallNs } = base;
  return {
    group,
    lsn: exact(base.lsn),
    name,
    time: wallS === undefined ? null : isoTime(wallS, wallNs),
    depth,
  };
}

export function toPromotion(promotion: NonNullable<NativeVolume["promotion"]>): Promotion {
  const { doneBytes, totalBytes, problem } = promotion;
  return { doneBytes: exact(doneBytes), totalBytes: exact(totalBytes), problem };
}

type NativeSpace = Exclude<Awaited<ReturnType<typeof native.cloneSpace>>, { failure: unknown }>;

export function toCloneSpace({ ownBytes, sharedBytes, keptBytes }: NativeSpace): CloneSpace {
  return { ownBytes: exact(ownBytes), sharedBytes: exact(sharedBytes), keptBytes: exact(keptBytes) };
}
