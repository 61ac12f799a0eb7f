// Proofs that a recovery point is the same at two sites. One side leads: it asks the other for hashes of ranges, and of
// those that differ for what lies in them. Questions, answers and places are opaque, and short (64 KiB at most); each
// call is a bounded piece of work on a thread of its own.

import { exact, native, unwrap } from "./addon.js";
import { pathToText } from "./paths.js";

/** What to ask the other side, and what it should answer. */
export interface ProofLead {
  question: Uint8Array;
  answer: Uint8Array;
  /** Bytes that were read for it here, about. */
  bytes: number;
}

export interface ProofVerdict {
  /** Where the next question begins; empty: everything was compared. */
  next: Uint8Array;
  ranges: number;
  /** Records and blocks in them here. */
  entries: number;
  /** Questions for what lies in ranges that differ. */
  suspects: Uint8Array[];
}

/** One thing that a replica has otherwise than its owner. */
export interface Mismatch {
  volume: string;
  /** 0: of the volume itself. */
  inode: number;
  /** From the volume's root, as text that names bytes which are no text by `\xNN`; null: it cannot be named. */
  path: string | null;
  kind: "missing" | "extra" | "differs" | "unreadable at the replica" | "unreadable at the owner";
  /** `bytes`, `mode`, `name`, `file`, `attribute user.x` … */
  what: string;
  /** What either side has, where that is short. */
  detail: string;
  /** Of `bytes`. */
  range: { offset: number; length: number } | null;
}

export interface ProofFound {
  mismatches: Mismatch[];
  /** Keys that have to go again, for `mend`; those of several ranges may be joined. */
  mends: Uint8Array;
  /** The question for the rest of the range; null: all of it was told. */
  rest: Uint8Array | null;
  /** How far it was told: where that is behind the verdict's `next`, comparing goes on there. */
  reached: Uint8Array;
}

/** A recovery point that is being compared; it stays kept until it is closed. */
export class Proof {
  readonly #handle: number;

  private constructor(handle: number) {
    this.#handle = handle;
  }

  /** `lsn`: the owner's, of that lineage. `NotFound`: that point is not kept here (any more). */
  static async open(pool: number, group: string, point: { lineage: bigint; lsn: bigint }): Promise<Proof> {
    return new Proof(unwrap(await native.proofOpen(pool, group, point.lineage, point.lsn)));
  }

  /** The next ranges from a place on (empty: from the beginning). */
  async lead(from: Uint8Array): Promise<ProofLead> {
    return unwrap(await native.proofLead(this.#handle, from));
  }

  async answer(question: Uint8Array): Promise<Uint8Array> {
    return unwrap(await native.proofAnswer(this.#handle, question));
  }

  /** `Invalid`: `theirs` is no answer to it. */
  async compare({ question, answer }: ProofLead, theirs: Uint8Array): Promise<ProofVerdict> {
    return unwrap(await native.proofCompare(this.#handle, question, answer, theirs));
  }

  /** What differs in a suspect range, with the other side's answer to the question for it. This side is the owner. */
  async mismatches(question: Uint8Array, theirs: Uint8Array): Promise<ProofFound> {
    const found = unwrap(await native.proofMismatches(this.#handle, question, theirs));
    const mismatches = found.mismatches.map(({ inode, path, kind, offset, length, ...told }) => ({
      ...told,
      inode: exact(inode),
      path: path == null ? null : pathToText(Buffer.from(path)),
      kind: kind as Mismatch["kind"],
      range: offset == null || length == null ? null : { offset: exact(offset), length: exact(length) },
    }));
    return { ...found, mismatches, rest: found.rest ?? null };
  }

  close(): void {
    native.proofClose(this.#handle);
  }
}

/** What proofs found goes to the followers with the next batch. The recovery point at which they have it. */
export async function mend(pool: number, group: string, mends: Uint8Array): Promise<number> {
  return exact(unwrap(await native.replicaMend(pool, group, mends)));
}
