// Groups that were owned here and are owned by peers now: found out, and turned into followers.
//
// - A peer that refuses what this site sends (`Fenced`) is asked who owns the group now. Only one with the role
//   `may-own` makes this site stop; else the group stays, and `status` says what to do.
// - `becomeFollower` is the one entry: whoever knows that a peer owns a group now (a question to it, an operator, a
//   hand-over) calls it. returns.json has what is under way; a start goes on with that.
// - A question that found no clear answer is asked again now and then, as long as the peer refuses.

import { HoldfastError } from "../io-path/errors.js";
import { isoTimeOf } from "../io-path/history.js";
import { epochIdOf, groupIdOf, uuidOf } from "../nearsync-lws/engine-door.js";
import { judge, newReturn, returning } from "../nearsync-lws/machines/return.js";
import type { Return, ReturnEvent, ReturnPlan, Step, Successor } from "../nearsync-lws/machines/return.js";
import type { SuccessorQuestion } from "../nearsync-lws/replication/questions.js";
import { toErrorBody } from "./failure.js";
import type { LocalGroup } from "./local-groups.js";
import type { Log } from "./log.js";
import type { Peers } from "./peers.js";
import type { YieldAnswer, YieldRequest } from "./protocol.js";
import type { Protections } from "./protections.js";
import type { Replicas } from "./replicas.js";
import { ReturnSteps, isFollowerOf } from "./return-steps.js";
import { readReturns, writeReturns } from "./returns-file.js";
import type { StateFolder } from "./state-folder.js";
import { SuccessorBook } from "./successors.js";
import type { Supervisor } from "./supervisor.js";
import { Turns } from "./turns.js";

export interface ReturnsOptions {
  folder: StateFolder;
  supervisor: Supervisor;
  peers: Peers;
  protections: Protections;
  replicas: Replicas;
  log: Log;
  /** Whether a group (its uuid) was given away in order, and handovers.ts sees to what comes of that. */
  isHandedOver: (uuid: string) => boolean;
}

/** A change of owner, as whoever knows of it says it. */
export interface Handover {
  /** The group that was owned here, as the wire has it. */
  group: string;
  /** Who owns it now. */
  peer: string;
  successor: Successor;
  /** The last common recovery point, by this site's LSN; null: none is left. */
  at: number | null;
}

interface Running {
  plan: ReturnPlan;
  state: Return;
  timer: NodeJS.Timeout | undefined;
  /** Called when the follower is in place, or the first step before that fails. */
  placed: ((error?: HoldfastError) => void)[];
}

interface Suspect {
  group: string;
  peer: string;
  problem: string;
  /** When it refused first. */
  sinceMs: number;
}

const ASK_AGAIN_MS = 2000;
/** Other peers that may have taken a group over are waited for so long. */
const RIVALS_MS = 10_000;
const NAME_CHARACTERS_MAX = 52;
const RPO_MS_DEFAULT = 1000;
/** Steps after which the follower is there. */
const PLACED: readonly (Step | "done")[] = ["unprotect", "follow", "forget", "done"];

export class Returns {
  readonly #options: ReturnsOptions;
  readonly #book: SuccessorBook;
  readonly #steps: ReturnSteps;
  readonly #running = new Map<string, Running>();
  /** Peers that refuse a group that is owned here, by group and peer. */
  readonly #suspects = new Map<string, Suspect>();
  #stored: ReturnPlan[];
  #watch: NodeJS.Timeout | undefined;
  #started = false;
  readonly #turns = new Turns();

  constructor(options: ReturnsOptions) {
    this.#options = options;
    this.#stored = readReturns(options.folder);
    this.#book = new SuccessorBook(options.supervisor);
    const save = (plan: ReturnPlan) => this.#store([...this.#others(plan), plan]);
    const forget = (plan: ReturnPlan) => this.#store(this.#others(plan));
    this.#steps = new ReturnSteps({ ...options, save, forget });
  }

