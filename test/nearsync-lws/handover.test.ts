// A planned change of owner, exhaustively, until the former owner follows: a crash of either side before and after
// every step, every message lost, two crashes together; and bugs, each of which has to be found.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FREEZE_MS } from "../../src/nearsync-lws/limits.js";
import { giver, newGiver } from "../../src/nearsync-lws/machines/handover.js";
import { BUGS, World } from "./handover-world.js";
import type { Crash, Plan, Side } from "./handover-world.js";

const QUIET: Plan = { crashes: [], lost: [], asks: "taker", slips: false, repeats: true };
/** Longer than everything that waits for something. */
const ROUND_MS = 10_000;
const COMMANDS_MAX = 5;
const TURN_MS = 1000;
const TURNS_MAX = 60;

/** Plays it to its end; what is left then must be one owner. */
function play(plan: Plan): World {
  const world = new World(plan);
  const said = JSON.stringify(plan);
  try {
    world.command();
    world.run(ROUND_MS);
    if (plan.repeats) {
      for (let asked = 1; world.outcome !== null; asked += 1) {
        assert.ok(asked < COMMANDS_MAX, `the command does not succeed: ${JSON.stringify(world.outcome)}`);
        world.command();
        world.run(ROUND_MS);
      }
      assert.ok(world.given && world.promoted, "it was said to be done");
    }
    // Nobody gives a command for that.
    for (let turns = 0; world.given && !world.isTurned; turns += 1) {
      assert.ok(turns < TURNS_MAX, "the former owner does not follow");
      world.run(TURN_MS);
    }
    const { giver: here, taker: there } = world.takesWrites;
    assert.ok(here !== there, here ? "two take writes" : "nobody takes writes");
    const before = world.written + world.writtenThere;
    world.run(1000);
    assert.ok(world.written + world.writtenThere > before, "nobody can write");
    assert.equal(world.note, null, "a note is left");
    const behind = world.writtenThere - world.hasThere;
    assert.ok(!world.given || behind < before, "what the owner of now does is not there");
  } catch (error) {
    throw new Error(`${said}: ${String(error)}`, { cause: error });
  }
  return world;
}

function crashesOf(side: Side, of: Side, steps: number): Crash[] {
  return Array.from({ length: steps }, (_none, index) => index + 1).flatMap((step) =>
    (["before", "after"] as const).flatMap((when) =>
      [300, FREEZE_MS + 1500].map((downMs) => ({ side, of, step, when, downMs })),
    ),
  );
}

/** Of every shape: without a fault, with one, with a crash and a lost message, with two crashes. */
function* plans(): Generator<Plan> {
  for (const asks of ["giver", "taker"] as const) {
    for (const slips of [false, true]) {
      const base: Plan = { ...QUIET, asks, slips };
      const quiet = play(base);
      const single = [
        ...crashesOf("giver", "giver", quiet.steps.giver),
        ...crashesOf("taker", "giver", quiet.steps.giver),
        ...crashesOf("giver", "taker", quiet.steps.taker),
        ...crashesOf("taker", "taker", quiet.steps.taker),
      ];
      const lost = [[], ...Array.from({ length: quiet.messages }, (_none, index) => [index + 1])];
      for (const repeats of [true, false]) {
        for (const some of lost) {
          yield { ...base, repeats, lost: some };
          for (const crash of single) yield { ...base, repeats, lost: some, crashes: [crash] };
        }
        for (const [index, first] of single.entries()) {
          for (const second of single.slice(index + 1)) {
            if (first.side === second.side && first.of === second.of && first.step === second.step) continue;
            yield { ...base, repeats, crashes: [first, second] };
          }
        }
      }
    }
  }
}

describe("a planned change of owner", () => {
  it("takes every step once when nothing goes wrong", () => {
    const world = play(QUIET);
    assert.deepEqual(world.steps, { giver: 16, taker: 2 });
    assert.equal(world.aborts, 0);
    assert.equal(world.has, world.written);
    // One more round of the last recovery point, note and word.
    assert.equal(play({ ...QUIET, slips: true }).steps.giver, 19);
  });

  it("never has two owners, nor none for ever, nor loses a write, whatever crashes or is lost", () => {
    let [count, aborts] = [0, 0];
    for (const plan of plans()) {
      aborts += play(plan).aborts > 0 ? 1 : 0;
      count += 1;
    }
    assert.ok(count > 40_000, `${count} plans`);
    assert.ok(aborts > 500, `${aborts} of them gave up on the way`);
  });

  for (const bug of BUGS) {
    it(`finds the bug: ${bug}`, () => {
      const finds = (plan: Plan): boolean => {
        try {
          play({ ...plan, bug });
          return false;
        } catch {
          return true;
        }
      };
      assert.ok([...plans()].some(finds), "no plan shows it");
    });
  }

  it("ends an attempt that is late, and lets go of what comes too late", () => {
    let [state] = newGiver(0);
    [state] = giver(state, { type: "copied", turn: 1, nowMs: 100, tookMs: 50 });
    assert.deepEqual([state.phase, state.closedMs], ["closing", 100]);
    const [early, nothing] = giver(state, { type: "tick", nowMs: 99 + FREEZE_MS });
    assert.deepEqual([early.phase, nothing], ["closing", []]);
    const [late, effects] = giver(state, { type: "tick", nowMs: 100 + FREEZE_MS });
    assert.deepEqual([late.phase, effects.map(({ type }) => type)], ["opening", ["open"]]);
    assert.deepEqual(giver(late, { type: "closed", turn: 2, nowMs: 3000 }), [late, []]);
    const [over, end] = giver(late, { type: "opened", turn: late.turn, nowMs: 3001 });
    assert.equal(over.phase, "over");
    assert.deepEqual(end, [{ type: "end", problem: late.problem }]);
  });

  it("copies until little is left, and gives up when it never is", () => {
    let [state] = newGiver(0);
    for (let nowMs = 1000; state.phase === "copying"; nowMs += 1000) {
      assert.ok(nowMs < 700_000);
      [state] = giver(state, { type: "copied", turn: state.turn, nowMs, tookMs: 900 });
    }
    assert.equal(state.phase, "opening");
    assert.match(state.problem?.message ?? "", /more is written here than the line takes/);
  });
});
