// Questions and answers of proofs between sites: what a peer may ask, and what becomes of a question when its session
// ends.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Mismatch } from "../../src/io-path/proof.js";
import {
  ANSWER_MS,
  PROOFS_MAX,
  PROOF_BYTES_MAX,
  PROOF_IDLE_MS,
  RESUME_MS,
} from "../../src/nearsync-lws/limits.js";
import { Asker } from "../../src/nearsync-lws/proof/asker.js";
import { Prover } from "../../src/nearsync-lws/proof/prover.js";
import type { Answering } from "../../src/nearsync-lws/proof/prover.js";
import { decodeReport, encodeReport, joined, newReport } from "../../src/nearsync-lws/proof/report.js";
import { authorize } from "../../src/nearsync-lws/peers.js";
import type { Peer, Role } from "../../src/nearsync-lws/peers.js";
import type { Pipe } from "../../src/nearsync-lws/replication/pipe.js";
import type { Clock } from "../../src/nearsync-lws/seams.js";
import type { Body } from "../../src/nearsync-lws/wire/control.js";
import { HoldfastError } from "../../src/io-path/errors.js";
import { failsWith } from "./fixture.js";

const GROUP = "ab".repeat(16);
const EPOCH = "cd".repeat(8);

/** Time that stands still until it is told to go on. */
class TestClock implements Clock {
  #now = 0;
  #timers: { at: number; run: () => void }[] = [];

