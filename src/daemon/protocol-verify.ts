// The part of the API that compares replicas with their owners. See protocol.ts, which has all of it for the command
// line.

import type { Mismatch } from "../io-path/proof.js";

export type { Mismatch };

export interface VerifyRequest {
  /** A group, or a volume that is alone in its group: owned here, or a replica here. */
  target: string;
  /** The other site. */
  peer: string;
  /** What differs is sent again from the owner to the replica. */
  repair: boolean;
}

/** How a comparison of a replica with its owner fares, or how it ended. */
export interface VerificationAnswer {
  group: string;
  peer: string;
  /** `repaired`: what differed is equal now; `stopped`: somebody ended it. */
  state: "running" | "equal" | "different" | "repaired" | "failed" | "stopped";
  repair: boolean;
  /** The owner's recovery point that was compared; 0: none yet. */
  lsn: number;
  started: string;
  /** Null: it runs. */
  ended: string | null;
  /** Ranges that were compared, the records and blocks in them, and about how many bytes the owner read for it. */
  ranges: number;
  entries: number;
  bytes: number;
  /** Differences that were found, and those that are there still. */
  found: number;
  left: number;
  /** False: it ended before the end, since so much differs. */
  isWhole: boolean;
  /** The first of them. */
  mismatches: Mismatch[];
  /** Why it failed; empty: it did not. */
  problem: string;
  /** When the next one is due; null: never by itself. */
  next: string | null;
}
