// Loss statements again, exact, once the former owner is back: what it did in truth, as its log tells.
//
// - Asked is whoever the replica was of, again and again while it is connected, until it is no owner any more and
//   answers. The answer is kept with the statement.
// - What the first statement knew is compared with the same LSNs of that log. Where the two differ somebody has to
//   look: `status` says so as long as the statement is kept.

import { Headers } from "../io-path/headers.js";
import { isoTime } from "../io-path/history.js";
import { HoldfastError } from "../io-path/errors.js";
import { epochIdOf, groupIdOf, uuidOf } from "../nearsync-lws/engine-door.js";
import type { Account, AccountQuestion } from "../nearsync-lws/replication/questions.js";
import { toErrorBody } from "./failure.js";
import { findGroup } from "./local-groups.js";
import type { Log } from "./log.js";
import { Looks } from "./looks.js";
import type { Peers } from "./peers.js";
import type { FailoverLoss, LossAnswer, LossStatement } from "./protocol-sites.js";
import type { Replicas } from "./replicas.js";
import { accountFrom, lossAnswer, nothing, volumesByBranch } from "./statements.js";
import type { Statements } from "./statements.js";
import type { StoredStatement } from "./statements-file.js";
import type { Supervisor } from "./supervisor.js";

export interface ReconciliationsOptions {
  supervisor: Supervisor;
  peers: Peers;
  replicas: Replicas;
  statements: Statements;
  log: Log;
}

const LOOK_MS = 2000;

export class Reconciliations {
  readonly #options: ReconciliationsOptions;
  readonly #looks = new Looks(LOOK_MS, () => this.#look());

  constructor(options: ReconciliationsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#looks.start();
  }

  stop(): void {
    this.#looks.stop();
  }

  async #look(): Promise<void> {
    const { statements, replicas, peers, log } = this.#options;
    for (const stored of statements.open()) {
      const peer = replicas.ownerOf(stored.source);
      if (peer === undefined || !peers.isConnected(peer)) continue;
      await this.#reconcile(stored, peer).catch((error: unknown) => {
        // It owns the group still, say; or nothing is left of what it did.
        const { message } = toErrorBody(error);
        log.debug(
          { group: stored.statement.group, reason: message },
          "a loss statement is not reconciled yet",
        );
      });
    }
  }

  async #reconcile(stored: StoredStatement, peer: string): Promise<void> {
    const { supervisor, statements, peers, log } = this.#options;
    const { source, lineage: epochId, statement } = stored;
    const { group, recovered, known } = statement;
    const end = Math.max(known.lastLsn, recovered.lsn);
    const volumes = volumesByBranch(await supervisor.pools.volumes(), group);
    const ask = async (above: number, until: number | null): Promise<LossAnswer> => {
      const question = { peer, group: groupIdOf(source), epochId, above, until };
      return lossAnswer(await peers.call("askAccount", question), volumes);
    };
    // Nothing to be asked about what was not known.
    const again = end > recovered.lsn ? await ask(recovered.lsn, end) : nothing(recovered.lsn);
    const [unknown, total] = [await ask(end, null), await ask(recovered.lsn, null)];
    const now = systemTime();
    const isContradicted = again.isExact && known.isExact && !isSame(again, known);
    const reconciled = { time: now, peer: peers.nameOf(peer), known: again, unknown, total, isContradicted };
    statements.keepReconciled(stored, reconciled);
    const told = { group, peer: reconciled.peer, ops: total.ops, fsynced: total.fsynced.ops };
    if (isContradicted) log.error(told, contradiction({ ...statement, reconciled }));
    else log.info(told, "what the failover cost is known exactly: the former owner told it");
  }

  /** What a peer is told of what this site did as the owner before it. */
  async accountOf({ group, epochId, above, until }: AccountQuestion): Promise<Account> {
    const found = await findGroup(this.#options.supervisor.pools, uuidOf(group));
    if (found === undefined)
      throw new HoldfastError("NotFound", "nothing is left of what this site did then");
    const { pool, name } = found;
    const state = await pool.replication.state(name);
    // What follows as it is had done nothing more.
    if (state?.isReplica === true) return accountOfNothing(above);
    if (state?.isFork !== true) throw new HoldfastError("Conflict", "the group is owned here still");
    if (epochIdOf(state.lineage) !== epochId)
      throw new HoldfastError("Fenced", "it was of another epoch here");
    const headers = new Headers(pool.replication.pool);
    const newest = headers.newest(name);
    const end = until === null || BigInt(until) > newest ? newest : BigInt(until);
    if (end <= BigInt(above)) return accountOfNothing(above);
    return accountFrom(await headers.lossOfLog(name, BigInt(above), end));
  }

  /** Sentences for the administrator. */
  warnings(): string[] {
    return this.#options.statements.all().flatMap((statement) => {
      return statement.reconciled?.isContradicted === true ? [contradiction(statement)] : [];
    });
  }

  /** For `status` and the metrics. */
  answers(): FailoverLoss[] {
    return this.#options.statements.all().map(({ group, recovered, known, reconciled }) => {
      const { ops, fsynced } = reconciled?.total ?? known;
      const isContradicted = reconciled?.isContradicted === true;
      const { lsn } = recovered;
      return { group, lsn, ops, fsyncedOps: fsynced.ops, isReconciled: reconciled !== null, isContradicted };
    });
  }
}

function systemTime(): string {
  const now = Date.now();
  return isoTime(Math.floor(now / 1000), (now % 1000) * 1_000_000);
}

function accountOfNothing(above: number): Account {
  const sums = { ops: 0, bytes: 0, files: 0, fsyncedOps: 0, fsyncedBytes: 0, fsyncedFiles: 0 };
  return { first: above + 1, last: above, ...sums, isExact: true, named: [] };
}

function sumsOf({ ops, bytes, files, fsynced }: LossAnswer): number[] {
  return [ops, bytes, files, fsynced.ops, fsynced.bytes, fsynced.files];
}

function isSame(one: LossAnswer, other: LossAnswer): boolean {
  const theirs = sumsOf(other);
  return sumsOf(one).every((sum, index) => sum === theirs[index]);
}

function contradiction({ group, known, reconciled }: LossStatement): string {
  const { lastLsn, ops, fsynced } = known;
  const again = reconciled?.known ?? known;
  return (
    `what was said to be lost of ${group} is not what its former owner has: up to LSN ${lastLsn} ` +
    `${ops} operations (${fsynced.ops} fsynced) were known, ${again.ops} (${again.fsynced.ops}) are in its log`
  );
}
