// Two sites, a writer at each, and a planned change of owner between them with what follows by itself, too simple to be
// wrong. What is durable is apart from what a crash forgets. Every step of either side is counted, so that a test can
// crash it before or after any, and lose any message.

import { ASK_MS } from "../../src/nearsync-lws/limits.js";
import { giver, newGiver, newTaker, resumedGiver, taker } from "../../src/nearsync-lws/machines/handover.js";
import type {
  Giver,
  GiverEffect,
  GiverEvent,
  Problem,
  Taken,
  Taker,
  TakerEffect,
  TakerEvent,
} from "../../src/nearsync-lws/machines/handover.js";
import { newReturn, returning } from "../../src/nearsync-lws/machines/return.js";
import type { Return, ReturnEvent, Step } from "../../src/nearsync-lws/machines/return.js";

export type Side = "giver" | "taker";

export interface Crash {
  side: Side;
  /** Before or after what is done in the so manieth step of `of`; a step of its own is not answered then. */
  of: Side;
  step: number;
  when: "before" | "after";
  downMs: number;
}

export interface Plan {
  crashes: Crash[];
  /** Numbers of messages. */
  lost: number[];
  /** Who gives the command. */
  asks: Side;
  /** Something changes after the last recovery point, once. */
  slips: boolean;
  /** Told again until it succeeds. */
  repeats: boolean;
  bug?: Bug;
}

/** Seeded bugs, each of which must be found. */
export const BUGS = [
  "grants before it relinquishes",
  "notes after it relinquishes",
  "gives what it copied before the gate closed",
  "grants once",
  "forgets after a start",
  "leaves the gate closed",
  "takes without a grant",
  "follows before it is taken",
  "forgets who has it before it follows",
  "asks to be sent once",
] as const;
export type Bug = (typeof BUGS)[number];

const EPOCH = "00000000000000aa";
const NEXT_EPOCH = "00000000000000bb";
const UUID = "00000000-0000-0000-0000-000000000001";
const TICK_MS = 100;
const STEPS_MAX = 2000;

interface Note {
  lsn: number;
  taken: Taken | null;
}

export class World {
  readonly plan: Plan;
  nowMs = 0;
  steps = { giver: 0, taker: 0 };
  messages = 0;
  /** What the command at last said; undefined: nothing yet. */
  outcome: Problem | null | undefined;
  aborts = 0;
  // The giver: durable, then what a crash forgets.
  given = false;
  note: Note | null = null;
  written = 0;
  gate: "open" | "closed" = "open";
  /** What is under way of its becoming a follower; what it is. */
  isPlanned = false;
  role: "owner" | "fenced" | "follower" = "owner";
  mounted = true;
  sends = true;
  /** Of what is written at the taker. */
  hasThere = 0;
  #giver: Giver | undefined;
  #return: Return | undefined;
  /** Until when the taker's answer is waited for. */
  #askedUntil: number | undefined;
  // The taker.
  has = 0;
  promoted = false;
  writtenThere = 0;
  /** It sends to the giver. */
  protects = false;
  #taker: Taker = newTaker();
  readonly #downUntil: { giver: number; taker: number } = { giver: 0, taker: 0 };
  readonly #lives = { giver: 0, taker: 0 };
  readonly #queue: { side: Side; life: number; run: () => void }[] = [];
  #slipped = false;

  constructor(plan: Plan) {
    this.plan = plan;
  }

  isUp(side: Side): boolean {
    return this.nowMs >= this.#downUntil[side];
  }

  get takesWrites(): { giver: boolean; taker: boolean } {
    const giver = this.isUp("giver") && !this.given && this.role === "owner" && this.gate === "open";
    return { giver, taker: this.isUp("taker") && this.promoted };
  }

  /** What must hold always. */
  check(): void {
    if (this.promoted && !this.given) throw new Error("two owners: it is taken, and was not given");
    if (this.promoted && this.has < this.written) {
      throw new Error(`acknowledged writes are lost: ${this.has} of ${this.written} are there`);
    }
    if (this.role !== "owner" && !this.promoted) throw new Error("it follows what nobody owns");
    if (this.role !== "owner" && this.sends && !this.isPlanned)
      throw new Error("nobody goes on with the return");
  }

