// What the steps of a former owner's return do (machines/return.ts), each so that it can be done again.
//
// A group is known by its uuid. Without a tail it follows itself; with one it keeps the uuid as a fork, and the
// follower is another one. A follower has the successor as its source. So each step sees what was done before it,
// whatever a crash has left.

import { HoldfastError } from "../io-path/errors.js";
import { wallOf } from "../io-path/history.js";
import type { ReplicaState, SuccessorGroup } from "../io-path/replica.js";
import { epochIdOf, groupIdOf, lineageOf, uuidOf } from "../nearsync-lws/engine-door.js";
import type { ReturnPlan, Step, Successor } from "../nearsync-lws/machines/return.js";
import { findGroup, volumeNames } from "./local-groups.js";
import type { LocalGroup } from "./local-groups.js";
import type { Log } from "./log.js";
import type { Peers } from "./peers.js";
import type { Protections } from "./protections.js";
import type { Replicas } from "./replicas.js";
import type { Supervisor } from "./supervisor.js";

export interface ReturnStepsOptions {
  supervisor: Supervisor;
  peers: Peers;
  protections: Protections;
  replicas: Replicas;
  log: Log;
  /** Stores a plan, durably, in place of the one of the same group. */
  save: (plan: ReturnPlan) => void;
  forget: (plan: ReturnPlan) => void;
}

export class ReturnSteps {
  readonly #options: ReturnStepsOptions;

  constructor(options: ReturnStepsOptions) {
    this.#options = options;
  }

