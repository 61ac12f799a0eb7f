// The part of the API that has to do with other sites: peers, protections, failovers. See protocol.ts, which has all
// of it for the command line.

import type { PathJson } from "../io-path/paths.js";
import type { HeaderStatus } from "../nearsync-lws/replication/told.js";
import type { LagReport } from "../nearsync-lws/machines/lag.js";
import type { InviteState } from "../nearsync-lws/pairing/host.js";
import type { Role } from "../nearsync-lws/peers.js";
import type { VerificationAnswer } from "./protocol-verify.js";

/** Another daemon, as this one knows it. */
export interface PeerAnswer {
  name: string;
  /** SHA-256 of its public key, hexadecimal. */
  fingerprint: string;
  /** Where it is looked for, the first choice in front. */
  addresses: string[];
  /** What it may do here. */
  roles: Role[];
  /** Groups in which it may do something else. */
  groupRoles: Record<string, Role[]>;
  pairedSeconds: number;
  connected: boolean;
  /** Why it is not; empty: it is, or was not called yet. */
  problem: string;
}

/** What pairing stores of the other site. */
export interface PeerPairRequest {
  /** What this site calls it; default: what it calls itself. */
  name?: string | undefined;
  /** What it may do here; default: replica-write, read, may-own. */
  roles?: Role[] | undefined;
}

export interface PeerInviteRequest extends PeerPairRequest {
  /** Where to listen while the invite is open; default: the host of `replication.listen`, any port. */
  listen?: string | undefined;
  /** What the invite names instead, behind a forwarded port. */
  address?: string | undefined;
}

export interface PeerInviteAnswer {
  id: number;
  invite: string;
  address: string;
  fingerprint: string;
  expiresSeconds: number;
}

export interface PeerInviteStatus {
  id: number;
  state: InviteState;
  peer: PeerAnswer | null;
}

export interface PeerJoinRequest extends PeerPairRequest {
  invite: string;
}

/** At least one field. */
export interface PeerSetRequest {
  name?: string | undefined;
  roles?: Role[] | undefined;
  addresses?: string[] | undefined;
}

/** What is not given: an RPO of 1 s, no limit, as many copies as here, the group's name or one like it. */
export interface ProtectRequest {
  /** A group, or a volume that is alone in its group. */
  target: string;
  peer: string;
  /** `1s`. */
  rpo?: string | undefined;
  /** A second: bytes, or text with a unit. */
  bandwidth?: number | string | undefined;
  /** Copies at the peer. */
  rf?: number | undefined;
  /** What the replica is to be called. */
  name?: string | undefined;
}

/** A group that a peer gets, and how far that is. */
export interface ProtectionAnswer {
  group: string;
  peer: string;
  /** What was promised. */
  rpoMs: number;
  bytesPerSecond: number | null;
  /**
   * `waiting`: not begun, see `problem`; `down`: no session; `offered`: the peer was asked; `stopped`: see it;
   * `unconfirmed`: the daemon has just started, and the peer may own the group by now: it has not answered yet.
   */
  link: "waiting" | "down" | "offered" | "up" | "stopped" | "unconfirmed";
  /** How far it is behind, measured, and where that comes from; `rpoMs` null: it has no recovery point yet. */
  lag: LagReport;
  /** The peer's newest recovery point. */
  has: number | null;
  backlog: { ops: number; batches: number };
  /** Of the newest heartbeat that was answered; null: none yet. */
  roundTripMs: number | null;
  bytesSent: number;
  /** What the peer is told ahead of the batches: known there, durably, up to an LSN, and to a moment so long ago. */
  headers: HeaderStatus;
  /** Empty: none. */
  problem: string;
  /** How the newest comparison with the replica ended, the first one: or fares; null: there was none. */
  verified: VerificationAnswer | null;
}

export interface ReplicaAnswer {
  /** The owner's uuid of it. */
  group: string;
  /** The owner's LSN of the newest recovery point here; 0: none yet. */
  lsn: number;
  /** The same of this site, for `--at lsn:N`. */
  localLsn: number;
  /** When that was cut. */
  time: string | null;
}

export interface FailoverRequest {
  target: string;
  mode: "unplanned";
  yes: boolean;
  /** Also while the owner is connected. */
  force?: boolean | undefined;
}

export interface FailoverAnswer {
  group: string;
  /** It was done before. */
  already: boolean;
  /** Everything up to this LSN of the former owner is here. */
  recovered: { lsn: number; time: string | null };
  /** What that costs. */
  loss: LossStatement;
  /** Other replicas that the former owner told of. */
  others: OtherReplica[];
}

/** A replica at a third site of what this site owns now. */
export interface OtherReplica {
  /** What the former owner calls it. */
  site: string;
  /** What it is called here; null: it is no peer of this site. */
  peer: string | null;
  /** It is protected to it from here. */
  isSent: boolean;
}

