// What a failover costs: what the former owner had done after the recovery point that its replica goes on from.
//
// - Three parts: recovered up to here; known lost, as the owner's headers tell that are durable here; and from when on
//   nothing is known. It is made when somebody asks, and kept in statements.json before the replica is promoted, so
//   that the same failover, asked for again, says the same. See reconciliations.ts for what becomes of it then.

import { Headers, checkHeaders } from "../io-path/headers.js";
import type { Loss } from "../io-path/headers.js";
import { isoTimeOf, wallNsOf } from "../io-path/history.js";
import { pathToJson } from "../io-path/paths.js";
import type { Pool } from "../io-path/pool.js";
import type { ReplicaState } from "../io-path/replica.js";
import type { VolumeStatus } from "../io-path/pool.js";
import { epochIdOf, groupIdOf } from "../nearsync-lws/engine-door.js";
import { LOST_PATH_BYTES_MAX } from "../nearsync-lws/limits.js";
import type { Account } from "../nearsync-lws/replication/questions.js";
import type { Peers } from "./peers.js";
import type { LossAnswer, LossStatement, ReconciledLoss } from "./protocol-sites.js";
import { readStatements, writeStatements } from "./statements-file.js";
import type { StoredStatement } from "./statements-file.js";
import type { StateFolder } from "./state-folder.js";

export interface StatementsOptions {
  folder: StateFolder;
  peers: Pick<Peers, "call">;
}

/** A group here that is, or was, a replica. */
export interface Promoting {
  pool: Pool;
  /** Of the group. */
  name: string;
  state: ReplicaState;
  recovered: { lsn: number; time: string | null };
}

export class Statements {
  readonly #options: StatementsOptions;
  #stored: StoredStatement[];

  constructor(options: StatementsOptions) {
    this.#options = options;
    this.#stored = readStatements(options.folder);
  }

  /** Of a group that was promoted: what was said then. Of a replica: what would be lost now. */
  async of(promoting: Promoting): Promise<LossStatement> {
    const { state } = promoting;
    const kept = this.#find(state.source, formerLineage(state));
    if (kept !== undefined) return kept.statement;
    if (!state.isReplica) return untold(promoting);
    return await this.#make(promoting);
  }

  /** Durable when it returns. */
  keep({ state }: Promoting, statement: LossStatement): void {
    const stored = { source: state.source, lineage: formerLineage(state), statement };
    this.#store([...this.#others(stored), stored]);
  }

  /** Those that no former owner has told its part to. */
  open(): StoredStatement[] {
    return this.#stored.filter(({ statement }) => statement.reconciled === null);
  }

  all(): LossStatement[] {
    return this.#stored.map(({ statement }) => statement);
  }

  /** Durable when it returns. */
  keepReconciled(stored: StoredStatement, reconciled: ReconciledLoss): void {
    const next = { ...stored, statement: { ...stored.statement, reconciled } };
    this.#store(this.#stored.map((one) => (one === stored ? next : one)));
  }

  #find(source: string, lineage: string): StoredStatement | undefined {
    return this.#stored.find((one) => one.source === source && one.lineage === lineage);
  }

  #others({ source, lineage }: { source: string; lineage: string }): StoredStatement[] {
    return this.#stored.filter((one) => one.source !== source || one.lineage !== lineage);
  }

  #store(statements: StoredStatement[]): void {
    writeStatements(this.#options.folder, statements);
    this.#stored = statements;
  }

  async #make({ pool, name, state, recovered }: Promoting): Promise<LossStatement> {
    const known = await this.#options.peers.call("knownHeaders", { group: groupIdOf(state.source) });
    const mine = known.frames.filter((frame) => checkHeaders(frame).lineage === state.lineage);
    const loss = await new Headers(pool.replication.pool).lossOfFrames(name, state.lsn, mine);
    const { beat } = known;
    const told = mine.length === 0 ? 0n : wallNsOf(loss);
    const looked = beat?.timeNs ?? 0n;
    const sinceNs = told > looked ? told : looked;
    const newest = Math.max(Number(loss.newest), beat?.newest ?? 0);
    const last = Number(loss.last);
    const volumes = (await pool.volumes()).map((volume) => ({ volume }));
    return {
      group: name,
      recovered,
      known: lossAnswer(accountFrom(loss), volumesByBranch(volumes, name)),
      unknown: {
        afterLsn: last,
        since: sinceNs === 0n ? recovered.time : isoTimeOf(sinceNs),
        opsAtLeast: Math.max(0, newest - last),
      },
      reconciled: null,
    };
  }
}

/** The lineage whose newest changes are lost. */
function formerLineage({ isReplica, lineage, branch }: ReplicaState): string {
  return epochIdOf(isReplica || branch === null ? lineage : branch.lineage);
}

/** Where no owner told anything: of what was promoted before there were statements, or given away and taken back. */
export function untold({ name, recovered }: Promoting): LossStatement {
  const { lsn, time } = recovered;
  const unknown = { afterLsn: lsn, since: time, opsAtLeast: 0 };
  return { group: name, recovered, known: nothing(lsn), unknown, reconciled: null };
}

export function nothing(after: number): LossAnswer {
  const none = { ops: 0, bytes: 0, files: 0 };
  return { firstLsn: after + 1, lastLsn: after, ...none, fsynced: none, isExact: true, named: [] };
}

/** Names of a group's volumes, by their numbers. */
export function volumesByBranch(
  volumes: readonly { volume: Pick<VolumeStatus, "name" | "group" | "branch"> }[],
  group: string,
): ReadonlyMap<number, string> {
  const members = volumes.filter(({ volume }) => volume.group === group);
  return new Map(members.map(({ volume }) => [volume.branch, volume.name]));
}

/** The engine's sums as they travel. */
export function accountFrom(loss: Loss): Account {
  const { ops, bytes, files, fsyncedOps, fsyncedBytes, fsyncedFiles, isExact } = loss;
  return {
    ...{ first: Number(loss.first), last: Number(loss.last), ops, bytes, files },
    ...{ fsyncedOps, fsyncedBytes, fsyncedFiles, isExact },
    named: loss.named.map(({ branch, inode, path, fsynced, ...file }) => ({
      ...{ branch, inode: Number(inode), ops: file.ops, bytes: file.bytes, fsyncedOps: fsynced },
      path: path.length > LOST_PATH_BYTES_MAX ? new Uint8Array() : path,
    })),
  };
}

export function lossAnswer(account: Account, volumes: ReadonlyMap<number, string>): LossAnswer {
  const { first, last, ops, bytes, files, fsyncedOps, fsyncedBytes, fsyncedFiles, isExact } = account;
  return {
    ...{ firstLsn: first, lastLsn: last, ops, bytes, files, isExact },
    fsynced: { ops: fsyncedOps, bytes: fsyncedBytes, files: fsyncedFiles },
    named: account.named.map(({ branch, inode, path, ...file }) => ({
      volume: volumes.get(branch) ?? null,
      inode,
      ...(path.length === 0 ? { path: null } : pathToJson(Buffer.from(path))),
      ...file,
    })),
  };
}
