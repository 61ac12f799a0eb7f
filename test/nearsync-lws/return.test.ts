// A former owner's return, with a crash at every effect of it, on both sides, in every combination: whatever dies, and
// however often, nothing that was acknowledged is lost, nobody writes to a fenced owner, and it ends in the same place.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { STEPS, adopt, judge, newReturn, returning } from "../../src/nearsync-lws/machines/return.js";
import type { Return, ReturnEvent, Step, Successor } from "../../src/nearsync-lws/machines/return.js";

const SUCCESSOR: Successor = {
  group: "b".repeat(32),
  epochId: "2".repeat(16),
  lsn: 7,
  of: "1".repeat(16),
  at: 5,
  timeNs: 10n ** 18n,
};

/** What lasts at the two sites, whatever dies. */
interface World {
  /** The former owner's group, where it is, and what only it has. */
  former: { name: "group" | "fork"; isFenced: boolean; isReplica: boolean; tail: number } | null;
  follower: boolean;
  plan: boolean;
  mounted: boolean;
  sends: boolean;
  /** How often the new owner protects the group to the former one. */
  protections: number;
}

/** The process of the former owner: gone with a crash. */
interface Process {
  machine: Return | null;
  releases: boolean;
}

/** Where something dies: before an effect, after it, or (the new owner) before or after it has stored a protection. */
type Death = { effect: number; who: "before" | "middle" | "after" | "peerBefore" | "peerAfter" };

/** Of a third site, a replica that nobody sends any more; `tail`: what it has beyond the one that went on. */
const ORPHAN = { isReplica: true };
const OWNER = { isReplica: false };

class Play {
  readonly world: World;
  readonly ran: Step[] = [];
  #process: Process = { machine: null, releases: false };
  #effects = 0;
  #nowMs = 0;

  constructor(
    tail: number,
    readonly deaths: readonly Death[],
    { isReplica } = OWNER,
  ) {
    this.world = {
      former: { name: "group", isFenced: false, isReplica, tail },
      follower: false,
      plan: false,
      mounted: true,
      sends: !isReplica,
      protections: 0,
    };
  }

  /** The peer's refusal is heard again and again, as long as something is sent. */
  run(): void {
    for (let round = 0; round < 100; round += 1) {
      const { world } = this;
      this.#process.machine ??= this.#begin();
      if (this.#process.machine === null) return;
      const isStored = world.plan;
      this.#feed({ type: "begin" });
      if (this.#process.machine?.step === "done") this.#process.machine = null;
      this.#nowMs += 10_000;
      if (this.#process.machine !== null && isStored) this.#feed({ type: "tick", nowMs: this.#nowMs });
      this.#nowMs += 10_000;
      if (this.#process.machine !== null) this.#feed({ type: "tick", nowMs: this.#nowMs });
    }
    assert.fail("it does not come to an end");
  }

  #begin(): Return | null {
    if (this.world.plan) return newReturn({ stored: true });
    const { former, sends } = this.world;
    if (former?.name !== "group") return null;
    // An owner that is refused asks, and is told, as does a replica of one that is gone.
    return sends || former.isReplica ? newReturn({ stored: false }) : null;
  }

  #feed(event: ReturnEvent): void {
    const { machine } = this.#process;
    if (machine === null) return;
    const [next, effects] = returning(machine, event);
    this.#process.machine = next;
    for (const effect of effects) if (effect.type === "run") this.#effect(effect.step);
  }

  #effect(step: Step): void {
    this.#effects += 1;
    const death = this.deaths.find(({ effect }) => effect === this.#effects)?.who;
    if (death === "before") return this.#die();
    this.ran.push(step);
    const before = structuredClone(this.world);
    if (death === "middle") {
      // A replica was promoted, and not fenced yet; all else is one op, or none.
      if (step === "fence" && this.world.former !== null) this.world.former.isReplica = false;
      return this.#die();
    }
    const isEmpty = step === "follow" ? this.#peer(death) : this.#carryOut(step);
    this.#check(step, before);
    if (death === "after") return this.#die();
    if (isEmpty === "failed") {
      return this.#feed({ type: "failed", step, code: "Unavailable", message: "gone", nowMs: this.#nowMs });
    }
    this.#feed({ type: "done", step, ...(isEmpty === undefined ? {} : { isEmpty }) });
  }

  /** The new owner stores first, then answers; asked again it does nothing. */
  #peer(death: Death["who"] | undefined): "failed" | undefined {
    if (death === "peerBefore") return "failed";
    this.world.protections = Math.max(1, this.world.protections);
    return death === "peerAfter" ? "failed" : undefined;
  }

  /** As return-steps.ts does it: each looks at what is there. */
  #carryOut(step: Step): boolean | undefined {
    const { world } = this;
    const { former } = world;
    switch (step) {
      case "save":
        world.plan = true;
        return undefined;
      case "fence":
        if (former !== null) Object.assign(former, { isFenced: true, isReplica: false });
        return undefined;
      case "release":
        this.#process.releases = true;
        return undefined;
      case "unmount":
        world.mounted = false;
        return undefined;
      case "look":
        return former === null || former.tail === 0;
      case "turn":
        assert.ok(!world.mounted, "a mounted group follows");
        world.former = null;
        world.follower = true;
        return undefined;
      case "rejoin":
        if (former === null) return undefined;
        assert.ok(!world.mounted, "a mounted group becomes a fork");
        former.name = "fork";
        world.follower = true;
        return undefined;
      case "unprotect":
        world.sends = false;
        return undefined;
      case "follow":
        return undefined;
      case "forget":
        world.plan = false;
        return undefined;
    }
  }

