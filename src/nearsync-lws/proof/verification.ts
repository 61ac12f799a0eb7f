// One comparison of an owner's group with a peer's replica of it, led from the owner's side; and its repair.
//
// - Both ends keep the recovery point while it runs. It is the newest one that the peer has; where that goes before
//   the peer has opened it, a newer one is taken.
// - One question at a time, and as long a rest after each answer as it took: half of the time is left to others.
// - A repair goes from the owner to the replica, never the other way: what differs is sent again with the next batch,
//   and when the peer has that, the ranges in question are compared again, at the new point. More than goes into one
//   batch is repaired in rounds; comparing goes on behind each.

import { HoldfastError } from "../../io-path/errors.js";
import { Proof, mend } from "../../io-path/proof.js";
import type { Mismatch, ProofLead, ProofVerdict } from "../../io-path/proof.js";
import type { Place } from "../engine-door.js";
import {
  MENDS_BYTES_MAX,
  MEND_MS,
  MISMATCHES_LISTED_MAX,
  MISMATCHES_MAX,
  RESUME_MS,
  SUSPECTS_MAX,
} from "../limits.js";
import { nowOf } from "../replication/owned.js";
import type { Clock } from "../seams.js";
import { joined, newReport } from "./report.js";
import type { VerifyReport } from "./report.js";

export interface VerificationOptions {
  clock: Clock;
  place: Place;
  epochId: string;
  repair: boolean;
  /** The peer's newest recovery point, and bytes that were sent to it. */
  follower: () => { has: number | null; bytesSent: number } | undefined;
  /** The peer's answer, of its point; an empty question is not answered: nothing more is asked. */
  ask: (lsn: number, question: Uint8Array) => Promise<Uint8Array>;
  /** A cut as soon as there is room. */
  force: () => void;
}

/** A point that both keep, and the first answer about it. */
interface Point {
  lsn: number;
  proof: Proof;
  lead: ProofLead;
  answer: Uint8Array;
}

interface Pass {
  /** Where comparing goes on; empty: everything was compared. */
  next: Uint8Array;
  found: number;
  suspects: Uint8Array[];
  mends: Uint8Array[];
  /** The last ranges have more than goes into one batch. */
  isCut: boolean;
}

const NONE = new Uint8Array(0);
/** Points that may go before the peer has opened them. */
const OPENS_MAX = 8;
const LOOK_MS = 100;

export class Verification {
  readonly #options: VerificationOptions;
  #report: VerifyReport;
  #point: Point | undefined;
  /** Differences that are left behind: those that no repair took away. */
  #settled = 0;
  /** Keys that were sent again last. */
  #mended: Buffer = Buffer.alloc(0);
  #isStopped = false;
  #wake: () => void = () => undefined;

  constructor(options: VerificationOptions) {
    this.#options = options;
    this.#report = newReport(options.repair, Number(options.clock.wallNs() / 1_000_000n));
  }

  get report(): VerifyReport {
    return this.#report;
  }

  /** Ends it before the next question. */
  stop(): void {
    this.#isStopped = true;
    this.#wake();
  }

  /** Fulfils at its end, however that comes; `report` says. */
  async run(): Promise<void> {
    try {
      await this.#compare();
      const { found, left, repair, isWhole } = this.#report;
      const repaired = repair && left === 0 && isWhole;
      this.#tell({ state: found === 0 ? "equal" : repaired ? "repaired" : "different" });
    } catch (error) {
      const code = error instanceof HoldfastError ? error.code : "Internal";
      const message = (error instanceof Error ? error.message : String(error)).slice(0, 500);
      this.#tell(this.#isStopped ? { state: "stopped" } : { state: "failed", problem: { code, message } });
    } finally {
      this.#close();
      this.#tell({ endedMs: Number(this.#options.clock.wallNs() / 1_000_000n) });
    }
  }

