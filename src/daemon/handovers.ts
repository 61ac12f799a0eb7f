// Planned changes of owner, at both sides: who asked for what, and what was left to do when the daemon started.
//
// - Giver: see giving.ts. To whom is noted before the engine says "given away"; a start goes on granting what was given
//   and is not taken, and forgets notes of groups that were not, or that are something else by now.
// - What was taken is left: its mounts end, each when nobody uses it, but within `LEAVE_MS`; then this site follows the
//   new owner (returns.ts), and the note goes.
// - Taker: see taking.ts.

import { setTimeout as delay } from "node:timers/promises";
import { HoldfastError } from "../io-path/errors.js";
import type { ErrorCode } from "../io-path/errors.js";
import { pathFromJson } from "../io-path/paths.js";
import { epochIdOf, groupIdOf, uuidOf } from "../nearsync-lws/engine-door.js";
import { LEAVE_MS } from "../nearsync-lws/limits.js";
import { newGiver, resumedGiver } from "../nearsync-lws/machines/handover.js";
import type { Problem, Taken } from "../nearsync-lws/machines/handover.js";
import type { HandoverMessage } from "../nearsync-lws/replication/replication.js";
import { toErrorBody } from "./failure.js";
import { Giving, failureOf, now } from "./giving.js";
import { notesFile } from "./handovers-file.js";
import type { Note } from "./handovers-file.js";
import { findGroup, volumeNames } from "./local-groups.js";
import type { Log } from "./log.js";
import type { Peers } from "./peers.js";
import { EXIT_CODES } from "./protocol.js";
import type { PlannedAnswer, PlannedRequest } from "./protocol.js";
import type { Protections } from "./protections.js";
import type { Replicas } from "./replicas.js";
import type { Returns } from "./returns.js";
import type { StateFolder } from "./state-folder.js";
import { timeAt } from "./successors.js";
import type { Supervisor } from "./supervisor.js";
import { Takings } from "./taking.js";
import type { Local, Waiting } from "./taking.js";

export interface HandoversOptions {
  folder: StateFolder;
  supervisor: Supervisor;
  peers: Peers;
  protections: Protections;
  replicas: Replicas;
  returns: Pick<Returns, "becomeFollower" | "underWay">;
  log: Log;
}

const TICK_MS = 100;
/** Between two looks at pools that open late, and at mounts that are used still. */
const LOOK_TICKS = 10;
/** After it was given a peer that is there has taken it within this; one that is not does it later. */
const TAKE_MS = 10_000;
/** Of a message, as the wire bounds it. */
const TEXT_CHARACTERS_MAX = 500;

export class Handovers {
  readonly #options: HandoversOptions;
  /** By uuid of the group here. */
  readonly #giving = new Map<string, { giving: Giving; waiting: Waiting[]; asked: boolean }>();
  readonly #takings: Takings;
  #notes: Note[];
  #timer: NodeJS.Timeout | undefined;
  #ticks = 0;
  #resuming = false;
  /** Groups that were taken, and since when their mounts are to end. */
  readonly #leaving = new Map<string, number>();
  #stopping = false;

