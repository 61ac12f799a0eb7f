// The runner on a clock that does what it is told: due and missed runs, jumps, sleep, failures, restarts, hooks.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { pino } from "pino";
import { PolicyRunner } from "../../../src/daemon/policy/runner.js";
import type { PolicyStatus } from "../../../src/daemon/protocol.js";
import { HoldfastError } from "../../../src/io-path/errors.js";
import { FakeClock, MemoryFile, MemoryStore } from "./memory-store.js";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const HOURLY = "policies: {h: {targets: [v], every: 1h, keep: 100x1h}}";

class Rig {
  readonly clock = new FakeClock("2026-11-28T05:10:00Z");
  readonly store = new MemoryStore(this.clock, ["v", "w"]);
  readonly file = new MemoryFile();
  runner = this.#newRunner();

  #newRunner(): PolicyRunner {
    const log = pino({ level: "silent" });
    const runner = new PolicyRunner({ store: this.store, file: this.file, clock: this.clock, log });
    runner.start();
    return runner;
  }

  async apply(text: string, how: { yes: boolean } = { yes: false }): Promise<void> {
    await this.runner.apply("p.yaml", text, how);
  }

  /** The daemon is away for a while; `kill`: it had no time to say goodbye. */
  async restart(awayMs: number): Promise<void> {
    await this.runner.stop();
    await this.clock.pass(awayMs);
    this.runner = this.#newRunner();
    await this.clock.pass(0);
  }

  names(target = "v"): string[] {
    return this.store.names(target).map((name) => name.replace("2026-11-", ""));
  }

  status(name: string): PolicyStatus {
    const found = this.runner.answers().find((policy) => policy.name === name);
    assert.ok(found !== undefined);
    return found;
  }

  assertNoTwins(): void {
    assert.equal(new Set(this.store.history).size, this.store.history.length, this.store.history.join(" "));
  }
}

describe("policy runner: schedule", () => {
  it("runs on time, named by the second, and prunes", async () => {
    const rig = new Rig();
    await rig.apply("policies: {h: {targets: [v, w], every: 1h, keep: 2x1h}}");
    assert.deepEqual(rig.names(), [], "nothing at once");
    await rig.clock.pass(HOUR);
    assert.deepEqual(rig.names(), ["h-28T06-00-00Z"]);
    await rig.clock.pass(3 * HOUR);
    assert.deepEqual(rig.names(), ["h-28T08-00-00Z", "h-28T09-00-00Z"]);
    assert.deepEqual(rig.names("w"), rig.names("v"));
    const { taken, failed, pruned, nextSeconds, lastSuccessSeconds } = rig.status("h");
    assert.deepEqual([taken, failed, pruned], [8, 0, 4]);
    assert.equal(new Date(nextSeconds * 1000).toISOString(), "2026-11-28T10:00:00.000Z");
    assert.equal(new Date((lastSuccessSeconds ?? 0) * 1000).toISOString(), "2026-11-28T09:00:00.000Z");
    assert.deepEqual(rig.runner.warnings(), []);
  });

  it("prunes only what is its own and not held", async () => {
    const rig = new Rig();
    for (const name of [
      "by-hand",
      "h-old",
      "other-2026-11-28T01-00-00Z",
      "h-2026-11-28T01-00-00Z",
      "h-2026-11-28T02-00-00Z",
    ])
      await rig.store.create("v", name);
    await rig.store.hold("v", "h-2026-11-28T01-00-00Z");
    await rig.apply("policies: {h: {targets: [v], every: 1h, keep: 1x1h}}");
    await rig.clock.pass(2 * HOUR);
    assert.deepEqual(rig.store.names("v"), [
      "by-hand",
      "h-old",
      "other-2026-11-28T01-00-00Z",
      "h-2026-11-28T01-00-00Z",
      "h-2026-11-28T07-00-00Z",
    ]);
  });

  it("hold: snapshots are held and stay", async () => {
    const rig = new Rig();
    await rig.apply("policies: {h: {targets: [v], every: 1h, hold: true}}");
    await rig.clock.pass(3 * HOUR);
    assert.deepEqual(
      rig.store.snapshots.map(({ held }) => held),
      [true, true, true],
    );
  });

  it("a week is many runs, each once", async () => {
    const rig = new Rig();
    await rig.apply('policies: {d: {targets: [v], cron: "0 3 * * *", keep: 3x1d 2x1w 2x1mo}}');
    await rig.clock.pass(7 * DAY);
    assert.equal(rig.status("d").taken, 7);
    assert.ok(rig.store.snapshots.length <= 6, `${rig.store.snapshots.length}`);
    rig.assertNoTwins();
  });
});