  /** The former owner follows, and has everything that it can have; nothing is left to be done. */
  get isTurned(): boolean {
    const { role, protects, isPlanned, note, mounted, sends } = this;
    return role === "follower" && protects && !isPlanned && note === null && !mounted && !sends;
  }

  command(): void {
    this.outcome = undefined;
    if (this.plan.asks === "taker") {
      if (this.promoted) this.outcome = null;
      else if (this.isUp("taker")) this.#feedTaker({ type: "ask", nowMs: this.nowMs });
    } else if (this.isUp("giver")) {
      if (this.note?.taken != null || this.role !== "owner") this.outcome = null;
      else this.#start();
    }
  }

  /** Until nothing moves for a while. */
  run(forMs: number): void {
    const end = this.nowMs + forMs;
    for (let steps = 0; this.nowMs < end; steps += 1) {
      if (steps > STEPS_MAX) throw new Error("it does not come to an end");
      this.#write();
      const task = this.#queue.shift();
      if (task !== undefined) {
        if (task.life === this.#lives[task.side] && this.isUp(task.side)) task.run();
      } else this.#tick();
      this.check();
    }
  }

  /** Users, who write whenever somebody lets them. */
  #write(): void {
    const { giver: here, taker: there } = this.takesWrites;
    if (here) this.written += 1;
    if (there) this.writtenThere += 1;
  }

