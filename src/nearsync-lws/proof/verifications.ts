// The comparisons of one site with its peers: those that it leads as an owner, those that it asks an owner for, and
// the answers to owners that compare.

import { HoldfastError } from "../../io-path/errors.js";
import type { ErrorCode } from "../../io-path/errors.js";
import type { Place } from "../engine-door.js";
import { PROOFS_MAX } from "../limits.js";
import type { Role } from "../peers.js";
import type { FollowerStatus } from "../replication/owned.js";
import type { Pipe } from "../replication/pipe.js";
import type { Clock } from "../seams.js";
import type { Body, Message } from "../wire/control.js";
import { Asker } from "./asker.js";
import { Prover } from "./prover.js";
import { decodeReport, encodeReport } from "./report.js";
import type { VerifyReport } from "./report.js";
import { Verification } from "./verification.js";

export interface VerificationsOptions {
  clock: Clock;
  /** Where a group lies here; `NotFound` where there is none. */
  place: (group: string) => Place;
  authorize: (peer: string, role: Role, group: string) => void;
  /** Epoch of a group that is owned here and sent to the peer. */
  epochOf: (group: string, peer: string) => string | undefined;
  follower: (group: string, peer: string) => FollowerStatus | undefined;
  force: (group: string) => void;
}

/** `look`: how it fares, or how the last one ended; null: there was none since the owner's daemon started. */
export type VerifyAction = Body<"verify">["action"];

export interface VerifyRequest {
  group: string;
  /** Of the other side, its fingerprint: the replica's at the owner, the owner's at the replica. */
  peer: string;
  action: VerifyAction;
}

export class Verifications {
  readonly #options: VerificationsOptions;
  readonly #asker: Asker;
  readonly #prover: Prover;
  readonly #runs = new Map<string, Verification>();
  readonly #running = new Set<Promise<void>>();

  constructor(options: VerificationsOptions) {
    this.#options = options;
    this.#asker = new Asker(options.clock);
    this.#prover = new Prover(options);
  }

  up(peer: string, pipe: Pipe): void {
    this.#prover.down(peer);
    this.#asker.up(peer, pipe);
  }

  down(peer: string, pipe: Pipe): void {
    // A newer session of the same peer stays.
    if (this.#asker.pipe(peer) === pipe) this.#prover.down(peer);
    this.#asker.down(peer, pipe);
  }

  /** False: it is a message of something else. */
  take(peer: string, pipe: Pipe, message: Message): boolean {
    if (message.type === "prove") this.#prover.take(peer, pipe, message.body);
    else if (message.type === "verify") this.#asked(peer, pipe, message.body);
    else if (message.type === "proved")
      this.#asker.take(peer, { ...message.body, number: message.body.proof });
    else if (message.type === "verified")
      this.#asker.take(peer, { ...message.body, number: message.body.ticket });
    else return false;
    return true;
  }

  /** At the owner, or at the replica's site. Starting what runs already is a `Conflict`. */
  async run({ group, peer, action }: VerifyRequest): Promise<VerifyReport | null> {
    if (this.#options.epochOf(group, peer) !== undefined) return this.#lead(group, peer, action);
    if (this.#asker.pipe(peer) === undefined) {
      if (action === "look") return null;
      throw new HoldfastError("Unavailable", "the peer is not connected", "see: holdfast peer list");
    }
    const answer = await this.#asker.ask(peer, (pipe, ticket) =>
      pipe.send("verify", { group, ticket, action }),
    );
    return decodeReport(answer);
  }

  #asked(peer: string, pipe: Pipe, { group, ticket, action }: Body<"verify">): void {
    const send = (answer: Buffer, code: ErrorCode | "", message: string) =>
      pipe.send("verified", { group, ticket, answer, code, message });
    try {
      this.#options.authorize(peer, "read", group);
      if (this.#options.epochOf(group, peer) === undefined) {
        throw new HoldfastError("NotFound", "the group is not protected to you");
      }
      const report = this.#lead(group, peer, action);
      send(report === null ? Buffer.alloc(0) : encodeReport(report), "", "");
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      send(Buffer.alloc(0), error.code, error.message.slice(0, 500));
    }
  }

  #lead(group: string, peer: string, action: VerifyAction): VerifyReport | null {
    const key = `${group} ${peer}`;
    const known = this.#runs.get(key);
    if (action === "stop") known?.stop();
    if (action === "stop" || action === "look") return known?.report ?? null;
    if (known?.report.state === "running") {
      throw new HoldfastError("Conflict", "the two are being compared already", "wait for the end of it");
    }
    if (this.#running.size >= PROOFS_MAX) {
      throw new HoldfastError("Unavailable", `${PROOFS_MAX} replicas are being compared already; try again`);
    }
    const run = this.#begin(group, peer, action === "repair");
    this.#runs.set(key, run);
    const running = run.run().finally(() => this.#running.delete(running));
    this.#running.add(running);
    return run.report;
  }

  #begin(group: string, peer: string, repair: boolean): Verification {
    const { clock, place, epochOf, follower, force } = this.#options;
    const epochId = epochOf(group, peer) ?? "";
    return new Verification({
      ...{ clock, epochId, repair, place: place(group) },
      follower: () => follower(group, peer),
      force: () => force(group),
      ask: (lsn, question) => {
        const send = (pipe: Pipe, proof: number) =>
          pipe.send("prove", { group, epochId, lsn, proof, question: Buffer.from(question) });
        if (question.length > 0) return this.#asker.ask(peer, send);
        // The end of it: nobody answers that.
        const pipe = this.#asker.pipe(peer);
        if (pipe !== undefined) send(pipe, 0);
        return Promise.resolve(question);
      },
    });
  }

  /** Fulfils when nothing of it runs in the engine any more. */
  async close(): Promise<void> {
    for (const run of this.#runs.values()) run.stop();
    this.#asker.close();
    await Promise.allSettled(this.#running);
    await this.#prover.close();
  }
}
