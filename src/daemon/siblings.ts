// Other replicas of what one owner sent to several peers, once another of them is the owner: at the new owner who they
// are, as the former one told; at their sites that they follow the new owner, by themselves.
//
// - A replica whose owner has not told anything of the group for a while is an *orphan*. Peers are asked who owns it
//   now. One that went on from the very epoch that the replica is of is followed (`adopt` in machines/return.ts).
// - returns.ts has the road, which is the one of a former owner: the replica is promoted and fenced first. What it has
//   beyond the common point stays as a fork.

import type { Pool } from "../io-path/pool.js";
import type { ReplicaState } from "../io-path/replica.js";
import { epochIdOf, groupIdOf } from "../nearsync-lws/engine-door.js";
import { adopt } from "../nearsync-lws/machines/return.js";
import type { Claim, Successor } from "../nearsync-lws/machines/return.js";
import { toErrorBody } from "./failure.js";
import { unlessGone } from "./local-groups.js";
import type { LocalGroup } from "./local-groups.js";
import type { Log } from "./log.js";
import { Looks } from "./looks.js";
import type { Peers } from "./peers.js";
import type { OtherReplica } from "./protocol-sites.js";
import type { Protections } from "./protections.js";
import type { Replicas } from "./replicas.js";
import type { Returns } from "./returns.js";
import type { Supervisor } from "./supervisor.js";

export interface SiblingsOptions {
  supervisor: Supervisor;
  peers: Peers;
  protections: Protections;
  replicas: Replicas;
  returns: Pick<Returns, "becomeFollower" | "underWay">;
  log: Log;
}

interface Replica extends LocalGroup {
  pool: Pool;
  state: ReplicaState;
  /** As the wire has it. */
  group: string;
}

const LOOK_MS = 2000;
const QUESTIONS_MAX = 100;
/** An owner that has not told anything of a group for so long. */
const ORPHAN_MS = 6000;

export class Siblings {
  readonly #options: SiblingsOptions;
  /** Since when nothing is heard of them, by the group here. */
  readonly #silent = new Map<string, { sinceMs: number; problem: string }>();
  readonly #looks = new Looks(LOOK_MS, () => this.#look());

  constructor(options: SiblingsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#looks.start();
  }

  stop(): void {
    this.#looks.stop();
  }