  #tick(): void {
    const before = { giver: this.isUp("giver"), taker: this.isUp("taker") };
    this.nowMs += TICK_MS;
    if (!before.giver && this.isUp("giver")) this.#resume();
    if (this.isUp("giver")) this.#tickGiver();
    if (!this.isUp("taker")) return;
    if (this.protects && this.role === "follower" && this.isUp("giver")) this.hasThere = this.writtenThere;
    const event = this.isUp("giver")
      ? ({ type: "tick", nowMs: this.nowMs } as const)
      : ({ type: "down" } as const);
    this.#feedTaker(event);
  }

  #tickGiver(): void {
    const isHasty = this.plan.bug === "follows before it is taken" && this.given;
    if (this.#giver !== undefined && !isHasty) this.#feedGiver({ type: "tick", nowMs: this.nowMs });
    else if (this.role !== "owner") this.note = null;
    else if (this.given && this.note !== null && this.#return === undefined) this.#leave(this.note);
    if (this.#return === undefined) return;
    if (this.#askedUntil !== undefined) {
      if (this.isUp("taker") && this.nowMs < this.#askedUntil) return;
      this.#askedUntil = undefined;
      this.#feedReturn(this.#failure("follow"));
    }
    this.#feedReturn({ type: "tick", nowMs: this.nowMs });
  }

  /** Its mounts have ended. */
  #leave({ taken }: Note): void {
    if (taken === null && this.plan.bug !== "follows before it is taken") return;
    if (this.plan.bug === "forgets who has it before it follows") this.note = null;
    this.#turn(newReturn({ stored: false }));
  }

  #turn(state: Return): void {
    this.#return = state;
    this.#feedReturn({ type: "begin" });
  }

  #failure(step: Step): ReturnEvent {
    return { type: "failed", step, code: "Unavailable", message: "gone", nowMs: this.nowMs };
  }

  #feedReturn(event: ReturnEvent): void {
    if (this.#return === undefined) return;
    const [state, effects] = returning(this.#return, event);
    this.#return = state.step === "done" ? undefined : state;
    for (const effect of effects) if (effect.type === "run") this.#returns(effect.step);
  }

  #returns(step: Step): void {
    this.#step("giver", () => {
      if (step === "follow") {
        this.#askedUntil = this.nowMs + (this.plan.bug === "asks to be sent once" ? 1e9 : ASK_MS);
        this.#send("taker", { type: "follow" });
        return () => undefined;
      }
      const isEmpty = this.#turns(step);
      return () => this.#feedReturn({ type: "done", step, ...(isEmpty === undefined ? {} : { isEmpty }) });
    });
  }

  /** As return-steps.ts does it: each looks at what is there. */
  #turns(step: Exclude<Step, "follow">): boolean | undefined {
    switch (step) {
      case "save":
        this.isPlanned = true;
        return undefined;
      case "fence":
        if (this.role === "owner") this.role = "fenced";
        return undefined;
      case "release":
        return undefined;
      case "unmount":
        this.mounted = false;
        return undefined;
      case "look":
        return true;
      case "turn":
        if (this.mounted) throw new Error("what is mounted follows");
        this.role = "follower";
        return undefined;
      case "rejoin":
        throw new Error("there is a fork, of nothing");
      case "unprotect":
        this.sends = false;
        return undefined;
      case "forget":
        this.isPlanned = false;
        return undefined;
    }
  }

  #resume(): void {
    if (this.isPlanned) this.#turn(newReturn({ stored: true }));
    if (this.plan.bug === "forgets after a start") return;
    if (!this.given) this.note = null;
    if (this.role !== "owner") return;
    if (this.note === null || this.note.taken !== null) return;
    this.#begin(resumedGiver(this.note.lsn, this.nowMs));
  }

  #start(): void {
    if (this.#giver !== undefined) return;
    if (!this.given) return this.#begin(newGiver(this.nowMs));
    // As the daemon does it: what was given is granted again.
    if (this.note !== null) this.#send("taker", { type: "granted", epochId: EPOCH, lsn: this.note.lsn });
  }

  #begin([state, effects]: [Giver, GiverEffect[]]): void {
    this.#giver = state;
    this.#giverDoes(effects);
  }

  #feedGiver(event: GiverEvent): void {
    if (this.#giver === undefined) return;
    const [state, effects] = giver(this.#giver, event);
    this.#giver = state;
    this.#giverDoes(this.#mutated(effects));
  }

  #mutated(effects: GiverEffect[]): GiverEffect[] {
    const { bug } = this.plan;
    return effects.flatMap((effect): GiverEffect[] => {
      if (bug === "grants before it relinquishes" && effect.type === "relinquish") {
        return [{ type: "grant", lsn: effect.lsn }, effect];
      }
      if (
        bug === "grants once" &&
        effect.type === "grant" &&
        this.nowMs - (this.#giver?.beganMs ?? 0) > 1500
      ) {
        return [];
      }
      return [effect];
    });
  }

  #giverDoes(effects: readonly GiverEffect[]): void {
    for (const effect of effects) {
      if (effect.type === "grant") {
        this.#send("taker", { type: "granted", epochId: EPOCH, lsn: effect.lsn });
      } else if (effect.type === "end") {
        this.#giver = undefined;
        if (effect.problem !== null) this.aborts += 1;
        if (this.plan.asks === "giver") this.outcome = effect.problem;
        else if (effect.problem !== null) this.#send("taker", { type: "refused", problem: effect.problem });
      } else {
        const { turn } = effect;
        this.#step("giver", () => {
          const told = this.#do(effect);
          return () => this.#feedGiver({ ...told, turn, nowMs: this.nowMs } as GiverEvent);
        });
      }
    }
  }

  /** One step: what it does, then what it answers; a crash may come before, or in between. */
  #step(side: Side, run: () => () => void): void {
    const life = this.#lives[side];
    const queued = () => {
      this.steps[side] += 1;
      const here = this.plan.crashes.filter((one) => one.of === side && one.step === this.steps[side]);
      for (const crash of here) if (crash.when === "before") this.#crash(crash);
      if (!this.isUp(side)) return;
      const answer = run();
      this.check();
      for (const crash of here) if (crash.when === "after") this.#crash(crash);
      this.#queue.push({ side, life, run: answer });
    };
    this.#queue.push({ side, life, run: queued });
  }

  #crash({ side, downMs }: Crash): void {
    this.#downUntil[side] = this.nowMs + downMs;
    this.#lives[side] += 1;
    if (side === "giver") {
      this.#giver = undefined;
      this.#return = undefined;
      this.#askedUntil = undefined;
      this.gate = "open";
    } else this.#taker = newTaker();
  }

  #do(effect: Exclude<GiverEffect, { type: "grant" | "end" }>): object {
    const { bug } = this.plan;
    switch (effect.type) {
      case "copy":
        return this.#ship({ type: "copied", tookMs: this.steps.giver === 1 ? 400 : 50 });
      case "close":
        this.gate = "closed";
        return { type: "closed" };
      case "ship": {
        if (bug === "gives what it copied before the gate closed") return { type: "shipped", lsn: this.has };
        return this.#ship({ type: "shipped", lsn: this.written });
      }
      case "note":
        if (bug !== "notes after it relinquishes") this.note = { lsn: effect.lsn, taken: null };
        if (this.plan.slips && !this.#slipped) this.written += 1;
        this.#slipped = true;
        return { type: "noted" };
      case "relinquish": {
        const isUnchecked = bug === "gives what it copied before the gate closed";
        if (this.written > effect.lsn && !isUnchecked) return failed("Conflict");
        if (this.gate === "open") return failed("Conflict");
        this.given = true;
        return { type: "relinquished" };
      }
      case "settle":
        this.note = { lsn: effect.taken.lsn, taken: effect.taken };
        return { type: "settled" };
      case "open":
        if (bug !== "leaves the gate closed") this.gate = "open";
        this.note = null;
        return { type: "opened" };
    }
  }

  #ship(told: object): object {
    if (!this.isUp("taker")) return failed("Unavailable");
    if (!this.promoted) this.has = this.written;
    return told;
  }

  /** A message, which may be lost; the other side may be down when it comes. */
  #send(to: Side, event: TakerEvent | GiverEvent | { type: "request" | "follow" | "follows" }): void {
    this.messages += 1;
    if (this.plan.lost.includes(this.messages)) return;
    const run = () => {
      if (event.type === "request") this.#requested();
      else if (event.type === "follow") this.#protect();
      else if (event.type === "follows") this.#followed();
      else if (to === "taker") this.#feedTaker(event as TakerEvent);
      else this.#feedGiver(event as GiverEvent);
    };
    this.#queue.push({ side: to, life: this.#lives[to], run });
  }

  #requested(): void {
    this.#start();
  }

  /** Durably, then it answers. */
  #protect(): void {
    this.#step("taker", () => {
      this.protects = true;
      return () => this.#send("giver", { type: "follows" });
    });
  }

  #followed(): void {
    if (this.#askedUntil === undefined) return;
    this.#askedUntil = undefined;
    this.#feedReturn({ type: "done", step: "follow" });
  }

  #feedTaker(event: TakerEvent): void {
    const [state, effects] = taker(this.#taker, event);
    this.#taker = state;
    for (const effect of effects) this.#takerDoes(effect);
  }

  #takerDoes(effect: TakerEffect): void {
    switch (effect.type) {
      case "request":
        if (this.plan.bug === "takes without a grant") this.promoted = true;
        return this.#send("giver", { type: "request" });
      case "promote": {
        const { turn, lsn } = effect;
        return this.#step("taker", () => {
          if (this.has < lsn) {
            const { problem } = failed("Conflict");
            return () => this.#feedTaker({ type: "failed", turn, problem });
          }
          this.promoted = true;
          const taken = { uuid: UUID, epochId: NEXT_EPOCH, lsn: this.has, localLsn: 1 };
          return () => this.#feedTaker({ type: "promoted", turn, taken });
        });
      }
      case "tell":
        return this.#send("giver", { type: "taken", nowMs: this.nowMs, taken: effect.taken });
      case "complain":
        return this.#send("giver", { type: "refused", nowMs: this.nowMs, problem: effect.problem });
      case "end":
        if (this.plan.asks === "taker") this.outcome = effect.problem;
    }
  }
}

function failed(code: "Conflict" | "Unavailable"): { type: "failed"; problem: Problem } {
  return { type: "failed", problem: { code, message: code } };
}
