// Who owns what, as this site's engine knows it: what peers are told that ask, and what this site makes of their
// answers.

import { HoldfastError } from "../io-path/errors.js";
import { timeNsOf } from "../io-path/history.js";
import type { Pool } from "../io-path/pool.js";
import type { ReplicaState } from "../io-path/replica.js";
import { epochIdOf, groupIdOf, lineageOf, uuidOf } from "../nearsync-lws/engine-door.js";
import type { Successor } from "../nearsync-lws/machines/return.js";
import { findGroup } from "./local-groups.js";
import type { LocalGroup } from "./local-groups.js";
import type { Supervisor } from "./supervisor.js";

export interface Question {
  /** What the asker has in common with the owner of now: a group, an epoch of it, and how much of that. */
  group: string;
  epochId: string;
  /** Null: all that there is. */
  lsn: number | null;
}

interface Owned extends LocalGroup {
  group: string;
  epochId: string;
}

export class SuccessorBook {
  readonly #supervisor: Supervisor;

  constructor(supervisor: Supervisor) {
    this.#supervisor = supervisor;
  }

  /** Where a group of this site is, as the wire has it; undefined: no open pool has it. */
  find(group: string): Promise<LocalGroup | undefined> {
    return findGroup(this.#supervisor.pools, uuidOf(group));
  }

  /** The same; `NotFound`. */
  async local(group: string): Promise<LocalGroup> {
    const found = await this.find(group);
    if (found !== undefined) return found;
    throw new HoldfastError("NotFound", `no open pool has the group ${group}`);
  }

  /** Whether something here follows a group of another site. */
  async follows(group: string): Promise<boolean> {
    for (const { pool, name } of await this.#supervisor.pools.groups()) {
      const state = await pool.replication.state(name);
      if (state?.isReplica === true && groupIdOf(state.source) === group) return true;
    }
    return false;
  }

  /** The group here that goes on from what is asked for; null: there is none. */
  async answer(question: Question, isFollowing: (group: string) => boolean): Promise<Successor | null> {
    for (const { pool, name } of await this.#supervisor.pools.groups()) {
      const state = await pool.replication.state(name);
      if (state !== null && (state.isReplica || state.isFork || state.isGiven)) continue;
      const { uuid, lineage } = await pool.replication.identity(name);
      const owned = { pool, name, group: groupIdOf(uuid), epochId: epochIdOf(lineage) };
      // It is about to be another's.
      if (isFollowing(owned.group)) continue;
      const found = (await this.#itself(owned, question)) ?? (await this.#promoted(owned, state, question));
      if (found !== null) return found;
    }
    return null;
  }

  /** The asker went on from this very group, which is owned here still. */
  async #itself({ pool, name, group, epochId }: Owned, asked: Question): Promise<Successor | null> {
    if (group !== asked.group || epochId !== asked.epochId || asked.lsn === null) return null;
    const kept = await pool.replication.find(name, lineageOf(epochId), BigInt(asked.lsn));
    const lsn = kept === null ? null : asked.lsn;
    const timeNs = lsn === null ? null : await timeAt(pool, name, lsn);
    return { group, epochId, lsn, of: epochId, at: lsn, timeNs: timeNs ?? 0n };
  }

  /** The group here was a replica of what is asked for, and was promoted. */
  async #promoted(
    { pool, name, group, epochId }: Owned,
    state: ReplicaState | null,
    asked: Question,
  ): Promise<Successor | null> {
    if (state?.branch == null || groupIdOf(state.source) !== asked.group) return null;
    const { lineage } = state.branch;
    const own = Number(state.lsn);
    const until = asked.lsn === null ? own : Math.min(asked.lsn, own);
    // Of what the asker has it may not have kept every point.
    const last = await pool.replication.findLast(name, lineage, BigInt(until));
    const found = last === null || (asked.lsn === null && Number(last.at) !== own) ? null : last;
    const timeNs = found === null ? null : await timeAt(pool, name, Number(found.lsn));
    return {
      ...{ group, epochId, of: epochIdOf(lineage) },
      lsn: found === null ? null : Number(found.lsn),
      at: found === null ? null : Number(found.at),
      timeNs: timeNs ?? 0n,
    };
  }

  /** Who owns what a group here is, as a peer says that is asked through `ask`; with the common point by our LSN. */
  async owners(
    { pool, name, group, epochId }: Owned,
    ask: (question: Question) => Promise<Successor | null>,
  ): Promise<{ successor: Successor; at: number | null } | null> {
    const child = await ask({ group, epochId, lsn: null });
    if (child?.of === epochId) return { successor: child, at: child.at };
    const state = await pool.replication.state(name);
    if (state?.branch == null) return null;
    const { lineage } = state.branch;
    const of = epochIdOf(lineage);
    const other = await ask({ group: groupIdOf(state.source), epochId: of, lsn: Number(state.lsn) });
    if (other?.of !== of) return null;
    const local = other.at === null ? null : await pool.replication.find(name, lineage, BigInt(other.at));
    if (local === null) return { successor: { ...other, lsn: null, at: null }, at: null };
    return { successor: other, at: Number(local) };
  }
}

/** When a kept point was; null: it is not kept. 0: it is, and nobody knows. */
export async function timeAt(pool: Pool, name: string, lsn: number): Promise<bigint | null> {
  try {
    const found = await pool.history.exactly(name, lsn);
    return found && timeNsOf(found);
  } catch (error) {
    if (error instanceof HoldfastError && ["NotFound", "Invalid"].includes(error.code)) return null;
    throw error;
  }
}
