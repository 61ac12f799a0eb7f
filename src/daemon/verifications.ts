// Comparisons of replicas with what is owned here: when somebody asks, at either site, and by themselves as the
// configuration says. The worker does the comparing; here is what came of it.
//
// - By themselves: so often, on a grid of UTC. What was missed while the daemon was down, or the peer away, is made up
//   for once.
// - What failed is tried again a minute later, and the one before stays what is known of the two.

import { HoldfastError } from "../io-path/errors.js";
import { groupIdOf } from "../nearsync-lws/engine-door.js";
import { newReport } from "../nearsync-lws/proof/report.js";
import type { VerifyReport } from "../nearsync-lws/proof/report.js";
import type { VerifyAction } from "../nearsync-lws/proof/verifications.js";
import type { Log } from "./log.js";
import type { Peers } from "./peers.js";
import { parseEvery } from "./policy/schedule.js";
import type { Schedule } from "./policy/schedule.js";
import type { Protections } from "./protections.js";
import type { StoredProtection } from "./protections-file.js";
import type { VerificationAnswer, VerifyRequest } from "./protocol.js";
import type { Replicas } from "./replicas.js";
import type { StateFolder } from "./state-folder.js";
import type { Supervisor } from "./supervisor.js";
import { verificationsFile } from "./verifications-file.js";
import type { StoredVerification } from "./verifications-file.js";

export interface VerificationsOptions {
  folder: StateFolder;
  supervisor: Supervisor;
  peers: Peers;
  protections: Protections;
  replicas: Replicas;
  /** How often by themselves; undefined: only when somebody asks. */
  every: string | undefined;
  log: Log;
}

type Named = Pick<VerifyRequest, "target" | "peer">;

/** The two sides as the worker knows them. */
interface Pair {
  /** Of the group here. */
  name: string;
  /** The owner's uuid of the group. */
  group: string;
  /** The other side's fingerprint. */
  peer: string;
}

/** One protection, and what is known of it now. */
interface Known {
  stored: StoredVerification;
  /** It runs, or has ended just now. */
  running: VerifyReport | undefined;
  /** When the newest began whose end is known. */
  notedMs: number;
  /** Why the newest did not come to an end; empty: it did. */
  problem: string;
  /** Not by itself before this. */
  retryMs: number;
}

const WATCH_MS = 1000;
const RETRY_MS = 60_000;
/** What could not even begin: the peer is not there yet, or the protection has not begun. */
const BEGIN_AGAIN_MS = 2000;
/** Differences that are kept in the file. */
const KEPT_MAX = 100;

export class Verifications {
  readonly #options: VerificationsOptions;
  readonly #schedule: Schedule | undefined;
  readonly #known = new Map<string, Known>();
  #watch: NodeJS.Timeout | undefined;
  #isRunning = false;
  #round: Promise<void> = Promise.resolve();

  constructor(options: VerificationsOptions) {
    this.#options = options;
    this.#schedule = options.every === undefined ? undefined : parseEvery(options.every);
    for (const stored of verificationsFile.read(options.folder)) {
      this.#known.set(keyOf(stored), newlyKnown(stored));
    }
    options.protections.verified = (protection) => this.#verified(protection);
  }

  start(): void {
    this.#isRunning = true;
    this.#look();
  }

  async stop(): Promise<void> {
    this.#isRunning = false;
    clearTimeout(this.#watch);
    await this.#round;
  }

  #look(): void {
    this.#round = this.#reconcile()
      .catch((error: unknown) => this.#options.log.error(error, "looking after comparisons failed"))
      .finally(() => {
        if (this.#isRunning) this.#watch = setTimeout(() => this.#look(), WATCH_MS);
      });
  }

  /** Begins what is due, and notes what has ended. */
  async #reconcile(): Promise<void> {
    const { protections } = this.#options;
    const now = Date.now();
    this.#follow(protections.stored, now);
    for (const known of this.#known.values()) {
      if (!this.#isRunning) return;
      // It may have been begun from the other site.
      await this.#note(known);
      if (known.running !== undefined) continue;
      const due = dueMs(known, this.#schedule);
      if (due === null || due > now || known.retryMs > now) continue;
      known.retryMs = now + BEGIN_AGAIN_MS;
      await this.#call(known.stored, "start").then(
        (report) => (known.running = report ?? undefined),
        (error: unknown) => (known.problem = error instanceof Error ? error.message : String(error)),
      );
    }
  }

  /** Each protection is looked after from when it is there until it is not. */
  #follow(protections: readonly StoredProtection[], now: number): void {
    const wanted = new Set(protections.map(keyOf));
    const gone = [...this.#known.keys()].filter((key) => !wanted.has(key));
    for (const key of gone) this.#known.delete(key);
    const fresh = protections.filter((protection) => !this.#known.has(keyOf(protection)));
    for (const { group, peer } of fresh) {
      const stored: StoredVerification = { group, peer, sinceMs: now, last: null };
      this.#known.set(keyOf(stored), newlyKnown(stored));
    }
    if (gone.length > 0 || fresh.length > 0) this.#save();
  }

  /** How it fares; what has come to an end is written down. */
  async #note(known: Known): Promise<void> {
    const report = await this.#call(known.stored, "look").catch(() => null);
    if (report?.state === "running") {
      known.running = report;
      return;
    }
    const begun = known.running;
    known.running = undefined;
    if (report === null) {
      if (begun !== undefined) this.#failed(known, "the thread that talks to peers ended meanwhile");
      return;
    }
    if (report.startedMs <= known.notedMs) return;
    known.notedMs = report.startedMs;
    if (report.state === "failed") return this.#failed(known, report.problem?.message ?? "");
    if (report.state === "stopped") return this.#failed(known, "");
    known.problem = "";
    known.stored.last = { ...report, mismatches: report.mismatches.slice(0, KEPT_MAX) };
    this.#save();
    const { state, lsn, found, left } = report;
    const level = state === "different" ? "error" : "info";
    this.#options.log[level](
      { group: known.stored.group, state, lsn, found, left },
      "a replica was compared",
    );
  }

  #failed(known: Known, problem: string): void {
    known.problem = problem;
    known.retryMs = Date.now() + RETRY_MS;
  }

