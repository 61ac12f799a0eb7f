// Versions of a place, and the names that a directory had: both read from the spans in which nothing changed.

import { closeSync, lstatSync, readdirSync } from "node:fs";
import type { BigIntStats } from "node:fs";
import { fromBuffer } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import type { History } from "./points.js";
import { kindOf } from "./restore.js";
import type { Kind } from "./restore.js";
import { STAGING_PREFIX } from "./staging.js";
import { inode, inside, walk } from "./walk.js";
import type { Look } from "./walk.js";
import { whoChanged } from "./writer.js";
import type { Writer } from "./writer.js";

const NS_PER_S = 1_000_000_000n;

/** What made a version of the one before it. `first`: that one is not kept. */
export type Change = "first" | "created" | "content" | "attributes" | "deleted" | "denied";

export interface Attributes {
  kind: Kind;
  size: number;
  /** ISO 8601, UTC, to the nanosecond. */
  mtime: string;
  /** Octal. */
  mode: string;
  uid: number;
  gid: number;
}

export interface Version {
  state: Look["state"];
  change: Change;
  /** It is what is there now. */
  now: boolean;
  /** The first and the last kept point that show it; null: none does, it is newer than all. */
  from: string | null;
  to: string | null;
  attributes: Attributes | null;
  /**
   * Who made it; null: not known. Of what was deleted, who changed the directory last in the second in which it went.
   */
  writer: Writer | null;
  /** False: it was there once, but what it was is not held any more, at no kept point. */
  held: boolean;
  /** When it was made, if it is not held. */
  since: string | null;
}

/** Newest first; without a `limit` all. */
export function versionsOf(history: History, limit = Infinity): Version[] {
  const found: Version[] = [];
  let newer: { first: number; last: number; look: Look } | undefined;
  for (const [first, last] of history.spans()) {
    const look = history.at(last);
    if (newer !== undefined && isSame(look, newer.look)) {
      newer.first = first;
      continue;
    }
    if (newer !== undefined) found.push(toVersion(history, newer, look));
    if (found.length >= limit) return found;
    newer = { first, last, look };
  }
  if (newer === undefined) return found;
  found.push(toVersion(history, newer, undefined));
  const lost = notHeld(newer.look);
  if (lost !== undefined && found.length < limit) found.push(lost);
  return found;
}

/**
 * What there was before the oldest version that is kept: the file is older than the change that made it, by more than
 * a moment, so that a second would show it if it were kept.
 */
function notHeld({ stats }: Look): Version | undefined {
  if (stats === undefined || stats.birthtimeNs <= 0n || stats.ctimeNs - stats.birthtimeNs < NS_PER_S)
    return undefined;
  const nothing = { now: false, from: null, to: null, attributes: null, writer: null } as const;
  return { state: "there", change: "created", ...nothing, held: false, since: isoTime(stats.birthtimeNs) };
}

/** Directories on the way, and a directory without the name, may have changed: that makes no other version. */
function isSame(one: Look, other: Look): boolean {
  if (one.state !== other.state) return false;
  const [a, b] = [one.stats, other.stats];
  return (
    a === undefined ||
    b === undefined ||
    (inode(a) === inode(b) && a.ctimeNs === b.ctimeNs && a.size === b.size)
  );
}

function toVersion(
  history: History,
  { first, last, look }: { first: number; last: number; look: Look },
  before: Look | undefined,
): Version {
  const name = (index: number) => (index < history.first ? null : (history.name(index) ?? null));
  const now = last === history.present;
  return {
    state: look.state,
    change: changeOf(look, before),
    now,
    from: name(first),
    to: now && first < last ? name(last - 1) : name(last),
    attributes: look.stats === undefined ? null : attributesOf(look.stats),
    writer: writerOf(history, look.stats === undefined ? first : last, look),
    held: true,
    since: null,
  };
}

function writerOf(history: History, index: number, { state, stats }: Look): Writer | null {
  if (state === "denied") return null;
  const note = history.withRoot(index, (root) => whoChanged(root, history.place));
  // It may have been changed again, or come back, since it was looked at.
  if (note === undefined || (stats !== undefined && note.ctimeNs !== stats.ctimeNs)) return null;
  return note.writer;
}

/**
 * Writing sets mtime; what sets only ctime changed no content. Who sets mtime back by hand after writing makes this say
 * `attributes` where the size is the same.
 */
function changeOf(look: Look, before: Look | undefined): Change {
  if (before === undefined) return "first";
  if (look.stats === undefined) return look.state === "absent" ? "deleted" : "denied";
  if (before.stats === undefined) return "created";
  const [a, b] = [look.stats, before.stats];
  const isSameContent = inode(a) === inode(b) && a.size === b.size && a.mtimeNs === b.mtimeNs;
  return isSameContent ? "attributes" : "content";
}

export function attributesOf(stats: BigIntStats): Attributes {
  return {
    kind: kindOf(stats),
    size: Number(stats.size),
    mtime: isoTime(stats.mtimeNs),
    mode: (Number(stats.mode) & 0o7777).toString(8).padStart(4, "0"),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
  };
}

function isoTime(nanoseconds: bigint): string {
  const rest = BigInt.asUintN(64, ((nanoseconds % NS_PER_S) + NS_PER_S) % NS_PER_S);
  const whole = new Date(Number((nanoseconds - rest) / 1_000_000n)).toISOString().replace(/\.\d+Z$/, "");
  return `${whole}.${String(rest).padStart(9, "0")}Z`;
}

export interface Gone {
  name: Bytes;
  /** The newest kept point at which it was there. */
  at: string;
  attributes: Attributes;
}

/** Names that the directory had at some kept point and has not now; newest first, then by name. */
export function namesGone(history: History): Gone[] {
  const seen = new Set<Bytes>();
  const found: Gone[] = [];
  for (const [, last] of history.spans()) {
    const at = history.name(last) ?? history.name(last - 1);
    const isNow = last === history.present;
    if (history.at(last).stats?.isDirectory() !== true) continue;
    history.withRoot(last, (root) => {
      const directory = walk(root, history.place);
      try {
        const names = readdirSync(inside(directory, "."), { encoding: "buffer" }).map(fromBuffer).sort();
        for (const name of names.filter((each) => !seen.has(each))) {
          seen.add(name);
          if (isNow || at === undefined || name.startsWith(STAGING_PREFIX)) continue;
          const stats = lstatSync(inside(directory, name), { bigint: true });
          found.push({ name, at, attributes: attributesOf(stats) });
        }
      } finally {
        closeSync(directory);
      }
    });
  }
  return found;
}

/** The newest kept point at which the place is there. */
export function newestThere(history: History): string | undefined {
  for (const [, last] of history.spans()) {
    if (history.at(last).state === "there") return history.name(last) ?? history.name(last - 1);
  }
  return undefined;
}
