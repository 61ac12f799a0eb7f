// Groups between sites: recovery points cut here, batches read here and taken in there. Chunks, cursors and
// descriptions are opaque. A `Replication` may be made in any worker out of a pool's number: the addon's table of pools
// is the process's.

import { native, unwrap } from "./addon.js";

/** A recovery point of an owner. */
export interface CutPoint {
  lsn: bigint;
  /** Wall time, since 1970. */
  wallSeconds: number;
  wallNanoseconds: number;
  /** The snapshot that it is; empty: none. */
  name: string;
}

/** A batch of which a replica has the beginning. */
export interface StagedBatch {
  base: bigint;
  target: bigint;
  /** Chunks that are in. */
  sequence: bigint;
  /** Where it goes on; empty: all of it is in, and it waits for `complete`. */
  cursor: Uint8Array;
}

/** How far a replica is. */
export interface ReplicaState {
  /** False: it was promoted and takes changes, or it was given away, or is a fork. */
  isReplica: boolean;
  /** This site owned it, and has given it to another one; `lsn` is its last recovery point then. */
  isGiven: boolean;
  /**
   * What a former owner did: `source` is its successor's group, `lineage` its own, `lsn` the successor's LSN of their
   * last common recovery point, 0: none is left.
   */
  isFork: boolean;
  /** Uuid of the owner's group. */
  source: string;
  /** Random id of the epoch that its recovery points are of. */
  lineage: bigint;
  /** The owner's LSN of the newest recovery point that is whole; 0: none. */
  lsn: bigint;
  /** The same of this site, and when it was cut. */
  localLsn: bigint;
  wallSeconds: number;
  wallNanoseconds: number;
  staging: StagedBatch | null;
  /** Of what was promoted, where it left its owner's lineage; of a fork, where its successor did. */
  branch: Branch | null;
}

/** The group that was promoted in a former owner's place. */
export interface SuccessorGroup {
  uuid: string;
  lineage: bigint;
  /** Its own LSN of the last recovery point that both have; 0: none is left. */
  lsn: bigint;
  /** When that was cut, since 1970. */
  wallSeconds: number;
  wallNanoseconds: number;
}

/** A recovery point that a promoted group has in common with its former owner. */
export interface Branch {
  /** The lineage that they had in common; `ReplicaState.lsn` is of it. */
  lineage: bigint;
  /** The promoted group's own LSN of the point. */
  lsn: bigint;
}

/** A part of a batch, to be sent. */
export interface DeltaPart {
  chunk: Uint8Array;
  /** Where the next one begins; empty: this was the last. */
  cursor: Uint8Array;
  /** Bytes before compression. */
  rawBytes: number;
}

/** `taken`: the next chunk may come; `complete`: it was the last of its batch; `known`: it was in already. */
export type Staged = "taken" | "complete" | "known";

/** A batch that is being read. Both of its ends stay kept until it is closed. */
export class Delta {
  readonly #handle: number;

  constructor(handle: number) {
    this.#handle = handle;
  }