  #save(): void {
    verificationsFile.write(
      this.#options.folder,
      [...this.#known.values()].map(({ stored }) => stored),
    );
  }

  #call(
    { group, peer }: { group: string; peer: string },
    action: VerifyAction,
  ): Promise<VerifyReport | null> {
    return this.#options.peers.call("verify", { group: groupIdOf(group), peer, action });
  }

  /** Fulfils when it has begun. */
  async begin({ target, peer, repair }: VerifyRequest): Promise<VerificationAnswer> {
    const pair = await this.#pair({ target, peer });
    const report = await this.#call(pair, repair ? "repair" : "start");
    if (report === null) throw new HoldfastError("Internal", "it did not begin");
    const known = this.#known.get(keyOf(pair));
    if (known !== undefined) [known.running, known.problem] = [report, ""];
    return this.#answer(pair, report);
  }

  async look(named: Named): Promise<VerificationAnswer> {
    const pair = await this.#pair(named);
    const report = (await this.#call(pair, "look")) ?? this.#known.get(keyOf(pair))?.stored.last;
    if (report == null) {
      throw new HoldfastError(
        "NotFound",
        `${pair.name} was never compared with its replica at ${named.peer}`,
        `do it: holdfast verify ${pair.name} --peer ${named.peer}`,
      );
    }
    return this.#answer(pair, report);
  }

  async end(named: Named): Promise<VerificationAnswer> {
    const pair = await this.#pair(named);
    const report = await this.#call(pair, "stop");
    if (report === null) throw new HoldfastError("NotFound", "nothing is being compared");
    return this.#answer(pair, report);
  }

  /** The protection that is meant, or the replica. */
  async #pair({ target, peer: peerName }: Named): Promise<Pair> {
    const { supervisor, peers, protections, replicas } = this.#options;
    const { fingerprint: peer } = peers.require(peerName);
    const { group: name, pool } = await supervisor.resolve(target);
    const state = await pool.replication.state(name);
    if (state?.isReplica === true) {
      const owner = replicas.ownerOf(state.source);
      if (owner === peer) return { name, group: state.source, peer };
      const known = owner === undefined ? "an unknown site" : peers.nameOf(owner);
      throw new HoldfastError("Conflict", `${name} is a replica of ${known}'s`, "compare it with that site");
    }
    const { uuid: group } = await pool.replication.identity(name);
    if (protections.stored.some((one) => one.group === group && one.peer === peer))
      return { name, group, peer };
    throw new HoldfastError(
      "NotFound",
      `${name} is not protected to ${peerName}`,
      "what is protected to whom: holdfast protect list",
    );
  }

  #verified(protection: StoredProtection): VerificationAnswer | null {
    const known = this.#known.get(keyOf(protection));
    if (known === undefined) return null;
    const never: VerifyReport = { ...newReport(false, known.stored.sinceMs), state: "failed" };
    // What is known of the two stays so until the next one has ended.
    const report = known.stored.last ?? known.running ?? (known.problem === "" ? null : never);
    if (report === null) return null;
    return this.#answer({ ...protection, name: protection.group }, report, known.problem);
  }

  #answer(pair: Pair, report: VerifyReport, problem = ""): VerificationAnswer {
    const known = this.#known.get(keyOf(pair));
    const { startedMs, endedMs, problem: why, ...told } = report;
    const next = known === undefined ? null : dueMs(known, this.#schedule);
    return {
      group: pair.name,
      peer: this.#options.peers.nameOf(pair.peer),
      ...told,
      started: new Date(startedMs).toISOString(),
      ended: endedMs === null ? null : new Date(endedMs).toISOString(),
      problem: why?.message ?? problem,
      next: next === null ? null : new Date(next).toISOString(),
    };
  }
}

function keyOf({ group, peer }: { group: string; peer: string }): string {
  return `${group} ${peer}`;
}

function newlyKnown(stored: StoredVerification): Known {
  return { stored, running: undefined, notedMs: stored.last?.startedMs ?? 0, problem: "", retryMs: 0 };
}

/** When the next one should begin by itself; null: never. */
function dueMs({ stored }: Known, schedule: Schedule | undefined): number | null {
  return schedule?.after(stored.last?.startedMs ?? stored.sinceMs) ?? null;
}

/** Sentences for the administrator, of what is known of protections. */
export function verificationWarnings(all: readonly (VerificationAnswer | null)[]): string[] {
  return all.flatMap((one) => {
    if (one === null) return [];
    const { group, peer, state, left, lsn, ended, problem } = one;
    const many = left === 1 ? "1 difference" : `${left} differences`;
    const way = `see: holdfast verify ${group} --peer ${peer} --repair`;
    return [
      ...(state === "different"
        ? [`group ${group} at ${peer} is not what is here: ${many} at LSN ${lsn}, ${ended ?? ""}; ${way}`]
        : []),
      ...(problem === ""
        ? []
        : [`group ${group} could not be compared with its replica at ${peer}: ${problem}`]),
    ];
  });
}
