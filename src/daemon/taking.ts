// Groups on their way here: what this site asks their owners for, and what it makes of what they grant. Carries out
// what the taker's machine asks for. Nothing is kept: a grant of the site whose replica it is, at a point that is here,
// promotes the replica; done before, it is answered again.

import { HoldfastError } from "../io-path/errors.js";
import { epochIdOf, groupIdOf, uuidOf } from "../nearsync-lws/engine-door.js";
import { newTaker, taker } from "../nearsync-lws/machines/handover.js";
import type { Problem, Taken, Taker, TakerEffect, TakerEvent } from "../nearsync-lws/machines/handover.js";
import type { HandoverMessage } from "../nearsync-lws/replication/replication.js";
import { toErrorBody } from "./failure.js";
import { failureOf, now } from "./giving.js";
import type { LocalGroup } from "./local-groups.js";
import type { Log } from "./log.js";
import type { Peers } from "./peers.js";
import type { PlannedAnswer } from "./protocol.js";
import type { Replicas } from "./replicas.js";
import type { Supervisor } from "./supervisor.js";

export interface TakingsOptions {
  supervisor: Supervisor;
  peers: Peers;
  replicas: Replicas;
  log: Log;
  tell: (peer: string, message: HandoverMessage) => void;
  complain: (peer: string, group: string, problem: Problem) => void;
}

/** A group of this site. */
export interface Local extends LocalGroup {
  uuid: string;
}

/** Who waits for the outcome. */
export interface Waiting {
  resolve: () => void;
  reject: (error: HoldfastError) => void;
}

interface Taking {
  local: Local;
  /** The owner's uuid of the group. */
  source: string;
  peer: string;
  state: Taker;
  waiting: Waiting[];
}

export class Takings {
  readonly #options: TakingsOptions;
  /** By the owner's uuid of the group, as the wire has it. */
  readonly #taking = new Map<string, Taking>();

  constructor(options: TakingsOptions) {
    this.#options = options;
  }

  tick(): void {
    for (const taking of this.#taking.values()) {
      const isConnected = this.#options.peers.isConnected(taking.peer);
      this.#feed(taking, isConnected ? { type: "tick", nowMs: now() } : { type: "down" });
    }
  }

  /** The owner does not give it. */
  refused(peer: string, group: string, problem: Problem): void {
    const taking = this.#taking.get(group);
    if (taking?.peer === peer) this.#feed(taking, { type: "refused", problem });
  }

  /** This site wants to be the owner of what it has a replica of; fulfils when it is. */
  async ask(local: Local, source: string): Promise<PlannedAnswer> {
    const { peers, replicas } = this.#options;
    const peer = replicas.ownerOf(source);
    if (peer === undefined || !peers.isConnected(peer)) {
      const owner = peer === undefined ? "its owner" : peers.nameOf(peer);
      throw new HoldfastError(
        "Unavailable",
        `${owner} is not connected, and has to give ${local.name} away itself`,
        "when it is gone for good: failover --unplanned",
      );
    }
    const taking = this.#takingOf(local, source, peer);
    await new Promise<void>((resolve, reject) => {
      taking.waiting.push({ resolve, reject });
      this.#feed(taking, { type: "ask", nowMs: now() });
    });
    const state = await local.pool.replication.state(local.name);
    return { group: local.name, already: false, owner: null, lsn: Number(state?.lsn ?? 0n), waitedMs: null };
  }

