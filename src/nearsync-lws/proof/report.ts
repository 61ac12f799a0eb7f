// What a verification found, so far or in the end. It goes over the wire as JSON, and is checked when it comes from
// there.

import { z } from "zod";
import { HoldfastError } from "../../io-path/errors.js";
import type { Mismatch } from "../../io-path/proof.js";
import { PROOF_BYTES_MAX } from "../limits.js";

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const text = z.string().max(4096);

const mismatch = z.strictObject({
  volume: text,
  inode: count,
  path: z.string().max(32_768).nullable(),
  kind: z.enum(["missing", "extra", "differs", "unreadable at the replica", "unreadable at the owner"]),
  what: text,
  detail: z.string().max(32_768),
  range: z.strictObject({ offset: count, length: count }).nullable(),
});

export const reportSchema = z.strictObject({
  /** `repaired`: what differed is equal now; `stopped`: somebody ended it. */
  state: z.enum(["running", "equal", "different", "repaired", "failed", "stopped"]),
  repair: z.boolean(),
  /** The owner's recovery point that was compared; 0: none yet. */
  lsn: count,
  /** Milliseconds since 1970. */
  startedMs: count,
  endedMs: count.nullable(),
  /** Ranges, and the records and blocks in them, that were compared, and bytes that were read for it here. */
  ranges: count,
  entries: count,
  bytes: count,
  /** Differences that were found, and those that are there still. */
  found: count,
  left: count,
  /** False: it ended before the end, after more differences than it is worth listing. */
  isWhole: z.boolean(),
  /** The first of them. */
  mismatches: z.array(mismatch).max(1000),
  /** Why it failed. */
  problem: z.strictObject({ code: z.string().max(32), message: text }).nullable(),
});

export type VerifyReport = z.infer<typeof reportSchema>;

export function newReport(repair: boolean, startedMs: number): VerifyReport {
  return {
    state: "running",
    repair,
    ...{ lsn: 0, startedMs, endedMs: null, ranges: 0, entries: 0, bytes: 0, found: 0, left: 0 },
    isWhole: true,
    mismatches: [],
    problem: null,
  };
}

/** Adds what was found; bytes next to each other that differ alike become one. Null: there is no room for more. */
export function joined(list: readonly Mismatch[], more: readonly Mismatch[], most: number): Mismatch[] {
  const all = [...list];
  for (const next of more) {
    const last = all.at(-1);
    const [before, after] = [last?.range, next.range];
    const touches =
      last?.inode === next.inode && last.kind === next.kind && last.volume === next.volume && before != null;
    if (touches && after !== null && before.offset + before.length === after.offset) {
      all[all.length - 1] = { ...last, range: { ...before, length: before.length + after.length } };
    } else if (all.length < most) all.push(next);
  }
  return all;
}

/** As many of the differences as fit. */
export function encodeReport(report: VerifyReport): Buffer {
  let { mismatches } = report;
  for (;;) {
    const bytes = Buffer.from(JSON.stringify({ ...report, mismatches }));
    if (bytes.length <= PROOF_BYTES_MAX) return bytes;
    mismatches = mismatches.slice(0, mismatches.length >> 1);
  }
}

/** Null: nothing was verified. `Invalid` for what is no report. */
export function decodeReport(bytes: Uint8Array): VerifyReport | null {
  if (bytes.length === 0) return null;
  try {
    return reportSchema.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
  } catch {
    throw new HoldfastError("Invalid", "the peer's report of a verification makes no sense");
  }
}