describe("policy runner: missed runs and jumps", () => {
  it("missed while the daemon was down: caught up once", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    await rig.clock.pass(HOUR);
    await rig.restart(50 * HOUR);
    assert.deepEqual(rig.names(), ["h-28T06-00-00Z", "h-30T08-10-00Z"]);
    await rig.clock.pass(HOUR);
    assert.deepEqual(rig.names().slice(2), ["h-30T09-00-00Z"]);
  });

  it("nothing missed: a restart takes none", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    await rig.clock.pass(HOUR);
    for (let times = 0; times < 5; times += 1) await rig.restart(MINUTE);
    assert.deepEqual(rig.names(), ["h-28T06-00-00Z"]);
  });

  it("missed while the machine slept: caught up once, within half a minute", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    rig.clock.sleep(3 * DAY);
    await rig.clock.pass(30 * SECOND);
    assert.equal(rig.names().length, 1);
    await rig.clock.pass(HOUR);
    assert.equal(rig.names().length, 2);
  });

  it("a clock that jumps ahead and back: one run more, no silence after", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    await rig.clock.pass(HOUR);
    const now = rig.clock.wallMs();
    rig.clock.jump(now + 400 * DAY);
    await rig.clock.pass(MINUTE);
    rig.clock.jump(now + MINUTE);
    await rig.clock.pass(2 * HOUR);
    const [first, ahead, ...rest] = rig.names();
    assert.deepEqual([first, ...rest], ["h-28T06-00-00Z", "h-28T07-00-00Z", "h-28T08-00-00Z"]);
    assert.match(ahead ?? "", /^h-2028-01-02T06-1/);
    rig.assertNoTwins();
  });

  it("a clock that goes back: the next run is a period away, and no name comes twice", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    await rig.clock.pass(5 * HOUR);
    rig.clock.jump(Date.parse("2026-11-28T05:30:00Z"));
    await rig.clock.pass(HOUR);
    assert.equal(rig.names().at(-1), "h-28T06-00-00Z-2");
    await rig.clock.pass(HOUR);
    // Of one hour the newest stays.
    const hours = ["08-00-00Z", "09-00-00Z", "10-00-00Z", "06-00-00Z-2", "07-00-00Z-2"];
    assert.deepEqual(
      rig.names(),
      hours.map((hour) => `h-28T${hour}`),
    );
    rig.assertNoTwins();
  });

  it("a clock that is corrected by seconds runs nothing twice", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    await rig.clock.pass(50 * MINUTE);
    assert.equal(rig.names().length, 1);
    rig.clock.jump(rig.clock.wallMs() - 20 * SECOND);
    await rig.clock.pass(10 * MINUTE);
    assert.equal(rig.names().length, 1);
  });

  it("a clock that goes to and fro all day is no storm", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    for (let times = 0; times < 1000; times += 1) {
      const jump = (times % 2 === 0 ? 1 : -1) * 5 * HOUR;
      rig.clock.jump(rig.clock.wallMs() + jump);
      await rig.clock.pass(5 * SECOND);
    }
    // 5,000 seconds: one a minute at most.
    assert.ok(rig.status("h").taken <= 84, `${rig.status("h").taken} runs`);
    assert.ok(rig.status("h").taken > 0);
    rig.assertNoTwins();
  });

  it("a restart with the clock back is no silence", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    await rig.clock.pass(2 * DAY);
    rig.clock.jump(Date.parse("2026-11-28T05:30:00Z"));
    await rig.restart(MINUTE);
    await rig.clock.pass(HOUR);
    assert.equal(rig.status("h").taken, 1);
    assert.equal(rig.names().at(-1), "h-28T06-00-00Z-2");
  });
});