  #takingOf(local: Local, source: string, peer: string): Taking {
    const key = groupIdOf(source);
    const there = this.#taking.get(key);
    if (there?.peer === peer) return there;
    const taking: Taking = { local, source, peer, state: newTaker(), waiting: [] };
    this.#taking.set(key, taking);
    return taking;
  }

  async granted(peer: string, { group, epochId, lsn }: Extract<HandoverMessage, { type: "grant" }>["body"]) {
    const there = this.#taking.get(group);
    const source = uuidOf(group);
    if (there?.peer === peer) return this.#feed(there, { type: "granted", epochId, lsn });
    for (const { pool, name } of await this.#options.supervisor.pools.groups()) {
      const state = await pool.replication.state(name);
      if (state?.source !== source || state.isGiven) continue;
      const { uuid } = await pool.replication.identity(name);
      return this.#feed(this.#takingOf({ pool, name, uuid }, source, peer), {
        type: "granted",
        epochId,
        lsn,
      });
    }
    throw new HoldfastError("NotFound", "there is no replica of the group here");
  }

  #feed(taking: Taking, event: TakerEvent): void {
    const [next, effects] = taker(taking.state, event);
    taking.state = next;
    for (const effect of effects) this.#carryOut(taking, effect);
    const key = groupIdOf(taking.source);
    if (taking.state.phase === "idle" && this.#taking.get(key) === taking) this.#taking.delete(key);
  }

  #carryOut(taking: Taking, effect: TakerEffect): void {
    const { peer, source, local } = taking;
    const group = groupIdOf(source);
    switch (effect.type) {
      case "request":
        return void this.#request(taking);
      case "promote": {
        const { turn, epochId, lsn } = effect;
        this.#promote(taking, { epochId, lsn }).then(
          (taken) => this.#feed(taking, { type: "promoted", turn, taken }),
          (error: unknown) => {
            const { code, message } = toErrorBody(error);
            this.#options.log.error({ group: local.name, code, message }, "what was granted is not taken");
            this.#feed(taking, { type: "failed", turn, problem: { code, message } });
          },
        );
        return;
      }
      case "tell": {
        const { uuid, epochId, lsn, localLsn } = effect.taken;
        const by = { group: groupIdOf(uuid), epochId, lsn: localLsn };
        return this.#options.tell(peer, { type: "taken", body: { group, lsn, by } });
      }
      case "complain":
        return this.#options.complain(peer, group, effect.problem);
      case "end": {
        const { problem } = effect;
        const waiting = taking.waiting.splice(0);
        for (const { resolve, reject } of waiting) {
          if (problem === null) resolve();
          else reject(failureOf(problem, "ask again: what was begun goes on, and what was not begins"));
        }
      }
    }
  }

  async #request(taking: Taking): Promise<void> {
    const { peer, source, local } = taking;
    const failed = (problem: Problem) => this.#feed(taking, { type: "refused", problem });
    try {
      const state = await local.pool.replication.state(local.name);
      const body = { group: groupIdOf(source), epochId: epochIdOf(state?.lineage ?? 0n) };
      const told = await this.#options.peers.call("tell", { peer, message: { type: "relinquish", body } });
      if (!told) failed({ code: "Unavailable", message: "the owner is not connected" });
    } catch (error) {
      const { code, message } = toErrorBody(error);
      failed({ code, message });
    }
  }

  /** The replica becomes the owner, durably; it was before: what it has become. */
  async #promote({ local, peer, source }: Taking, granted: { epochId: string; lsn: number }): Promise<Taken> {
    const { supervisor, replicas } = this.#options;
    const { replication } = local.pool;
    return await supervisor.exclusively(async () => {
      const state = await replication.state(local.name);
      if (state === null || replicas.ownerOf(source) !== peer) {
        throw new HoldfastError("Denied", `${local.name} is no replica of what this peer owns`);
      }
      const { lineage } = state.isReplica ? state : (state.branch ?? { lineage: 0n });
      if (epochIdOf(lineage) !== granted.epochId || Number(state.lsn) < granted.lsn) {
        const has = `LSN ${state.lsn} of epoch ${epochIdOf(lineage)}`;
        throw new HoldfastError(
          "Conflict",
          `what was granted ends at LSN ${granted.lsn} of epoch ${granted.epochId}, here is ${has}`,
        );
      }
      if (state.isReplica) {
        await replication.promote(local.name, peer);
        this.#options.log.info({ group: local.name, lsn: granted.lsn }, "taken over, as its owner granted");
      }
      const [after, identity] = [await replication.state(local.name), await replication.identity(local.name)];
      const { uuid, lineage: own } = identity;
      return {
        ...{ uuid, epochId: epochIdOf(own) },
        ...{ lsn: Number(after?.lsn ?? 0n), localLsn: Number(after?.branch?.lsn ?? 0n) },
      };
    });
  }
}