  constructor(options: HandoversOptions) {
    this.#options = options;
    this.#notes = notesFile.read(options.folder);
    const { supervisor, peers, replicas, log } = options;
    this.#takings = new Takings({
      ...{ supervisor, peers, replicas, log },
      tell: (peer, message) => this.#tell(peer, message),
      complain: (peer, group, problem) => this.#complain(peer, group, problem),
    });
  }

  /** Goes on with what was given before the start. */
  async start(): Promise<void> {
    await this.#resume({ first: true });
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#timer);
    await Promise.all([...this.#giving.values()].map(({ giving }) => giving.giveUp()));
  }

  /**
   * Before what was given is taken back: nobody is granted it any more, also after a start. `Conflict`: it was taken.
   */
  revoke(uuid: string): void {
    const note = this.#notes.find(({ group }) => group === uuid);
    if (note?.taken != null) {
      throw new HoldfastError(
        "Conflict",
        `${this.#options.peers.nameOf(note.peer)} has taken it, and this site is about to follow`,
        "ask again in a moment: then it goes on from what it follows",
      );
    }
    this.#giving.get(uuid)?.giving.revoke();
    if (note !== undefined) this.#write(note, null);
  }

  /** Whether the group was given in order, to somebody who is known: what comes of that is seen to here. */
  keeps(uuid: string): boolean {
    return this.#notes.some(({ group }) => group === uuid);
  }

  /** Sentences for the administrator. */
  warnings(): string[] {
    return [...this.#giving.values()].flatMap(({ giving: { options, state } }) => {
      if (state.phase !== "granting") return [];
      const why = state.problem === null ? "it has not answered yet" : state.problem.message;
      const peer = this.#options.peers.nameOf(options.peer);
      return [`group ${options.name} was given to ${peer} and is read-only here: ${why}`];
    });
  }

  #tick(): void {
    for (const { giving } of this.#giving.values()) giving.tick();
    this.#takings.tick();
    this.#ticks += 1;
    if (this.#ticks % LOOK_TICKS !== 0 || this.#resuming) return;
    this.#resume({ first: false }).catch((error: unknown) => {
      // Pools close under what is under way then.
      if (this.#stopping) return;
      this.#options.log.error(error, "groups that were given could not be looked after");
    });
  }

  async #resume(how: { first: boolean }): Promise<void> {
    this.#resuming = true;
    try {
      for (const note of this.#notes) await this.#resumeOne(note, how);
    } finally {
      this.#resuming = false;
    }
  }

  /** Only a start knows that what is not given never will be. */
  async #resumeOne(note: Note, { first }: { first: boolean }): Promise<void> {
    const local = await this.#local(note.group);
    const state = await local?.pool.replication.state(local.name);
    const { giving } = this.#giving.get(note.group) ?? {};
    if (local === undefined) {
      // It may come when its pool opens.
      return;
    }
    if (state?.isFork === true || state?.isReplica === true) {
      // It follows, or is about to: returns.json knows.
      giving?.revoke();
      this.#write(note, null);
    } else if (giving !== undefined) return;
    else if (state?.isGiven !== true) {
      if (first) this.#write(note, null);
    } else if (note.taken === null) await this.#begin(local, note.peer, resumedGiver(note.lsn, now()));
    else await this.#leave(local, { peer: note.peer, taken: note.taken });
  }

  /** Whoever has a file open can read on for a while. */
  async #leave(local: Local, { peer, taken }: { peer: string; taken: Taken }): Promise<void> {
    const { supervisor, returns, log } = this.#options;
    const sinceMs = this.#leaving.get(local.uuid) ?? now();
    this.#leaving.set(local.uuid, sinceMs);
    const volumes = await volumeNames(local);
    const mounts = supervisor.mounts.answers().filter(({ volume }) => volumes.includes(volume));
    let isUsed = false;
    for (const mount of mounts) {
      const dir = pathFromJson(mount);
      try {
        if (dir !== undefined) await supervisor.unmount(dir, { detach: false });
      } catch (error) {
        if (!(error instanceof HoldfastError) || error.code !== "Conflict") throw error;
        isUsed = true;
      }
    }
    if (isUsed && now() - sinceMs < LEAVE_MS) return;
    const timeNs = (await timeAt(local.pool, local.name, taken.lsn)) ?? 0n;
    const { lineage } = await local.pool.replication.identity(local.name);
    const successor = {
      ...{ group: groupIdOf(taken.uuid), epochId: taken.epochId, lsn: taken.localLsn },
      ...{ of: epochIdOf(lineage), at: taken.lsn, timeNs },
    };
    // It tries again by itself, and others are looked after meanwhile.
    returns
      .becomeFollower({ group: groupIdOf(local.uuid), peer, successor, at: taken.lsn })
      .then(() => this.#leaving.delete(local.uuid))
      .catch((error: unknown) => {
        log.debug({ group: local.name, reason: toErrorBody(error).message }, "it does not follow yet");
      });
  }

  #write(note: Pick<Note, "group" | "peer">, next: { lsn: number; taken: Taken | null } | null): void {
    const others = this.#notes.filter(({ group }) => group !== note.group);
    const { group, peer } = note;
    const list = next === null ? others : [...others, { group, peer, ...next }];
    notesFile.write(this.#options.folder, list);
    this.#notes = list;
  }

  async #local(uuid: string): Promise<Local | undefined> {
    const found = await findGroup(this.#options.supervisor.pools, uuid);
    return found && { ...found, uuid };
  }

  /** At the replica's site: it becomes the owner. At the owner's, with `to`: that peer does. Idempotent. */
  async planned({ target, to }: PlannedRequest): Promise<PlannedAnswer> {
    const { supervisor, replicas } = this.#options;
    // Its name may be on its way from one group to another.
    const { group: name, pool } = await supervisor.exclusively(() => supervisor.resolve(target));
    const [state, { uuid }] = [await pool.replication.state(name), await pool.replication.identity(name)];
    const local = { pool, name, uuid };
    if (state?.isReplica === true) {
      if (to === undefined) return await this.#takings.ask(local, state.source);
      return this.#already(name, to, { peer: replicas.ownerOf(state.source), lsn: Number(state.lsn) });
    }
    const plan = this.#options.returns.underWay(groupIdOf(uuid));
    if (plan !== undefined) return this.#already(name, to, { peer: plan.peer, lsn: plan.at ?? 0 });
    if (state?.isGiven === true) return await this.#given(local, to);
    if (to !== undefined) return await this.#give(local, to);
    if (state?.branch != null && !state.isFork) {
      return { group: name, already: true, owner: null, lsn: Number(state.lsn), waitedMs: null };
    }
    const peers = this.#options.protections.peersOf(uuid);
    throw new HoldfastError(
      "Invalid",
      `${name} is owned here: say who is to be its owner`,
      peers.length === 0
        ? `protect it first: holdfast protect ${name} --to PEER`
        : `holdfast failover ${name} --planned --to ${peers.map((peer) => this.#options.peers.nameOf(peer)).join("|")}`,
    );
  }

  /** It is owned by a peer, which this site follows, or is about to. */
  #already(
    name: string,
    to: string | undefined,
    { peer, lsn }: { peer: string | undefined; lsn: number },
  ): PlannedAnswer {
    const owner = peer === undefined ? "another site" : this.#options.peers.nameOf(peer);
    if (to !== undefined && this.#options.peers.require(to).fingerprint !== peer) {
      throw new HoldfastError(
        "Conflict",
        `${name} is owned by ${owner}`,
        "ask there, or first here: without --to",
      );
    }
    return { group: name, already: true, owner, lsn, waitedMs: null };
  }

  async #give(local: Local, to: string): Promise<PlannedAnswer> {
    const { fingerprint: peer } = this.#options.peers.require(to);
    this.#requireProtected(local, peer);
    await this.#started(local, peer);
    const { giving } = this.#giving.get(local.uuid) ?? {};
    await this.#outcome(local.uuid);
    const { lsn, waitedMs } = giving?.state ?? { lsn: null, waitedMs: null };
    return { group: local.name, already: false, owner: to, lsn: lsn ?? 0, waitedMs };
  }

  #requireProtected({ uuid, name }: Local, peer: string): void {
    if (this.#options.protections.peersOf(uuid).includes(peer)) return;
    const to = this.#options.peers.nameOf(peer);
    throw new HoldfastError(
      "NotFound",
      `${name} is not protected to ${to}, which has nothing of it`,
      `first: holdfast protect ${name} --to ${to}`,
    );
  }

  /** Begun now, or before for the same peer. */
  async #started(local: Local, peer: string): Promise<void> {
    const there = this.#giving.get(local.uuid);
    if (there === undefined) return await this.#begin(local, peer, newGiver(now()));
    if (there.giving.options.peer === peer) return;
    const other = this.#options.peers.nameOf(there.giving.options.peer);
    throw new HoldfastError("Conflict", `${local.name} is being handed over to ${other}`);
  }

  async #begin(local: Local, peer: string, step: ReturnType<typeof newGiver>): Promise<void> {
    if (this.#stopping) throw new HoldfastError("Closed", "the daemon stops");
    const { peers, log, supervisor } = this.#options;
    const { uuid, name, pool } = local;
    const { lineage } = await pool.replication.identity(name);
    const volumes = await volumeNames(local);
    // Somebody else may have begun it meanwhile.
    if (this.#giving.has(uuid)) return;
    const giving = new Giving(
      {
        ...{ uuid, name, lineage, peer, peers, log },
        replication: pool.replication,
        writeBack: (limitMs) => supervisor.mounts.writeBack(volumes, limitMs),
        note: (note) => this.#write({ group: uuid, peer }, note),
        ended: (problem) => this.#ended(uuid, problem),
      },
      step,
    );
    this.#giving.set(uuid, { giving, waiting: [], asked: false });
  }

  #ended(uuid: string, problem: Problem | null): void {
    const there = this.#giving.get(uuid);
    this.#giving.delete(uuid);
    if (there === undefined) return;
    const { giving, waiting, asked } = there;
    if (problem !== null && asked) this.#complain(giving.options.peer, groupIdOf(uuid), problem);
    for (const { resolve, reject } of waiting) {
      if (problem === null) resolve();
      else reject(failureOf(problem, "the group stays here, and who writes to it goes on"));
    }
  }

  /** Fulfils when it is taken. */
  async #outcome(uuid: string): Promise<void> {
    const there = this.#giving.get(uuid);
    if (there === undefined) return;
    const { giving } = there;
    const over = new Promise<void>((resolve, reject) => there.waiting.push({ resolve, reject }));
    const ended = new AbortController();
    const late = async () => {
      let grantedMs: number | undefined;
      for (;;) {
        await delay(TICK_MS, undefined, { signal: ended.signal });
        if (giving.state.phase !== "granting") continue;
        grantedMs ??= now();
        const { problem } = giving.state;
        const peer = this.#options.peers.nameOf(giving.options.peer);
        const hint = `it is granted again and again; ask again, or see: holdfast status`;
        if (problem !== null) {
          throw failureOf({ ...problem, message: `${peer} does not take it: ${problem.message}` }, hint);
        }
        if (now() - grantedMs > TAKE_MS) {
          throw new HoldfastError("Unavailable", `it was given to ${peer}, which has not answered yet`, hint);
        }
      }
    };
    try {
      await Promise.race([over, late()]);
    } finally {
      ended.abort();
    }
  }

  /** It was given away. */
  async #given(local: Local, to: string | undefined): Promise<PlannedAnswer> {
    const { name, uuid } = local;
    const note = this.#notes.find(({ group }) => group === uuid);
    if (note === undefined) {
      throw new HoldfastError(
        "Fenced",
        `${name} was given away, and nothing says to whom`,
        "see the other sites: failover --planned there goes on; when none has it: failover --unplanned here",
      );
    }
    const owner = this.#options.peers.nameOf(note.peer);
    if (to !== undefined && this.#options.peers.require(to).fingerprint !== note.peer) {
      throw new HoldfastError("Conflict", `${name} was given to ${owner}`, "ask there");
    }
    const already = note.taken !== null;
    if (!already) await this.#outcome(uuid);
    return { group: name, already, owner, lsn: note.lsn, waitedMs: null };
  }

  /** What the other side of a handover says. */
  async heard({ peer, message }: { peer: string; message: HandoverMessage }): Promise<void> {
    const { group } = message.body;
    try {
      if (message.type === "relinquish") await this.#asked(peer, message.body);
      else if (message.type === "grant") await this.#takings.granted(peer, message.body);
      else if (message.type === "taken") this.#taken(peer, message.body);
      else this.#refused(peer, message.body);
    } catch (error) {
      const { code, message: text, hint } = toErrorBody(error);
      this.#complain(peer, group, {
        code: code,
        message: hint === "" ? text : `${text}; ${hint}`,
      });
    }
  }

  #complain(peer: string, group: string, { code, message }: Problem): void {
    const body = { group, code, message: message.slice(0, TEXT_CHARACTERS_MAX) };
    this.#tell(peer, { type: "wait", body });
  }

  #tell(peer: string, message: HandoverMessage): void {
    this.#options.peers.call("tell", { peer, message }).catch((error: unknown) => {
      // The other side asks again.
      this.#options.log.warn({ reason: toErrorBody(error).message }, `${message.type} could not be sent`);
    });
  }

  /** A peer wants a group of this site. */
  async #asked(peer: string, { group, epochId }: Extract<HandoverMessage, { type: "relinquish" }>["body"]) {
    const local = await this.#local(uuidOf(group));
    if (local === undefined) throw new HoldfastError("NotFound", "the group is not here");
    const { replication } = local.pool;
    const [state, { lineage }] = [
      await replication.state(local.name),
      await replication.identity(local.name),
    ];
    if (state?.isReplica === true) throw new HoldfastError("Fenced", "it is a replica here, too");
    if (epochIdOf(lineage) !== epochId) throw new HoldfastError("Fenced", "the replica is of another epoch");
    const note = this.#notes.find((one) => one.group === local.uuid);
    if (state?.isGiven === true) {
      if (note?.peer !== peer) throw new HoldfastError("Conflict", "it was given to another site");
      return this.#tell(peer, { type: "grant", body: { group, epochId, lsn: note.lsn } });
    }
    this.#requireProtected(local, peer);
    await this.#started(local, peer);
    const there = this.#giving.get(local.uuid);
    if (there !== undefined) there.asked = true;
  }

  #taken(peer: string, { group, lsn, by }: Extract<HandoverMessage, { type: "taken" }>["body"]): void {
    const there = this.#giving.get(uuidOf(group));
    if (there === undefined || there.giving.options.peer !== peer) return;
    there.giving.taken({ uuid: uuidOf(by.group), epochId: by.epochId, lsn, localLsn: by.lsn });
  }

  #refused(peer: string, { group, code, message }: Extract<HandoverMessage, { type: "wait" }>["body"]): void {
    const problem = { code: code in EXIT_CODES ? (code as ErrorCode) : ("Conflict" as const), message };
    this.#takings.refused(peer, group, problem);
    const there = this.#giving.get(uuidOf(group));
    if (there?.giving.options.peer === peer) there.giving.refused(problem);
  }
}