  #check(step: Step, before: World): void {
    const { world } = this;
    assert.ok(world.plan || step === "save" || step === "forget", `${step} without a plan`);
    if (before.former?.isFenced === true)
      assert.notEqual(world.former?.isFenced, false, "a fence was lifted");
    if (world.former === null && before.former !== null)
      assert.equal(before.former.tail, 0, "what only it had is gone");
    if (world.former === null || world.former.name === "fork")
      assert.ok(world.follower, "nothing has the name");
    if (step !== "save" && step !== "fence" && world.former !== null) {
      assert.ok(world.former.isFenced, `${step} of a group that takes changes`);
    }
    if (step === "follow") assert.ok(!world.sends, "the peer is asked before nothing is sent any more");
  }

  #die(): void {
    this.#process = { machine: null, releases: false };
  }
}

function ended(play: Play, tail: number): void {
  const { former, ...rest } = play.world;
  assert.deepEqual(rest, { follower: true, plan: false, mounted: false, sends: false, protections: 1 });
  if (tail === 0) assert.equal(former, null);
  else assert.deepEqual(former, { name: "fork", isFenced: true, isReplica: false, tail });
}

/** Every pair of deaths, of either side. */
function* pairs(): Generator<Death[]> {
  const kinds: readonly Death["who"][] = ["before", "middle", "after", "peerBefore", "peerAfter"];
  const last = STEPS.length * 2 + 2;
  for (let first = 1; first <= last; first += 1) {
    for (let second = first; second <= last; second += 1) {
      for (const one of kinds) {
        for (const other of second === first ? [one] : kinds) {
          yield [
            { effect: first, who: one },
            { effect: second, who: other },
          ];
        }
      }
    }
  }
}