/** Some of what users did to a file; volume and path where this site knows them, else null. */
export interface LostFileAnswer {
  volume: string | null;
  inode: number;
  path?: string | null | undefined;
  path_base64?: string | undefined;
  ops: number;
  bytes: number;
  /** Of the ops: promised to be durable. */
  fsyncedOps: number;
}

/** What users did between two LSNs (the last one below the first: nothing). */
export interface LossAnswer {
  firstLsn: number;
  lastLsn: number;
  ops: number;
  bytes: number;
  files: number;
  /** Of all that: an fsync of the file, or of everything, came after it. */
  fsynced: { ops: number; bytes: number; files: number };
  /** False: the sums are bounds. */
  isExact: boolean;
  /** Some of the files. */
  named: LostFileAnswer[];
}

/** What going on from a replica costs. */
export interface LossStatement {
  group: string;
  /** Everything up to this LSN of the former owner is here. */
  recovered: { lsn: number; time: string | null };
  /** What that did then, as far as it told before it was gone. */
  known: LossAnswer;
  /** What it did after this LSN, and since then (by its clock), nobody knows here; so many log records at least. */
  unknown: { afterLsn: number; since: string | null; opsAtLeast: number };
  /** The same once the former owner has told it; null: it has not, or nothing is left there. */
  reconciled: ReconciledLoss | null;
}

/** What a failover cost, as the former owner's log tells. */
export interface ReconciledLoss {
  /** When it was told, and by whom. */
  time: string;
  peer: string;
  /** Up to the LSN that was known. */
  known: LossAnswer;
  /** After that. */
  unknown: LossAnswer;
  /** All of it: what its fork has. */
  total: LossAnswer;
  /** `known` is not what the statement knew before: somebody has to look. */
  isContradicted: boolean;
}

/** A failover of this site, and what it cost as far as that is known. */
export interface FailoverLoss {
  group: string;
  /** The former owner's LSN that it went on from. */
  lsn: number;
  ops: number;
  fsyncedOps: number;
  isReconciled: boolean;
  isContradicted: boolean;
}

export interface PlannedRequest {
  target: string;
  /** At the owner: who is to be it. */
  to?: string | undefined;
}

export interface PlannedAnswer {
  group: string;
  /** It was done before. */
  already: boolean;
  /** Null: this site. */
  owner: string | null;
  /** Everything that the owner before ever did, up to this LSN of its. */
  lsn: number;
  /** How long writers waited, where this site measured it. */
  waitedMs: number | null;
}

export interface TestFailoverRequest extends PathJson {
  target: string;
  /** Of the clone; default: the group's with `-test`. */
  name?: string | undefined;
}

/** A failover that is only tried. Its path, if any, is where the clone is mounted. */
export interface TestFailoverAnswer {
  /** The replica's. */
  group: string;
  /** Of the clone, as it was made. */
  name: string;
  /** It was there before. */
  already: boolean;
  /** What can be mounted, and written to. */
  volumes: string[];
  /** The recovery point that it began with, by this site's LSN, and when that was cut; null: not known any more. */
  localLsn: number | null;
  time: string | null;
  mounts: ({ volume: string } & PathJson)[];
  /** Empty: none. */
  problem: string;
}

export interface TestFailoverDropAnswer {
  group: string;
  /** Null: there was none. */
  name: string | null;
  already: boolean;
}

/** This site gives a group up to a peer that owns it, too. */
export interface YieldRequest {
  target: string;
  /** The peer; default: the only one that it can be. */
  to?: string | undefined;
  yes: boolean;
}

export interface YieldAnswer {
  group: string;
  /** It follows somebody already. */
  already: boolean;
  to: string;
  /** What was done here after the common point; gone by itself where that is nothing. Null: there is none. */
  fork: string | null;
  /** The last recovery point that both have, by this site's LSN; null: none is left, all is sent anew. */
  common: { lsn: number; time: string | null } | null;
}

/** What a former owner did here that its successor does not have. It can be mounted and cloned; nobody changes it. */
export interface ForkAnswer {
  /** Of the group, and of the volume where it has one. */
  name: string;
  pool: string;
  volumes: string[];
  /** What follows the successor here, or took over from it, as it is called; null: nothing any more. */
  of: string | null;
  /** Uuid of the successor's group. */
  successor: string;
  /** The last recovery point that both have, by the fork's LSN; null: there was none, all of it is the fork. */
  common: { lsn: number; time: string | null; name: string } | null;
  newestLsn: number;
  /** Records of the log after the common point, those that closed the fork among them. */
  ops: number;
  /** What differs from the common point; null: not asked for. */
  changes: ForkChanges | null;
  mounts: ({ volume: string } & PathJson)[];
}

export interface ForkChanges {
  files: number;
  /** Of files, that may differ. */
  bytes: number;
  /** There are more than were counted. */
  isMore: boolean;
}