  #tell(change: Partial<VerifyReport>): void {
    this.#report = { ...this.#report, ...change };
  }

  async #compare(): Promise<void> {
    let next: Uint8Array = NONE;
    do {
      const point = await this.#open(next);
      const pass = await this.#pass(point, next);
      next = pass.next;
      if (this.#options.repair && pass.mends.length > 0) await this.#repair(pass);
      else {
        this.#settled += pass.found;
        // So many that nobody needs more.
        if (next.length > 0) return this.#tell({ isWhole: false });
      }
    } while (next.length > 0);
  }

  /** The newest point that both have, with the answer about what comes first. */
  async #open(from: Uint8Array): Promise<Point> {
    this.#close();
    const { place, epochId, ask } = this.#options;
    for (let attempt = 1; ; attempt += 1) {
      this.#check();
      const lsn = await this.#has();
      let proof: Proof | undefined;
      try {
        proof = await Proof.open(place.pool, place.name, {
          lineage: BigInt(`0x${epochId}`),
          lsn: BigInt(lsn),
        });
        const lead = await proof.lead(from);
        const answer = await ask(lsn, lead.question);
        this.#point = { lsn, proof, lead, answer };
        this.#tell({ lsn });
        return this.#point;
      } catch (error) {
        proof?.close();
        const isGone = error instanceof HoldfastError && error.code === "NotFound";
        if (!isGone || attempt >= OPENS_MAX) throw error;
        await this.#rest(LOOK_MS);
      }
    }
  }

  /** The peer's newest point, once it has said what it has. */
  async #has(): Promise<number> {
    const { clock, follower } = this.#options;
    const endMs = nowOf(clock) + RESUME_MS;
    for (;;) {
      const has = follower()?.has ?? null;
      if (has !== null) return has;
      if (nowOf(clock) > endMs) {
        throw new HoldfastError("Unavailable", "the peer has no recovery point yet, or does not say which");
      }
      await this.#rest(LOOK_MS);
    }
  }

  #close(): void {
    const point = this.#point;
    this.#point = undefined;
    if (point === undefined) return;
    point.proof.close();
    this.#options.ask(point.lsn, NONE).catch(() => undefined);
  }

  /** Until the end, or until enough was found. */
  async #pass({ lsn, proof, ...first }: Point, from: Uint8Array): Promise<Pass> {
    const pass: Pass = { next: from, found: 0, suspects: [], mends: [], isCut: false };
    let { lead, answer } = first;
    for (;;) {
      const startMs = nowOf(this.#options.clock);
      const verdict = await proof.compare(lead, answer);
      await this.#lookAt({ lsn, proof }, verdict, pass);
      const { ranges, entries, bytes } = this.#report;
      this.#tell({
        ranges: ranges + verdict.ranges,
        entries: entries + verdict.entries,
        bytes: bytes + lead.bytes,
      });
      const isMuch = bytesOf(pass.mends) > MENDS_BYTES_MAX || pass.suspects.length >= SUSPECTS_MAX;
      const isEnough = this.#options.repair ? isMuch : this.#report.found >= MISMATCHES_MAX;
      if (pass.next.length === 0 || isEnough) return pass;
      await this.#rest(nowOf(this.#options.clock) - startMs);
      lead = await proof.lead(pass.next);
      answer = await this.#options.ask(lsn, lead.question);
    }
  }

  /** What differs in the ranges of a verdict. Where that is more than can be sent again at once, they come again. */
  async #lookAt(point: Pick<Point, "lsn" | "proof">, verdict: ProofVerdict, pass: Pass): Promise<void> {
    let { next } = verdict;
    let found = 0;
    for (const suspect of verdict.suspects) {
      const { mismatches, mends, reached } = await this.#look(point, suspect);
      found += mismatches.length;
      this.#tell({
        found: this.#report.found + mismatches.length,
        left: this.#settled + pass.found + found,
        mismatches: joined(this.#report.mismatches, mismatches, MISMATCHES_LISTED_MAX),
      });
      pass.mends.push(...mends);
      if (this.#options.repair && bytesOf(pass.mends) > MENDS_BYTES_MAX) {
        pass.isCut = true;
        return;
      }
      // What only one side has is passed over as a whole.
      if (next.length > 0 && Buffer.compare(reached, next) > 0) next = reached;
    }
    pass.suspects.push(...verdict.suspects);
    pass.found += found;
    pass.next = next;
  }

  /** What differs in a range. */
  async #look({ lsn, proof }: Pick<Point, "lsn" | "proof">, suspect: Uint8Array) {
    const mismatches: Mismatch[] = [];
    const mends: Uint8Array[] = [];
    let [question, reached]: [Uint8Array | null, Uint8Array] = [suspect, NONE];
    while (question !== null) {
      this.#check();
      const answer = await this.#options.ask(lsn, question);
      const found = await proof.mismatches(question, answer);
      mismatches.push(...found.mismatches);
      if (found.mends.length > 0) mends.push(found.mends);
      ({ reached, rest: question } = found);
      const isEnough = this.#options.repair
        ? bytesOf(mends) > MENDS_BYTES_MAX
        : mismatches.length >= MISMATCHES_MAX;
      if (isEnough) break;
    }
    return { mismatches, mends, reached };
  }

  /** Sends again what differs, and compares those ranges once more when the peer has it. */
  async #repair({ suspects, mends, isCut }: Pass): Promise<void> {
    const { place } = this.#options;
    const all = Buffer.concat(mends);
    if (isCut && this.#mended.equals(all)) {
      throw new HoldfastError("Internal", "what was sent again is not there: the replica does not change");
    }
    this.#mended = all;
    const target = await mend(place.pool, place.name, all);
    this.#options.force();
    await this.#arrival(target);
    const point = await this.#open(NONE);
    for (const suspect of suspects) this.#settled += (await this.#look(point, suspect)).mismatches.length;
    this.#tell({ left: this.#settled });
  }

  /** Until the peer has this point. */
  async #arrival(target: number): Promise<void> {
    const { clock, follower } = this.#options;
    let [moved, sinceMs] = ["", nowOf(clock)];
    for (;;) {
      this.#check();
      const now = follower();
      if (now === undefined) throw new HoldfastError("Conflict", "the group was unprotected meanwhile");
      if ((now.has ?? 0) >= target) return;
      const state = `${now.has} ${now.bytesSent}`;
      if (state !== moved) [moved, sinceMs] = [state, nowOf(clock)];
      if (nowOf(clock) - sinceMs > MEND_MS) {
        throw new HoldfastError("Unavailable", "the peer does not get what is sent again: it has not moved");
      }
      await this.#rest(LOOK_MS);
    }
  }

  #check(): void {
    if (this.#isStopped) throw new HoldfastError("Closed", "it was stopped");
  }

  async #rest(ms: number): Promise<void> {
    this.#check();
    if (ms >= 1) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        this.#options.clock.after(ms, resolve);
      });
    }
    this.#check();
  }
}

function bytesOf(list: readonly Uint8Array[]): number {
  return list.reduce((sum, one) => sum + one.length, 0);
}