  /** Answers whether the fork is empty, where that is asked; the plan as it is from now on, where it changes. */
  async run(step: Step, plan: ReturnPlan): Promise<{ isEmpty?: boolean; plan?: ReturnPlan }> {
    switch (step) {
      case "save":
        this.#options.save(plan);
        return {};
      case "fence":
        return await this.#fence(plan);
      case "release":
        await this.#options.peers.call("release", { group: plan.group });
        return {};
      case "unmount":
        await this.#unmount(plan);
        return {};
      case "look":
        return { isEmpty: await this.#isEmpty(plan) };
      case "turn":
        await this.#turn(plan);
        return {};
      case "rejoin":
        await this.#rejoin(plan);
        return {};
      case "unprotect":
        await this.#unprotect(plan);
        return {};
      case "follow":
        await this.#follow(plan);
        return {};
      case "forget":
        this.#options.forget(plan);
        return {};
    }
  }

  /** The group that was owned here; undefined: it follows, or its fork is gone and a follower there. */
  async #former({ group, successor, name }: ReturnPlan): Promise<LocalGroup | undefined> {
    const found = await findGroup(this.#options.supervisor.pools, uuidOf(group));
    if (found !== undefined) {
      const state = await found.pool.replication.state(found.name);
      // One that was promoted may have come from the very group that is its successor now.
      return state !== null && isFollowerOf(state, successor) ? undefined : found;
    }
    if ((await this.#follower(successor.group)) !== undefined) return undefined;
    throw new HoldfastError("NotFound", `no open pool has ${name}, which became a follower`);
  }

  /** What follows the successor here, or did and was promoted meanwhile. */
  async #follower(successor: string): Promise<(LocalGroup & { isReplica: boolean }) | undefined> {
    for (const found of await this.#options.supervisor.pools.groups()) {
      const state = await found.pool.replication.state(found.name);
      if (state === null || state.isFork || groupIdOf(state.source) !== successor) continue;
      return { ...found, isReplica: state.isReplica };
    }
    return undefined;
  }

  async #fence(plan: ReturnPlan): Promise<{ plan?: ReturnPlan }> {
    const former = await this.#former(plan);
    if (former === undefined) return {};
    const { replication } = former.pool;
    const state = await replication.state(former.name);
    if (state?.isReplica === true) {
      // Of one that somebody else has gone on from: from here on it is as if this site had owned it.
      await this.#options.peers.call("fence", { group: groupIdOf(state.source) });
      await replication.promote(former.name, "");
    }
    try {
      await replication.fence(former.name, BigInt(plan.at ?? 0), successorOf(plan));
      return {};
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.code !== "NotFound" || plan.at === null) throw error;
      // The common point is not kept any more: all of the group is the fork, and the follower begins from nothing.
      const { name, at } = plan;
      this.#options.log.warn(
        { group: name, at },
        "the last common recovery point is gone; all will be sent anew",
      );
      const whole = { ...plan, at: null, successor: { ...plan.successor, lsn: null, at: null } };
      this.#options.save(whole);
      await replication.fence(former.name, 0n, successorOf(whole));
      return { plan: whole };
    }
  }

  async #unmount(plan: ReturnPlan): Promise<void> {
    const former = await this.#former(plan);
    if (former !== undefined) await this.#options.supervisor.endMounts(await volumeNames(former));
  }

  async #rejoin(plan: ReturnPlan): Promise<void> {
    const { fork, at, name, successor, peer } = plan;
    const former = await this.#former(plan);
    if (former === undefined) return;
    await this.#options.supervisor.exclusively(() =>
      former.pool.replication.rejoin(name, { fork, at: BigInt(at ?? 0) }, successorOf(plan)),
    );
    this.#options.replicas.note({ group: uuidOf(successor.group), peer });
    this.#options.log.warn(
      { group: name, peer: this.#options.peers.nameOf(peer), fork },
      "it is owned by a peer now, and follows that; what only this site had is the fork",
    );
  }

  async #turn(plan: ReturnPlan): Promise<void> {
    const { at, name, successor, peer } = plan;
    const former = await this.#former(plan);
    if (former === undefined) return;
    await this.#options.supervisor.exclusively(() =>
      former.pool.replication.turn(former.name, BigInt(at ?? 0), successorOf(plan)),
    );
    this.#options.replicas.note({ group: uuidOf(successor.group), peer });
    this.#options.log.info(
      { group: name, peer: this.#options.peers.nameOf(peer) },
      "it is owned by a peer now, and follows that; this site had nothing alone",
    );
  }

  /** Users did nothing after the common point, and took no snapshot. */
  async #isEmpty(plan: ReturnPlan): Promise<boolean> {
    const former = await this.#former(plan);
    if (former === undefined) return true;
    if (plan.at === null) return false;
    const { history } = former.pool;
    const later = await history.list(former.name, { after: plan.at, limit: 1, seconds: false });
    if (later.length > 0) return false;
    for (const volume of await volumeNames(former)) {
      const span = { from: `lsn:${plan.at}` };
      try {
        const { changes } = await history.difference(volume, span, { first: 0, limit: 1 });
        if (changes.length > 0) return false;
      } catch (error) {
        // A volume that was made later, say.
        if (error instanceof HoldfastError && error.code === "NotFound") return false;
        throw error;
      }
    }
    return true;
  }

  async #unprotect({ group, name, peer }: ReturnPlan): Promise<void> {
    const { protections, peers, log } = this.#options;
    const dropped = await protections.dropGroup(uuidOf(group));
    const others = dropped.filter((one) => one !== peers.nameOf(peer));
    if (others.length === 0) return;
    log.warn(
      { group: name, peers: others },
      "not protected to these any more: protect it to them at its owner",
    );
  }

  async #follow({ successor, peer, back }: ReturnPlan): Promise<void> {
    const follower = await this.#follower(successor.group);
    // It took over again meanwhile: nobody is to be followed.
    if (follower?.isReplica === false) return;
    await this.#options.peers.call("askToFollow", { peer, group: successor.group, ...back });
  }
}

/** What it follows may be its owner of before, in another epoch. */
export function isFollowerOf({ isReplica, source, lineage }: ReplicaState, successor: Successor): boolean {
  return isReplica && groupIdOf(source) === successor.group && epochIdOf(lineage) === successor.epochId;
}

function successorOf({ successor }: ReturnPlan): SuccessorGroup {
  return {
    uuid: uuidOf(successor.group),
    lineage: lineageOf(successor.epochId),
    lsn: BigInt(successor.lsn ?? 0),
    ...wallOf(successor.timeNs),
  };
}
