// What a failover costs: what the former owner had done after the recovery point that its replica goes on from.
//
// - Three parts: recovered up to here; known lost, as the owner's headers tell that are durable here; and from when on
//   nothing is known. It is made when somebody asks, and kept in statements.json before the replica is promoted, so
//   that the same failover, asked for again, says the same.

import { Headers, checkHeaders } from "../io-path/headers.js";
import type { Loss } from "../io-path/headers.js";
import { isoTimeOf, wallNsOf } from "../io-path/history.js";
import { pathToJson } from "../io-path/paths.js";
import type { Pool } from "../io-path/pool.js";
import type { ReplicaState } from "../io-path/replica.js";
import { epochIdOf, groupIdOf } from "../nearsync-lws/engine-door.js";
import type { Peers } from "./peers.js";
import type { LossAnswer, LossStatement } from "./protocol-sites.js";
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
    return {
      group: name,
      recovered,
      known: lossAnswer(loss),
      unknown: {
        afterLsn: last,
        since: sinceNs === 0n ? recovered.time : isoTimeOf(sinceNs),
        opsAtLeast: Math.max(0, newest - last),
      },
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
  return { group: name, recovered, known: nothing(lsn), unknown };
}

function nothing(after: number): LossAnswer {
  const none = { ops: 0, bytes: 0, files: 0 };
  return { firstLsn: after + 1, lastLsn: after, ...none, fsynced: none, isExact: true, named: [] };
}

function lossAnswer(loss: Loss): LossAnswer {
  const { ops, bytes, files, fsyncedOps, fsyncedBytes, fsyncedFiles, isExact, named } = loss;
  return {
    firstLsn: Number(loss.first),
    lastLsn: Number(loss.last),
    ...{ ops, bytes, files, isExact },
    fsynced: { ops: fsyncedOps, bytes: fsyncedBytes, files: fsyncedFiles },
    named: named.map((file) => ({
      inode: Number(file.inode),
      ...(file.path.length === 0 ? { path: null } : pathToJson(Buffer.from(file.path))),
      ops: file.ops,
      bytes: file.bytes,
      fsyncedOps: file.fsynced,
    })),
  };
}