describe("the return of a former owner", () => {
  for (const tail of [0, 3]) {
    const what = tail === 0 ? "without a tail" : "with a tail";

    it(`${what} goes through its steps once`, () => {
      const play = new Play(tail, []);
      play.run();
      ended(play, tail);
      assert.deepEqual(
        play.ran,
        STEPS.filter((step) => step !== (tail === 0 ? "rejoin" : "turn")),
      );
    });

    for (const [who, of] of [
      ["a former owner", OWNER],
      ["a replica of another one's", ORPHAN],
    ] as const) {
      it(`${what} ends in the same place after deaths at any two effects, of either side: ${who}`, () => {
        const counts = { plays: 0, again: 0, peers: 0 };
        for (const deaths of pairs()) {
          const play = new Play(tail, deaths, of);
          try {
            play.run();
            ended(play, tail);
          } catch (error) {
            const said = `deaths ${JSON.stringify(deaths)}, ran ${play.ran.join(" ")}`;
            throw new Error(said, { cause: error });
          }
          counts.plays += 1;
          if (play.ran.length > STEPS.length) counts.again += 1;
          if (play.ran.filter((step) => step === "follow").length > 1) counts.peers += 1;
        }
        assert.ok(counts.plays > 4000 && counts.again > 500 && counts.peers > 100, JSON.stringify(counts));
      });
    }
  }

  it("waits after a failure, and lets answers to an earlier step go", () => {
    const [busy] = returning(newReturn({ stored: true }), { type: "begin" });
    assert.deepEqual(returning(busy, { type: "begin" }), [busy, []]);
    assert.deepEqual(returning(busy, { type: "done", step: "rejoin" }), [busy, []]);
    const failed: ReturnEvent = {
      type: "failed",
      step: "fence",
      code: "Conflict",
      message: "no",
      nowMs: 100,
    };
    const [waiting, effects] = returning(busy, failed);
    assert.deepEqual(waiting.problem, { code: "Conflict", message: "no" });
    assert.deepEqual(effects, [{ type: "wake", atMs: 1100 }]);
    assert.deepEqual(returning(waiting, { type: "tick", nowMs: 1099 })[1], effects);
    const [again, runs] = returning(waiting, { type: "tick", nowMs: 1100 });
    assert.deepEqual(runs, [{ type: "run", step: "fence" }]);
    assert.equal(again.problem?.code, "Conflict");
    assert.equal(returning(again, { type: "done", step: "fence" })[0].problem, null);
  });
});

describe("who yields", () => {
  const mine = SUCCESSOR.of;
  const alone = { mayOwn: true, others: [] };
  it("follows a successor that went on from its own epoch, if that may own", () => {
    assert.equal(judge(mine, SUCCESSOR, alone).verdict, "follow");
    assert.equal(judge(mine, SUCCESSOR, { ...alone, mayOwn: false }).verdict, "denied");
    assert.equal(judge(mine, null, alone).verdict, "stay");
  });

  it("waits where two peers have taken it over", () => {
    const rival: Successor = { ...SUCCESSOR, group: "c".repeat(32) };
    assert.equal(judge(mine, SUCCESSOR, { mayOwn: true, others: [rival] }).verdict, "contested");
    assert.equal(judge(mine, SUCCESSOR, { mayOwn: true, others: [SUCCESSOR] }).verdict, "follow");
  });

  it("is nobody by itself where both went on from another owner's epoch", () => {
    assert.equal(judge("3".repeat(16), SUCCESSOR, alone).verdict, "split");
    const back: Successor = { ...SUCCESSOR, epochId: "3".repeat(16) };
    assert.equal(judge(SUCCESSOR.epochId, back, alone).verdict, "split");
  });
});

describe("whom a replica follows that nobody sends any more", () => {
  const [source, epochId] = ["a".repeat(32), SUCCESSOR.of];
  const claim = (change: Partial<Successor> = {}, mayOwn = true) => ({
    ...{ peer: "east", mayOwn },
    successor: { ...SUCCESSOR, ...change },
  });
  const other = { group: "c".repeat(32) };

  it("is the one that went on from its epoch, if that may own", () => {
    assert.deepEqual(adopt(source, epochId, [claim()]), { adoption: "follow", claim: claim() });
    assert.equal(adopt(source, epochId, [claim(), claim()]).adoption, "follow");
    assert.equal(adopt(source, epochId, [claim({}, false)]).adoption, "denied");
    assert.equal(adopt(source, epochId, [claim({}, false), claim(other)]).adoption, "follow");
    assert.equal(adopt(source, epochId, [claim({ group: source }, false)]).adoption, "follow", "taken back");
  });

  it("is nobody while its owner goes on, where nobody has gone on from its epoch, or where two have", () => {
    assert.equal(adopt(source, epochId, []).adoption, "wait");
    assert.equal(adopt(source, epochId, [claim({ of: "9".repeat(16) })]).adoption, "wait");
    const owner = claim({ group: source, epochId }, false);
    assert.equal(adopt(source, epochId, [claim(), owner]).adoption, "wait");
    assert.equal(adopt(source, epochId, [claim(), claim(other)]).adoption, "contested");
  });
});