describe("policy runner: failures", () => {
  const full = () => new HoldfastError("NoSpace", "the pool is full");

  it("are tried again with more and more patience, shown, and over with the first success", async () => {
    const rig = new Rig();
    await rig.apply("policies: {h: {targets: [v, w], every: 1d, keep: 2x1d}}");
    await rig.clock.pass(DAY - 5 * HOUR - 10 * MINUTE - SECOND);
    rig.store.failures = [full(), full(), full()];
    await rig.clock.pass(SECOND);
    // The first failure was v's; w took the second.
    assert.deepEqual([rig.status("h").failures, rig.status("h").failed], [1, 2]);
    assert.match(
      rig.runner.warnings().join(),
      /policy h: v: the pool is full; w: the pool is full; tried again at 2026-11-29T00:00:10/,
    );
    await rig.clock.pass(10 * SECOND);
    assert.deepEqual([rig.status("h").failures, rig.names(), rig.names("w")], [2, [], ["h-29T00-00-10Z"]]);
    assert.match(rig.runner.warnings().join(), /\(2 times in a row\); tried again at 2026-11-29T00:00:30/);
    assert.equal(rig.status("h").lastSuccessSeconds, null);
    await rig.clock.pass(20 * SECOND);
    assert.deepEqual([rig.names(), rig.names("w")], [["h-29T00-00-30Z"], ["h-29T00-00-10Z"]]);
    assert.deepEqual([rig.status("h").failures, rig.status("h").problems], [0, []]);
    assert.deepEqual(rig.runner.warnings(), []);
  });

  it("for a day: a try every ten minutes, no more", async () => {
    const rig = new Rig();
    await rig.apply("policies: {s: {targets: [v], every: 1s, keep: 3x1s}}");
    rig.store.failures = Array.from({ length: 10_000 }, full);
    await rig.clock.pass(DAY);
    const { failed } = rig.status("s");
    assert.ok(failed > 100 && failed < 160, `${failed} tries`);
  });

  it("do not keep a run from being caught up after a restart", async () => {
    const rig = new Rig();
    await rig.apply("policies: {h: {targets: [v], every: 1d, keep: 2x1d}}");
    rig.store.failures = Array.from({ length: 5 }, full);
    await rig.clock.pass(19 * HOUR);
    rig.store.failures = [];
    await rig.restart(SECOND);
    assert.deepEqual(rig.names().length, 1);
  });

  it("a state that cannot be written is a warning; runs go on", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    rig.file.failure = new HoldfastError("NoSpace", "no space left on device");
    await rig.clock.pass(2 * HOUR);
    assert.equal(rig.names().length, 2);
    assert.match(rig.runner.warnings().join(), /cannot be noted: no space left/);
    rig.file.failure = undefined;
    await rig.clock.pass(HOUR);
    assert.deepEqual(rig.runner.warnings(), []);
  });

  it("a state that cannot be read is a warning, and a new file mends it", async () => {
    const rig = new Rig();
    await rig.apply(HOURLY);
    rig.file.text = rig.file.text?.replace("every", "evry");
    await rig.restart(MINUTE);
    assert.match(
      rig.runner.warnings().join(),
      /policies do not run: p\.yaml:1:\d+: policies\.h\.evry: unknown field/,
    );
    await rig.apply(HOURLY);
    assert.deepEqual(rig.runner.warnings(), []);
  });

  it("what is deleted or held by others meanwhile is no failure", async () => {
    const rig = new Rig();
    await rig.apply("policies: {h: {targets: [v], every: 1h, keep: 1x1h}}");
    await rig.clock.pass(HOUR);
    rig.store.delete = async () => {
      throw new HoldfastError("Conflict", "is held");
    };
    await rig.clock.pass(HOUR);
    assert.equal(rig.names().length, 2);
    assert.deepEqual(rig.status("h").problems, []);
  });
});