  wallNs = () => BigInt(this.#now) * 1_000_000n;
  bootNs = () => BigInt(this.#now) * 1_000_000n;
  after(ms: number, run: () => void): () => void {
    const timer = { at: this.#now + ms, run };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((one) => one !== timer);
    };
  }

  pass(ms: number): void {
    this.#now += ms;
    const due = this.#timers.filter(({ at }) => at <= this.#now);
    this.#timers = this.#timers.filter(({ at }) => at > this.#now);
    for (const { run } of due) run();
  }
}

function pipe() {
  const sent: [string, object][] = [];
  const made: Pipe = {
    send: (type, body) => void sent.push([type, body]),
    sendChunk: () => undefined,
    fail: (reason) => assert.fail(reason),
  };
  return { pipe: made, sent };
}

/** Until what was promised has been carried out. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

function prover(roles: Role[] = ["read"]) {
  const clock = new TestClock();
  const peer: Peer = {
    ...{ name: "b", fingerprint: "b", certificate: "", addresses: [] },
    ...{ roles, groupRoles: {}, pairedSeconds: 0 },
  };
  const opened: bigint[] = [];
  const closed: bigint[] = [];
  let finish: (() => void) | undefined;
  const made = new Prover({
    clock,
    authorize: (_peer, role, group) => authorize(peer, role, group),
    place: (group) => {
      if (group !== GROUP) throw new HoldfastError("NotFound", `group ${group} is not here`);
      return { pool: 1, name: "g" };
    },
    open: async (_place, { lsn }): Promise<Answering> => {
      if (lsn === 99n) throw new HoldfastError("NotFound", "recovery point 99 is not kept");
      opened.push(lsn);
      return {
        answer: async (question) => {
          if (Buffer.from(question).toString() === "slow") await new Promise<void>((done) => (finish = done));
          return Buffer.from(`${lsn}: ${Buffer.from(question).toString()}`);
        },
        close: () => void closed.push(lsn),
      };
    },
  });
  const ask = (lsn: number, question: string, group = GROUP): Body<"prove"> => {
    return { group, epochId: EPOCH, lsn, proof: lsn, question: Buffer.from(question) };
  };
  return { made, clock, opened, closed, ask, finish: () => finish?.() };
}

describe("a peer that asks about a recovery point", () => {
  it("gets answers of one that is opened once, until it is done", async () => {
    const { made, opened, closed, ask } = prover();
    const to = pipe();
    for (const question of ["one", "two"]) {
      made.take("b", to.pipe, ask(5, question));
      await settled();
    }
    const told = to.sent.map(([type, body]) => [
      type,
      Buffer.from((body as Body<"proved">).answer).toString(),
    ]);
    assert.deepEqual(told, [
      ["proved", "5: one"],
      ["proved", "5: two"],
    ]);
    made.take("b", to.pipe, ask(5, ""));
    await settled();
    assert.deepEqual([opened, closed, made.size], [[5n], [5n], 0]);
  });

  it("needs the role read, and a point that is there; it is told", async () => {
    for (const [roles, lsn, group, code] of [
      [["replica-write"], 5, GROUP, "Denied"],
      [["read"], 99, GROUP, "NotFound"],
      [["read"], 5, "ef".repeat(16), "NotFound"],
    ] as [Role[], number, string, string][]) {
      const { made, ask } = prover(roles);
      const to = pipe();
      made.take("b", to.pipe, ask(lsn, "what?", group));
      await settled();
      await settled();
      const [type, body] = to.sent[0] ?? ["", {}];
      assert.deepEqual([type, (body as Body<"proved">).code, made.size], ["proved", code, 0]);
    }
  });

  it("asks one question at a time, about few points", async () => {
    const { made, ask, finish } = prover();
    const to = pipe();
    made.take("b", to.pipe, ask(1, "slow"));
    await settled();
    assert.throws(() => made.take("b", to.pipe, ask(1, "next")), failsWith("Invalid", "before"));
    for (let lsn = 2; lsn <= PROOFS_MAX + 1; lsn += 1) made.take("b", to.pipe, ask(lsn, "what?"));
    await settled();
    assert.match(JSON.stringify(to.sent), /compared for this peer already/);
    finish();
    await settled();
    assert.equal(made.size, PROOFS_MAX);
    await made.close();
    assert.equal(made.size, 0);
  });

  it("loses its points with its session, and those that it asks nothing about", async () => {
    const { made, clock, closed, ask } = prover();
    const to = pipe();
    for (const lsn of [1, 2]) made.take("b", to.pipe, ask(lsn, "what?"));
    await settled();
    clock.pass(PROOF_IDLE_MS - 1);
    made.take("b", to.pipe, ask(2, "more?"));
    await settled();
    clock.pass(1);
    await settled();
    assert.deepEqual([closed, made.size], [[1n], 1]);
    made.down("c");
    made.down("b");
    await settled();
    assert.deepEqual([closed, made.size], [[1n, 2n], 0]);
  });
});

describe("a question to a peer", () => {
  const asked = (clock = new TestClock()) => {
    const asker = new Asker(clock);
    const numbers: number[] = [];
    const answered = () =>
      asker.ask("b", (to, number) => {
        numbers.push(number);
        to.send("goodbye", { reason: "" });
      });
    return { asker, clock, numbers, answered };
  };
  const right = (number: number) => ({ number, answer: Buffer.from("yes"), code: "", message: "" });

  it("is asked again in the next session, and an answer to the first is let go", async () => {
    const { asker, numbers, answered } = asked();
    const [first, second] = [pipe(), pipe()];
    asker.up("b", first.pipe);
    const answer = answered();
    await settled();
    asker.down("b", first.pipe);
    await settled();
    asker.take("b", right(numbers[0] ?? 0));
    asker.up("b", second.pipe);
    await settled();
    assert.deepEqual([first.sent.length, second.sent.length], [1, 1]);
    asker.take("c", right(numbers[1] ?? 0));
    asker.take("b", right(numbers[1] ?? 0));
    assert.equal(Buffer.from(await answer).toString(), "yes");
  });

  it("is given up when no session comes, or no answer", async () => {
    const { asker, clock, answered } = asked();
    const late = answered();
    await settled();
    clock.pass(RESUME_MS);
    await assert.rejects(late, failsWith("Unavailable", "not been connected"));
    asker.up("b", pipe().pipe);
    const silent = answered();
    await settled();
    clock.pass(ANSWER_MS);
    await assert.rejects(silent, failsWith("Unavailable", "did not answer"));
    const stopped = answered();
    await settled();
    asker.down("b", asker.pipe("b") ?? pipe().pipe);
    asker.close();
    await assert.rejects(stopped, failsWith("Closed"));
  });

  it("fails with what the peer says, and with no code that is none of its", async () => {
    for (const [code, expected] of [
      ["NotFound", "NotFound"],
      ["NeedsYes", "Internal"],
      ["__proto__", "Internal"],
    ] as const) {
      const { asker, numbers, answered } = asked();
      asker.up("b", pipe().pipe);
      const answer = answered();
      await settled();
      asker.take("b", { ...right(numbers[0] ?? 0), code, message: "gone" });
      await assert.rejects(answer, failsWith(expected, "gone"));
    }
  });
});

describe("a report", () => {
  const at = (offset: number, inode = 7): Mismatch => {
    const range = { offset, length: 4096 };
    return { volume: "v", inode, path: "a", kind: "differs", what: "bytes", detail: "", range };
  };

  it("joins bytes that touch, and lists so many", () => {
    const list = joined([at(0)], [at(4096), at(12_288), at(16_384, 8)], 3);
    assert.deepEqual(
      list.map(({ inode, range }) => [inode, range?.offset, range?.length]),
      [
        [7, 0, 8192],
        [7, 12_288, 4096],
        [8, 16_384, 4096],
      ],
    );
    assert.equal(joined(list, [at(40_960)], 3).length, 3);
  });

  it("fits into a message, and comes back", () => {
    const report = { ...newReport(true, 5), mismatches: [at(0)], found: 1 };
    assert.deepEqual(decodeReport(encodeReport(report)), report);
    assert.equal(decodeReport(new Uint8Array(0)), null);
    const many = Array.from({ length: 1000 }, (_none, index) => at(index * 8192));
    const cut = encodeReport({ ...report, mismatches: many });
    assert.ok(cut.length <= PROOF_BYTES_MAX && (decodeReport(cut)?.mismatches.length ?? 0) > 100);
    for (const bad of ["", "{}", "nothing", JSON.stringify({ ...report, more: 1 })].slice(1)) {
      assert.throws(() => decodeReport(Buffer.from(bad)), failsWith("Invalid"));
    }
  });
});
