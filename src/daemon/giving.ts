// One group on its way to another owner, at the site that gives it: carries out what the giver's machine asks for.

import { HoldfastError } from "../io-path/errors.js";
import { wallNsOf } from "../io-path/history.js";
import type { Replication } from "../io-path/replica.js";
import { epochIdOf, groupIdOf } from "../nearsync-lws/engine-door.js";
import { COPY_MS_MAX, GATE_MS, LAST_WRITE_BACK_MS, WRITE_BACK_MS } from "../nearsync-lws/limits.js";
import { giver } from "../nearsync-lws/machines/handover.js";
import type { Giver, GiverEffect, GiverEvent, Problem, Taken } from "../nearsync-lws/machines/handover.js";
import { systemClock } from "../nearsync-lws/seams.js";
import { toErrorBody } from "./failure.js";
import type { Log } from "./log.js";
import type { Peers } from "./peers.js";

export interface GivingOptions {
  /** Uuid of the group. */
  uuid: string;
  name: string;
  lineage: bigint;
  /** Who gets it. */
  peer: string;
  replication: Replication;
  /** Has what programs changed through mappings written back, within so long. */
  writeBack: (limitMs: number) => Promise<void>;
  peers: Peers;
  log: Log;
  /** Durable when it returns; null: forgotten. */
  note: (note: { lsn: number; taken: Taken | null } | null) => void;
  /** Null: it is taken. */
  ended: (problem: Problem | null) => void;
}

/** Events that answer an effect, before they know what the machine knows. */
type Answer = { [T in GiverEvent["type"]]: Omit<Extract<GiverEvent, { type: T }>, "turn" | "nowMs"> }[Exclude<
  GiverEvent["type"],
  "tick" | "taken" | "refused" | "revoked"
>];

export class Giving {
  readonly options: GivingOptions;
  #state: Giver;
  #running: Promise<unknown> = Promise.resolve();
  #noted: boolean;

  constructor(options: GivingOptions, [state, effects]: [Giver, GiverEffect[]]) {
    this.options = options;
    this.#state = state;
    // One that goes on after a start has its note.
    this.#noted = state.lsn !== null;
    this.#carryOut(effects);
  }

  get state(): Giver {
    return this.#state;
  }

  /** Fulfils when nothing of it is under way. */
  get settled(): Promise<unknown> {
    return this.#running;
  }

  tick(): void {
    this.#feed({ type: "tick", nowMs: now() });
  }

  taken(taken: Taken): void {
    this.#feed({ type: "taken", nowMs: now(), taken });
  }

  refused(problem: Problem): void {
    this.#feed({ type: "refused", nowMs: now(), problem });
  }

  /** From now on nothing is granted. */
  revoke(): void {
    this.#feed({ type: "revoked", nowMs: now() });
  }

  /** The daemon stops: what is not given yet stays here. */
  async giveUp(): Promise<void> {
    const { turn } = this.#state;
    const problem = { code: "Closed", message: "the daemon stops" } as const;
    // What was relinquished goes on after the start; a word that is being written decides itself.
    if (this.#state.phase !== "relinquishing") this.#feed({ type: "failed", turn, nowMs: now(), problem });
    await this.#running;
  }

  #feed(event: GiverEvent): void {
    const before = this.#state.phase;
    const [next, effects] = giver(this.#state, event);
    this.#state = next;
    if (next.phase !== before) this.#log(next);
    this.#carryOut(effects);
  }

  #log({ phase, lsn, problem, closedMs }: Giver): void {
    const { name, log } = this.options;
    const waitedMs = closedMs === null ? null : Math.round(now() - closedMs);
    log.info({ group: name, phase, lsn, problem, waitedMs }, "a group is handed over");
  }

  #carryOut(effects: readonly GiverEffect[]): void {
    for (const effect of effects) {
      if (effect.type === "grant") this.#grant(effect.lsn);
      else if (effect.type === "end") this.options.ended(effect.problem);
      else this.#run(effect);
    }
  }

  #run(effect: Exclude<GiverEffect, { type: "grant" | "end" }>): void {
    const { turn } = effect;
    const answer = (told: Answer) => this.#feed({ ...told, turn, nowMs: now() });
    const running = this.#do(effect).then(answer, (error: unknown) => {
      const { code, message } = toErrorBody(error);
      answer({ type: "failed", problem: { code, message } });
    });
    // What it asks for next is under way when this one is done.
    const all = Promise.all([this.#running, running]);
    this.#running = all;
  }

  async #do(effect: Exclude<GiverEffect, { type: "grant" | "end" }>): Promise<Answer> {
    const { replication, name, note } = this.options;
    switch (effect.type) {
      case "copy": {
        await this.#writeBack(WRITE_BACK_MS);
        const began = now();
        await this.#ship(COPY_MS_MAX);
        return { type: "copied", tookMs: now() - began };
      }
      case "close":
        await replication.closeGate(name, GATE_MS);
        await this.#writeBack(LAST_WRITE_BACK_MS);
        await replication.sealGate(name);
        return { type: "closed" };
      case "ship":
        // The machine says when it is late.
        return { type: "shipped", lsn: await this.#ship(GATE_MS) };
      case "note":
        note({ lsn: effect.lsn, taken: null });
        this.#noted = true;
        return { type: "noted" };
      case "relinquish":
        await replication.relinquish(name, BigInt(effect.lsn)).catch((error: unknown) => {
          // The next start finds out whether it is given, and then to whom.
          if (toErrorBody(error).code === "Internal") this.#noted = false;
          throw error;
        });
        return { type: "relinquished" };
      case "settle":
        note({ lsn: effect.taken.lsn, taken: effect.taken });
        return { type: "settled" };
      case "open":
        await replication.openGate(name);
        if (this.#noted) note(null);
        this.#noted = false;
        return { type: "opened" };
    }
  }

  /** Pages that do not come in time are refused later, and the program that wrote them is told (`msync`, `close`). */
  async #writeBack(limitMs: number): Promise<void> {
    const { writeBack, name, log } = this.options;
    await writeBack(limitMs).catch((error: unknown) => {
      log.warn({ group: name, reason: toErrorBody(error).message }, "not everything mapped was written back");
    });
  }

  /** A recovery point of now is at the peer, flushed. */
  async #ship(limitMs: number): Promise<number> {
    const { replication, name, uuid, peer, peers } = this.options;
    const bootNs = systemClock.bootNs();
    const cut = await replication.cut(name);
    const point = { lsn: Number(cut.lsn), name: cut.name, timeNs: wallNsOf(cut), bootNs };
    await peers.call("ship", { group: groupIdOf(uuid), peer, point, limitMs });
    return point.lsn;
  }

  #grant(lsn: number): void {
    const { uuid, peer, peers, lineage, log, name } = this.options;
    const body = { group: groupIdOf(uuid), epochId: epochIdOf(lineage), lsn };
    peers.call("tell", { peer, message: { type: "grant", body } }).catch((error: unknown) => {
      // It is granted again.
      log.warn({ group: name, reason: toErrorBody(error).message }, "a group could not be granted");
    });
  }
}

/** Milliseconds of a clock that is never set. */
export function now(): number {
  return performance.now();
}

/** A problem as what a command fails with. */
export function failureOf({ code, message }: Problem, hint = ""): HoldfastError {
  return new HoldfastError(code, message, hint);
}