  async #look(): Promise<void> {
    try {
      const silent = await this.#silentNow();
      for (const replica of silent) await this.#adopt(replica);
    } catch (error) {
      this.#options.log.debug(error, "replicas could not be looked after");
    }
  }

  /** Replicas that nobody has sent for a while. */
  async #silentNow(): Promise<Replica[]> {
    const { peers } = this.#options;
    const replicas = await this.#replicas();
    if (replicas.length === 0) {
      this.#silent.clear();
      return [];
    }
    const heard = new Set(await peers.call("receiving", null));
    const nowMs = performance.now();
    const known = new Set(replicas.map(({ group }) => group));
    for (const group of this.#silent.keys()) if (!known.has(group)) this.#silent.delete(group);
    return replicas.filter(({ group, state }) => {
      if (heard.has(groupIdOf(state.source))) return void this.#silent.delete(group);
      const since = this.#silent.get(group) ?? { sinceMs: nowMs, problem: "" };
      this.#silent.set(group, since);
      return nowMs - since.sinceMs >= ORPHAN_MS;
    });
  }

  async #replicas(): Promise<Replica[]> {
    const groups = await this.#options.supervisor.pools.groups();
    const found = groups.map(async ({ pool, name }) => {
      const state = await unlessGone(pool.replication.state(name));
      if (state?.isReplica !== true || state.lsn === 0n) return [];
      const { uuid } = await pool.replication.identity(name);
      return [{ pool, name, state, group: groupIdOf(uuid) }];
    });
    return (await Promise.all(found)).flat();
  }

  async #adopt(replica: Replica): Promise<void> {
    const { returns, log, peers } = this.#options;
    const { group, name } = replica;
    if (returns.underWay(group) !== undefined) return;
    const note = (problem: string) => {
      const known = this.#silent.get(group);
      if (known === undefined || known.problem === problem) return;
      known.problem = problem;
      if (problem !== "") log.warn({ group: name, problem }, "nobody sends a replica any more");
    };
    const { claims, problem } = await this.#claims(replica);
    const { source, lineage } = replica.state;
    const verdict = adopt(groupIdOf(source), epochIdOf(lineage), claims);
    switch (verdict.adoption) {
      case "wait":
        return note(problem);
      case "contested":
        return note("two peers own what it was a replica of, and this site does not choose");
      case "denied": {
        const who = peers.nameOf(verdict.claim.peer);
        return note(
          `${who} owns it now, and lacks the role may-own here; to follow it: holdfast peer set ${who}`,
        );
      }
      case "follow": {
        const { peer, successor } = verdict.claim;
        const common = await this.#common(replica, peer, successor);
        log.info({ group: name, peer: peers.nameOf(peer) }, "the owner of a replica is another one now");
        await returns
          .becomeFollower({ group, peer, ...common })
          .catch((error: unknown) => note(toErrorBody(error).message));
      }
    }
  }

  /** What peers say of who owns it; and what one says that knows, and is no owner. */
  async #claims({ state, group }: Replica): Promise<{ claims: Claim[]; problem: string }> {
    const { peers } = this.#options;
    const { source, lineage, lsn } = state;
    const claims: Claim[] = [];
    let problem = "";
    for (const { fingerprint: peer, name } of peers.answers().filter(({ connected }) => connected)) {
      try {
        const question = { group: groupIdOf(source), epochId: epochIdOf(lineage), lsn: Number(lsn) };
        const successor = await peers.call("successorOf", { peer, ...question });
        if (successor !== null) claims.push({ peer, successor, mayOwn: peers.has(peer, "may-own", group) });
      } catch (error) {
        const { code, message, hint } = toErrorBody(error);
        if (code === "Fenced") problem = `${name} says: ${hint === "" ? message : `${message}; ${hint}`}`;
      }
    }
    return { claims, problem };
  }

  /** The newest recovery point that both have; each keeps others than the other, so that they may have to go back. */
  async #common({ pool, name, state }: Replica, peer: string, successor: Successor) {
    const { peers } = this.#options;
    const group = groupIdOf(state.source);
    const epochId = epochIdOf(state.lineage);
    let told: Successor | null = successor;
    for (let asked = 0; told?.at != null && asked < QUESTIONS_MAX; asked += 1) {
      const local = await pool.replication.find(name, state.lineage, BigInt(told.at));
      if (local !== null) return { successor: told, at: Number(local) };
      const mine = await pool.replication.findLast(name, state.lineage, BigInt(told.at));
      if (mine === null) break;
      told = await peers.call("successorOf", { peer, group, epochId, lsn: Number(mine.at) });
    }
    return { successor: { ...successor, lsn: null, at: null }, at: null };
  }

  /** Other replicas of what a group here was one of, before it was promoted. */
  async others(group: string, source: string): Promise<OtherReplica[]> {
    const { peers, protections, replicas } = this.#options;
    const sent = protections.peersOf(group);
    const known = peers.answers();
    return replicas.othersOf(source).map(({ site, fingerprint }) => {
      const peer = known.find((one) => one.fingerprint === fingerprint);
      return { site, peer: peer?.name ?? null, isSent: sent.includes(fingerprint) };
    });
  }

  /** Sentences for the administrator. */
  async warnings(): Promise<string[]> {
    const { supervisor, peers } = this.#options;
    const all: string[] = [];
    for (const { pool, name } of await supervisor.pools.groups()) {
      const state = await unlessGone(pool.replication.state(name));
      if (state?.branch == null || state.isFork || state.isGiven) continue;
      const { uuid } = await pool.replication.identity(name);
      for (const other of await this.others(uuid, state.source)) {
        const isThere =
          other.peer !== null && peers.answers().some((one) => one.name === other.peer && one.connected);
        if (other.isSent || isThere) continue;
        all.push(
          `group ${name}: ${wayTo(other)}; to forget it: holdfast unprotect ${name} --to ${other.site}`,
        );
      }
    }
    for (const { name, group } of await this.#replicas()) {
      const problem = this.#silent.get(group)?.problem ?? "";
      if (problem !== "") all.push(`replica ${name} is not sent any more: ${problem}`);
    }
    return all;
  }

  /** False: it is no other replica that this site was told of. */
  async forget(target: string, site: string): Promise<boolean> {
    const { supervisor, replicas } = this.#options;
    const { pool, group } = await supervisor.resolve(target);
    const state = await pool.replication.state(group);
    return state !== null && replicas.forgetOther(state.source, site);
  }
}

/** What has to be done for an other replica to follow. */
export function wayTo({ site, peer, isSent }: OtherReplica): string {
  if (isSent) return `${site} follows`;
  if (peer !== null) return `${peer} has a replica, too, and follows by itself when it is connected`;
  return (
    `${site} has a replica, too, and is no peer of this site: holdfast peer pair --invite here, ` +
    `then holdfast peer pair INVITE at ${site}; it follows by itself then`
  );
}
