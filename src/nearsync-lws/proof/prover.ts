// Answers a peer that compares what it has with what is here, at a recovery point that both keep.
//
// - A point is opened with the first question, and kept until the peer is done, the session ends, or it asks nothing
//   for two minutes. A peer has four open at most, and one question at a time for each.
// - The work is done on a thread of the engine: what else goes over the session goes on meanwhile.

import { HoldfastError } from "../../io-path/errors.js";
import { Proof } from "../../io-path/proof.js";
import type { Place } from "../engine-door.js";
import { PROOFS_MAX, PROOF_BYTES_MAX, PROOF_IDLE_MS } from "../limits.js";
import type { Role } from "../peers.js";
import type { Pipe } from "../replication/pipe.js";
import type { Clock } from "../seams.js";
import type { Body } from "../wire/control.js";

export interface ProverOptions {
  clock: Clock;
  /** Where a group lies here. */
  place: (group: string) => Place;
  /** Fails with `Denied` unless the peer may do this with the group. */
  authorize: (peer: string, role: Role, group: string) => void;
  /** The engine's; tests have another. */
  open?: (place: Place, point: { lineage: bigint; lsn: bigint }) => Promise<Answering>;
}

/** A recovery point that answers questions. */
export type Answering = Pick<Proof, "answer" | "close">;

interface Open {
  peer: string;
  proof: Promise<Answering>;
  isBusy: boolean;
  cancelIdle: () => void;
}

export class Prover {
  readonly #options: ProverOptions;
  readonly #open = new Map<string, Open>();
  readonly #running = new Set<Promise<void>>();

  constructor(options: ProverOptions) {
    this.#options = options;
  }

  /** Points that are kept for peers. */
  get size(): number {
    return this.#open.size;
  }

  /** Fails where the peer breaks the rules; what it may not have, or is not there, it is told. */
  take(peer: string, pipe: Pipe, body: Body<"prove">): void {
    const { group, epochId, lsn, proof, question } = body;
    const key = `${peer} ${group} ${epochId} ${lsn}`;
    if (question.length === 0) return this.#close(key);
    if (this.#open.get(key)?.isBusy === true) {
      throw new HoldfastError("Invalid", "a question of a proof before the one before it was answered");
    }
    const send = (answer: Uint8Array, code: string, message: string) =>
      pipe.send("proved", { group, proof, answer: Buffer.from(answer), code, message });
    const running = this.#answer(key, peer, body).then(
      (answer) => send(answer, "", ""),
      (error: unknown) => {
        const code = error instanceof HoldfastError ? error.code : "Internal";
        send(new Uint8Array(0), code, (error instanceof Error ? error.message : String(error)).slice(0, 500));
      },
    );
    this.#running.add(running);
    void running.finally(() => this.#running.delete(running));
  }

  async #answer(
    key: string,
    peer: string,
    { group, epochId, lsn, question }: Body<"prove">,
  ): Promise<Uint8Array> {
    this.#options.authorize(peer, "read", group);
    const open = this.#open.get(key) ?? this.#begin(key, peer, { group, epochId, lsn });
    open.isBusy = true;
    open.cancelIdle();
    try {
      const answer = await (await open.proof).answer(question);
      if (answer.length <= PROOF_BYTES_MAX) return answer;
      throw new HoldfastError("Internal", `an answer has ${answer.length} bytes`);
    } finally {
      open.isBusy = false;
      // It may have been closed meanwhile.
      if (this.#open.get(key) === open) {
        open.cancelIdle = this.#options.clock.after(PROOF_IDLE_MS, () => this.#close(key));
      }
    }
  }

  #begin(
    key: string,
    peer: string,
    { group, epochId, lsn }: { group: string; epochId: string; lsn: number },
  ): Open {
    const mine = [...this.#open.values()].filter((one) => one.peer === peer).length;
    if (mine >= PROOFS_MAX) {
      throw new HoldfastError(
        "Unavailable",
        `${mine} recovery points are being compared for this peer already`,
      );
    }
    const { place, open: opened = ({ pool, name }, point) => Proof.open(pool, name, point) } = this.#options;
    const proof = opened(place(group), { lineage: BigInt(`0x${epochId}`), lsn: BigInt(lsn) });
    const open: Open = { peer, proof, isBusy: false, cancelIdle: () => undefined };
    this.#open.set(key, open);
    // Asked again, it may be there.
    proof.catch(() => this.#open.delete(key));
    return open;
  }

  #close(key: string): void {
    const open = this.#open.get(key);
    if (open === undefined) return;
    this.#open.delete(key);
    open.cancelIdle();
    open.proof.then(
      (proof) => proof.close(),
      () => undefined,
    );
  }

  /** The peer's session is over. */
  down(peer: string): void {
    for (const [key, open] of this.#open) if (open.peer === peer) this.#close(key);
  }

  /** Fulfils when nothing of it runs in the engine any more. */
  async close(): Promise<void> {
    for (const key of [...this.#open.keys()]) this.#close(key);
    await Promise.allSettled([...this.#running]);
  }
}