describe("policy runner: more than one", () => {
  it("a policy that hangs keeps no other, and never runs twice at once", async () => {
    const rig = new Rig();
    let open: () => void = () => undefined;
    rig.store.gate = new Promise((resolve) => (open = resolve));
    await rig.apply("policies: {a: {targets: [v], every: 1h, keep: 1x1h}}");
    await rig.clock.pass(3 * HOUR);
    assert.deepEqual([rig.status("a").running, rig.store.active], [true, 1]);
    rig.store.gate = Promise.resolve();
    await rig.apply(
      "policies: {a: {targets: [v], every: 1h, keep: 9x1h}, b: {targets: [w], every: 1h, keep: 1x1h}}",
    );
    await rig.clock.pass(HOUR);
    assert.deepEqual([rig.names(), rig.names("w")], [[], ["b-28T09-00-00Z"]]);
    // Taken away and given back while it runs: still one at a time.
    await rig.apply("policies: {}");
    assert.deepEqual(rig.runner.answers(), []);
    await rig.apply("policies: {a: {targets: [v], every: 1h, keep: 9x1h}}");
    await rig.clock.pass(HOUR);
    open();
    await rig.clock.pass(2 * HOUR);
    assert.equal(rig.status("a").running, false);
    assert.equal(rig.store.activeMost, 2, "a and b");
    rig.assertNoTwins();
  });

  it("apply refuses unknown targets, and what keeps nothing until it is told", async () => {
    const rig = new Rig();
    await assert.rejects(rig.apply("policies: {a: {targets: [v, hom], every: 1h, keep: 1x1h}}"), (error) => {
      assert.ok(error instanceof HoldfastError && error.code === "Invalid");
      assert.match(error.message, /policies\.a\.targets: there is no volume hom \(volumes: v, w\)/);
      return true;
    });
    for (const keep of ["", ", keep: ''", ", keep: 0x1h 0x1d"]) {
      const text = `policies: {a: {targets: [v], every: 1h${keep}}}`;
      await assert.rejects(
        rig.apply(text),
        (error) => error instanceof HoldfastError && error.code === "NeedsYes",
      );
      assert.equal(rig.file.writes, 0);
    }
    await rig.apply("policies: {a: {targets: [v], every: 1h}}", { yes: true });
    await rig.clock.pass(3 * HOUR);
    assert.deepEqual(rig.names(), ["a-28T08-00-00Z"]);
  });

  it("apply keeps when a policy ran; another schedule begins anew", async () => {
    const rig = new Rig();
    await rig.apply("policies: {a: {targets: [v], every: 1d, keep: 9x1d}}");
    await rig.clock.pass(DAY);
    await rig.apply("policies: {a: {targets: [v], every: 1d, keep: 3x1d}}");
    await rig.clock.pass(MINUTE);
    assert.equal(rig.names().length, 1);
    assert.notEqual(rig.status("a").lastSuccessSeconds, null);
    await rig.apply("policies: {a: {targets: [v], every: 1h, keep: 9x1h}}");
    await rig.clock.pass(MINUTE);
    assert.equal(rig.names().length, 1, "nothing was missed");
    await rig.clock.pass(HOUR);
    assert.equal(rig.names().length, 2);
  });
});

describe("policy test", () => {
  it("foretells exactly what then happens, and changes nothing", async () => {
    const text = "policies: {a: {targets: [v], every: 1h, keep: 3x1h 2x1d}}";
    const rig = new Rig();
    await rig.apply(text);
    await rig.clock.pass(30 * HOUR);
    const before = rig.names();
    const [told] = await rig.runner.test("p.yaml", text, "40h");
    assert.deepEqual(rig.names(), before);
    assert.equal(told?.there, before.length);
    assert.equal(told?.runs, 40);
    const pruned = rig.status("a").pruned;
    await rig.clock.pass(40 * HOUR);
    assert.deepEqual(
      told?.kept.map(({ name }) => name),
      rig.store.names("v"),
    );
    assert.equal(told?.prunedCount, rig.status("a").pruned - pruned);
    assert.equal(told?.pruned.filter(({ exists }) => exists).length, before.length);
    assert.equal(told?.nextRunsSeconds.length, 5);
  });

  it("is bounded", async () => {
    const rig = new Rig();
    await assert.rejects(
      rig.runner.test("p", "policies: {a: {targets: [v], every: 1s, keep: 100000x1s}}", "3650d"),
      /has too many runs until then/,
    );
  });
});