  /** Goes on with what is under way; before anything is sent. */
  start(): void {
    this.#started = true;
    for (const plan of this.#stored) this.#begin(plan, { stored: true });
    this.#watch = setInterval(() => this.#askAgain(), ASK_AGAIN_MS);
  }

  async stop(): Promise<void> {
    this.#started = false;
    clearInterval(this.#watch);
    for (const { timer } of this.#running.values()) clearTimeout(timer);
    await this.#turns.settled();
  }

  #others({ group }: ReturnPlan): ReturnPlan[] {
    return this.#stored.filter((one) => one.group !== group);
  }

  #store(plans: ReturnPlan[]): void {
    writeReturns(this.#options.folder, plans);
    this.#stored = plans;
  }

  /** What a peer that asks is told: who owns the group now; null: nobody else that this site knows of. */
  async succeededBy(question: SuccessorQuestion): Promise<Successor | null> {
    const found = await this.#book.answer(question, (group) => this.#running.has(group));
    if (found !== null) return found;
    const former = await this.#book.find(question.group);
    const state = await former?.pool.replication.state(former.name);
    if (state == null || !(state.isReplica || state.isFork)) return null;
    const owner = this.#options.replicas.ownerOf(state.source);
    const who = owner === undefined ? "another site" : this.#options.peers.nameOf(owner);
    throw new HoldfastError("Fenced", `it is owned by ${who} now`, "pair with that: holdfast peer pair");
  }

  /** A peer refuses a group that this site sends. */
  fenced({ group, peer }: { group: string; peer: string }): void {
    const key = `${group} ${peer}`;
    if (!this.#suspects.has(key))
      this.#suspects.set(key, { group, peer, problem: "", sinceMs: performance.now() });
    this.#ask(key);
  }

  #askAgain(): void {
    for (const key of this.#suspects.keys()) this.#ask(key);
  }

  #ask(key: string): void {
    void this.#turns.take(async () => {
      const suspect = this.#suspects.get(key);
      if (suspect === undefined || !this.#started) return;
      try {
        if (await this.#settle(suspect)) this.#suspects.delete(key);
      } catch (error) {
        suspect.problem = toErrorBody(error).message;
        this.#options.log.debug({ problem: suspect.problem }, "who owns a group is not known");
      }
    });
  }

  /** True: there is nothing to be asked any more. */
  async #settle(suspect: Suspect): Promise<boolean> {
    const { group, peer } = suspect;
    const { peers, protections, log } = this.#options;
    if (this.#running.has(group) || protections.find(uuidOf(group), peer) === undefined) return true;
    if (this.#options.isHandedOver(uuidOf(group))) return true;
    const { pool, name } = await this.#book.local(group);
    const epochId = epochIdOf((await pool.replication.identity(name)).lineage);
    const successor = await peers.call("successorOf", { peer, group, epochId, lsn: null });
    const mayOwn = peers.has(peer, "may-own", group);
    const { verdict } = judge(epochId, successor, {
      mayOwn,
      others: await this.#rivals(group, epochId, peer),
    });
    const who = peers.nameOf(peer);
    const before = suspect.problem;
    suspect.problem = "";
    if (verdict === "stay" || successor === null) return true;
    if (verdict === "follow") {
      const isWaiting = performance.now() - suspect.sinceMs < RIVALS_MS;
      if (isWaiting && this.#candidates(group, peer).some((one) => !peers.isConnected(one))) return false;
      await this.#plan({ group, peer, successor, at: successor.at }, { pool, name });
      return true;
    }
    suspect.problem = [`${who} owns ${name}, too`, ...WHY_NOT[verdict]].join("; ");
    if (suspect.problem !== before) log.error({ group: name, peer: who }, suspect.problem);
    return false;
  }

  /** Peers that were sent the group, and may own it. */
  #candidates(group: string, besides: string): string[] {
    const { peers, protections } = this.#options;
    const all = protections.peersOf(uuidOf(group));
    return all.filter((peer) => peer !== besides && peers.has(peer, "may-own", group));
  }

  /** What other peers say that may own the group; who is not connected cannot be asked. */
  async #rivals(group: string, epochId: string, besides: string): Promise<Successor[]> {
    const { peers } = this.#options;
    const others = this.#candidates(group, besides).filter((peer) => peers.isConnected(peer));
    const asked = others.map((peer) => peers.call("successorOf", { peer, group, epochId, lsn: null }));
    return (await Promise.all(asked)).flatMap((successor) => successor ?? []);
  }

  /**
   * This site's group is owned by the peer now: what is here after the last common recovery point becomes a fork
   * (none, where that is nothing), and a follower takes its place. Fulfils when the follower is there, and nobody can
   * change the group here any more; then the new owner is asked to send, which may take until it is connected. Fails
   * with the first failure before that, and is tried again all the same. Repeated, it does nothing.
   */
  async becomeFollower(handover: Handover): Promise<void> {
    const { group, successor } = handover;
    if (!this.#running.has(group)) {
      const found = await this.#book.find(group);
      // It follows itself, or its fork is gone.
      if (await this.#isDone(successor, found)) return;
      await this.#plan(handover, found ?? (await this.#book.local(group)));
    }
    await this.#placed(group);
  }

  async #isDone(successor: Successor, found: LocalGroup | undefined): Promise<boolean> {
    if (found === undefined) return await this.#book.follows(successor.group);
    const state = await found.pool.replication.state(found.name);
    return state !== null && isFollowerOf(state, successor);
  }

  /** What a group of this site becomes; undefined: nothing else, or it is done. */
  underWay(group: string): ReturnPlan | undefined {
    return this.#running.get(group)?.plan;
  }

  #placed(group: string): Promise<void> {
    const running = this.#running.get(group);
    if (running === undefined || PLACED.includes(running.state.step)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      running.placed.push((error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  async #plan({ group, peer, successor, at }: Handover, { pool, name }: LocalGroup) {
    if (this.#running.has(group)) return;
    const { supervisor, protections, replicas } = this.#options;
    const known = protections.find(uuidOf(group), peer);
    const state = await pool.replication.state(name);
    // A replica has its owner's promise.
    const rpoOf = state === null ? null : replicas.rpoOf(state.source);
    const volumes = (await supervisor.pools.volumes()).map(({ volume }) => volume);
    const copies = new Set(volumes.flatMap((volume) => (volume.group === name ? [volume.rf] : [])));
    const [rf = 0] = copies.size === 1 ? copies : [];
    const back = {
      rpoMs: known?.rpoMs ?? rpoOf ?? RPO_MS_DEFAULT,
      bytesPerSecond: known?.bytesPerSecond ?? null,
      rf,
    };
    const taken = new Set(volumes.flatMap((volume) => [volume.name, volume.group]));
    if (state?.isFork === true || this.#running.has(group)) return;
    this.#begin({ group, name, peer, successor, at, fork: forkName(name, taken), back }, { stored: false });
  }

  #begin(plan: ReturnPlan, how: { stored: boolean }): void {
    const running: Running = { plan, state: newReturn(how), timer: undefined, placed: [] };
    this.#running.set(plan.group, running);
    this.#feed(running, { type: "begin" });
  }

  #feed(running: Running, event: ReturnEvent): void {
    if (!this.#started) return;
    const [next, effects] = returning(running.state, event);
    running.state = next;
    if (PLACED.includes(next.step)) running.placed.splice(0).forEach((tell) => tell());
    if (next.step === "done") this.#running.delete(running.plan.group);
    for (const effect of effects) {
      if (effect.type === "run") this.#run(running, effect.step);
      else {
        const wait = Math.max(1, effect.atMs - performance.now());
        running.timer = setTimeout(
          () => this.#feed(running, { type: "tick", nowMs: performance.now() }),
          wait,
        );
      }
    }
  }

  #run(running: Running, step: Step): void {
    this.#steps.run(step, running.plan).then(
      ({ isEmpty, plan }) => {
        if (plan !== undefined) running.plan = plan;
        this.#feed(running, { type: "done", step, ...(isEmpty === undefined ? {} : { isEmpty }) });
      },
      (error: unknown) => {
        const body = toErrorBody(error);
        const { code, message } = body;
        const before = running.state.problem?.message;
        if (message !== before)
          this.#options.log.warn({ group: running.plan.name, step, problem: body }, "a return waits");
        const failure = new HoldfastError(code, message, body.hint);
        running.placed.splice(0).forEach((tell) => tell(failure));
        this.#feed(running, { type: "failed", step, code, message, nowMs: performance.now() });
      },
    );
  }

  /** The operator says that this site gives a group up to a peer that owns it, too. */
  async yield({ target, to, yes }: YieldRequest): Promise<YieldAnswer> {
    const { supervisor, peers, protections, replicas } = this.#options;
    const { group: name, pool } = await supervisor.resolve(target);
    const state = await pool.replication.state(name);
    const { uuid, lineage } = await pool.replication.identity(name);
    if (state?.isFork === true) throw new HoldfastError("Fenced", `${name} is a fork already`);
    if (state?.isReplica === true)
      return { group: name, already: true, to: to ?? "", fork: null, common: null };
    const owner = state === null ? undefined : replicas.ownerOf(state.source);
    const known = [...new Set([...protections.peersOf(uuid), ...(owner === undefined ? [] : [owner])])];
    const peer = to === undefined ? only(name, known) : peers.require(to).fingerprint;
    const found = await this.#book.owners(
      { name, pool, group: groupIdOf(uuid), epochId: epochIdOf(lineage) },
      (question) => peers.call("successorOf", { peer, ...question }),
    );
    const who = peers.nameOf(peer);
    if (found === null) {
      throw new HoldfastError(
        "Conflict",
        `${who} does not own what ${name} is here: there is nobody to yield to`,
        "name the peer that does: --to PEER",
      );
    }
    const time = found.successor.timeNs === 0n ? null : isoTimeOf(found.successor.timeNs);
    const common = found.at === null ? null : { lsn: found.at, time };
    if (!yes) {
      const since =
        common === null ? "all of it" : `what was done here since LSN ${common.lsn}, ${time ?? ""},`;
      throw new HoldfastError(
        "NeedsYes",
        `this site gives ${name} up to ${who}: its mounts end, ${since} becomes a fork, and it follows ${who}`,
        "add --yes to do it",
      );
    }
    await this.becomeFollower({ group: groupIdOf(uuid), peer, ...found });
    const fork = this.#running.get(groupIdOf(uuid))?.plan.fork ?? null;
    return { group: name, already: false, to: who, fork, common };
  }

  /** Sentences for the administrator. */
  warnings(): string[] {
    const { peers } = this.#options;
    return [
      ...[...this.#running.values()].map(({ plan, state }) => {
        const why = state.problem === null ? "" : `: ${state.problem.message}`;
        return `group ${plan.name} becomes a follower of ${peers.nameOf(plan.peer)} (${WORDS[state.step]})${why}`;
      }),
      ...[...this.#suspects.values()].flatMap(({ problem }) => (problem === "" ? [] : [problem])),
    ];
  }
}

/** Why this site goes on, and the way out. */
const WHY_NOT = {
  denied: [
    "it lacks the role may-own here, so this site goes on as the owner",
    "to follow it: holdfast peer set PEER with that role beside its others",
    "else at the peer: holdfast failover GROUP --yield",
  ],
  contested: [
    "so does another peer, and this site does not choose",
    "at the one that is to give up: holdfast failover GROUP --yield --to PEER",
  ],
  split: [
    "both went on from the same former owner's, so neither yields by itself",
    "at the site that is to give up: holdfast failover GROUP --yield",
  ],
};

const WORDS: Readonly<Record<Return["step"], string>> = {
  save: "about to begin",
  fence: "being closed to writers",
  release: "being closed to writers",
  unmount: "being unmounted",
  look: "looking at its tail",
  turn: "nothing was lost",
  rejoin: "its tail becomes a fork",
  unprotect: "not sent to others any more",
  follow: "waits to be sent",
  forget: "waits to be sent",
  done: "done",
};

function only(name: string, peers: readonly string[]): string {
  const [first, ...more] = peers;
  if (first !== undefined && more.length === 0) return first;
  throw new HoldfastError("Invalid", `say to whom ${name} is given up: --to PEER`, "see: holdfast peer list");
}

/** `home-fork-20261128T153000`: when it was found out. */
function forkName(group: string, taken: ReadonlySet<string>): string {
  const stamp = new Date().toISOString().replace(/[-:]|\.\d+Z$/g, "");
  const base = `${group.slice(0, NAME_CHARACTERS_MAX - "-fork-".length - stamp.length - 3)}-fork-${stamp}`;
  for (let count = 1; ; count += 1) {
    const name = count === 1 ? base : `${base}-${count}`;
    if (!taken.has(name)) return name;
  }
}