  /** The next chunk, about so many bytes before compression; null: no more. After a failure: the same again. */
  async next(bytes: number): Promise<DeltaPart | null> {
    return unwrap(await native.deltaNext(this.#handle, bytes));
  }

  close(): void {
    native.deltaClose(this.#handle);
  }
}

export class Replication {
  /** Stands for the pool in every thread of the process, as long as it is open. */
  readonly pool: number;

  constructor(pool: number) {
    this.pool = pool;
  }

  /** A durable recovery point of now; the newest one, if nothing changed since. `Fenced` at a replica. */
  async cut(group: string): Promise<CutPoint> {
    const { lsn, wallS, wallNs, name } = unwrap(await native.replicaCut(this.pool, group));
    return { lsn, wallSeconds: wallS, wallNanoseconds: wallNs, name };
  }

  /**
   * Who changes something of the group waits from now on, until `openGate`, or for so long; who is at it has ended when
   * it fulfils. Reads go on, and what the kernel writes back passes until `sealGate`. `Conflict`: it is closed already.
   */
  async closeGate(group: string, limitMs: number): Promise<void> {
    unwrap(await native.gateClose(this.pool, group, limitMs));
  }

  /** What the kernel writes back waits, too. `Conflict`: the gate has opened. */
  async sealGate(group: string): Promise<void> {
    unwrap(await native.gateSeal(this.pool, group));
  }

  /** Everybody goes on, as if nothing had been; where the group was given away meanwhile, nothing. */
  async openGate(group: string): Promise<void> {
    unwrap(await native.gateOpen(this.pool, group));
  }

  /**
   * Gives the group away, as it is at the recovery point `last`: durable when it fulfils, idempotent. The gate has to
   * be sealed. `Conflict`: something came after that point, or the gate has opened; all is as before.
   */
  async relinquish(group: string, last: bigint): Promise<void> {
    unwrap(await native.replicaRelinquish(this.pool, group, last));
  }

  /** What another site needs to make a replica. */
  async describe(group: string): Promise<Uint8Array> {
    return unwrap(await native.replicaDescribe(this.pool, group));
  }

  /** `base` 0: everything; `cursor` empty: from its beginning. `NotFound`: one of the points is not kept any more. */
  async openDelta(group: string, base: bigint, target: bigint, cursor: Uint8Array): Promise<Delta> {
    return new Delta(unwrap(await native.deltaOpen(this.pool, group, base, target, cursor)));
  }

  async followers(group: string): Promise<{ name: string; lsn: bigint }[]> {
    return unwrap(await native.followerList(this.pool, group));
  }

  /** The follower has this point durably: history is kept for it from there on only. A name has 1 to 64 bytes. */
  async followerHas(group: string, follower: string, lsn: bigint): Promise<void> {
    unwrap(await native.followerHas(this.pool, group, follower, lsn));
  }

  async forgetFollower(group: string, follower: string): Promise<void> {
    unwrap(await native.followerForget(this.pool, group, follower));
  }

  /** Makes an empty group that follows the one described; `rf` 0: as many copies as at the owner. */
  async create(description: Uint8Array, name: string, rf: number): Promise<void> {
    unwrap(await native.replicaCreate(this.pool, description, name, rf));
  }

  /** How far a replica is; null: the group never was one, and was not given away. */
  async state(group: string): Promise<ReplicaState | null> {
    const state = unwrap(await native.replicaState(this.pool, group));
    if (state === null) return null;
    const { wallS, wallNs, staging, branch, ...rest } = state;
    const [wallSeconds, wallNanoseconds] = [wallS, wallNs];
    return { ...rest, wallSeconds, wallNanoseconds, staging: staging ?? null, branch: branch ?? null };
  }

  /** `Conflict`: it does not continue what is here, with what is; `Fenced`: of another lineage; `Corrupt`: damaged. */
  async stage(group: string, chunk: Uint8Array, cursor: Uint8Array): Promise<Staged> {
    return unwrap(await native.replicaStage(this.pool, group, chunk, cursor));
  }

  /** The batch to this point is whole: it becomes the newest recovery point, applied and flushed. Idempotent. */
  async complete(group: string, lineage: bigint, point: CutPoint): Promise<void> {
    const { lsn, wallSeconds, wallNanoseconds, name } = point;
    unwrap(await native.replicaComplete(this.pool, group, lineage, lsn, wallSeconds, wallNanoseconds, name));
  }

  /**
   * The replica becomes the owner of what it has received, of a new lineage. `follower`: the name of its former owner,
   * for which the point where the two part is kept; empty: nobody. Idempotent.
   */
  async promote(group: string, follower: string): Promise<void> {
    unwrap(await native.replicaPromote(this.pool, group, follower));
  }

  /** Uuid of a group, as `ReplicaState.source` of its replicas has it, and the lineage of its recovery points. */
  async identity(group: string): Promise<{ uuid: string; lineage: bigint }> {
    return unwrap(await native.replicaIdentity(this.pool, group));
  }

  /**
   * A former owner stops: nobody changes the group any more, whoever has it mounted, also after a start. `at`: its own
   * LSN of the last common recovery point, 0: none is left. `NotFound`: the point is not kept. Idempotent.
   */
  async fence(group: string, at: bigint, successor: SuccessorGroup): Promise<void> {
    unwrap(await native.replicaFence(this.pool, group, at, toNative(successor)));
  }

  /**
   * A former owner follows the group that was promoted in its place; what it did after its own recovery point `at`
   * stays as a group `fork`. `Conflict`: mounted, or the fork's name is in use. Idempotent.
   */
  async rejoin(
    group: string,
    { fork, at }: { fork: string; at: bigint },
    successor: SuccessorGroup,
  ): Promise<void> {
    unwrap(await native.replicaRejoin(this.pool, group, fork, at, toNative(successor)));
  }

  /**
   * A former owner, fenced, that did nothing after its own recovery point `at` follows its successor as it is, with all
   * that it keeps of the past. `Conflict`: mounted, or not fenced there. Idempotent.
   */
  async turn(group: string, at: bigint, successor: SuccessorGroup): Promise<void> {
    unwrap(await native.replicaTurn(this.pool, group, at, toNative(successor)));
  }

  /**
   * The newest kept recovery point of another site's lineage at or before an LSN of it: which one that is (`at`), and
   * the LSN here; null: none is.
   */
  async findLast(group: string, lineage: bigint, until: bigint): Promise<{ at: bigint; lsn: bigint } | null> {
    return unwrap(await native.replicaFindLast(this.pool, group, lineage, until));
  }

  /** The kept LSN here of a recovery point of another site's lineage; null: it is not kept. */
  async find(group: string, lineage: bigint, lsn: bigint): Promise<bigint | null> {
    return unwrap(await native.replicaFind(this.pool, group, lineage, lsn));
  }
}

function toNative({ uuid, lineage, lsn, wallSeconds, wallNanoseconds }: SuccessorGroup) {
  return { uuid, lineage, lsn, wallS: wallSeconds, wallNs: wallNanoseconds };
}
