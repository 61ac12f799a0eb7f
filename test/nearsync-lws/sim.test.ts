// S-net: the machines and drivers of replication under virtual time, by seeds. See sim/run.ts for what must hold.
//
// A failing seed is played again by HOLDFAST_SIM_SEED=N (and tells its story); more of them by HOLDFAST_SIM_SEEDS=N.

import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../daemon-fixture.js";
import { MUTANTS, mutated } from "./sim/mutants.js";
import { play } from "./sim/run.js";
import { FAILED_ONCE } from "./sim/seeds.js";

const SEEDS = Number(process.env.HOLDFAST_SIM_SEEDS ?? 2000);
const FIRST = 1;
/** Seeds until a seeded bug has to be found. */
const MUTANT_SEEDS = 150;

/** What a batch of seeds has to have met, or it proves nothing (K8). */
const MET: Readonly<Record<string, number>> = {
  sessions: 1000,
  commits: 1000,
  "first syncs": 500,
  "batches resumed inside": 200,
  "two batches under way": 50,
  "ticks skipped": 100,
  "cuts without a change": 1000,
  "targets that are not kept any more": 20,
  snapshots: 500,
  kills: 500,
  "power cuts": 300,
  "writes lost with the power": 100,
  pauses: 500,
  "one-way cuts": 500,
  "messages held up by a cut": 500,
  "connections lost": 500,
  "full drives": 500,
  "drives that did not answer": 100,
  "senders stopped": 200,
  "clock jumps": 500,
  "chunks dropped, repeated or swapped": 50,
  "middlemen noticed": 50,
  "bulk sockets dead without a word": 20,
  "lag beyond the promise": 100,
  "frames of headers": 10_000,
  "headers in parts": 20,
  "headers ahead of what is durable": 1000,
};

const wanted = process.env.HOLDFAST_SIM_SEED;

describe("replication in virtual time", () => {
  if (wanted !== undefined) {
    it(`keeps its promises in seed ${wanted}`, () => console.log(play(Number(wanted)).counts));
    return;
  }
  it(`keeps its promises in ${SEEDS} seeds`, () => {
    const counts = new Map<string, number>();
    let virtualMs = 0;
    for (const seed of FAILED_ONCE) play(seed);
    for (let seed = FIRST; seed < FIRST + SEEDS; seed += 1) {
      const outcome = play(seed);
      virtualMs += outcome.virtualMs;
      for (const [what, times] of outcome.counts) counts.set(what, (counts.get(what) ?? 0) + times);
      if (seed % 100 === 0)
        assert.equal(play(seed).traceHash, outcome.traceHash, `seed ${seed} is not repeatable`);
    }
    const table = [...counts].sort().map(([what, times]) => `${what}: ${times}`);
    console.log(`${SEEDS} seeds, ${(virtualMs / 3.6e6).toFixed(1)} virtual hours\n${table.join("\n")}`);
    if (SEEDS < 2000) return;
    for (const [what, least] of Object.entries(MET)) {
      assert.ok(
        (counts.get(what) ?? 0) >= least,
        `${what}: ${counts.get(what) ?? 0}, at least ${least} are due`,
      );
    }
  });
});

describe("seeded bugs", () => {
  after(() => rmSync(join(ROOT, "dist/mutants"), { recursive: true, force: true }));
  for (const mutant of MUTANTS) {
    it(`${mutant.name}: is found`, async () => {
      const playMutant = await mutated(mutant);
      for (let seed = FIRST; seed < FIRST + MUTANT_SEEDS; seed += 1) {
        try {
          playMutant(seed);
        } catch (error) {
          assert.match((error as Error).message, mutant.killedBy, `seed ${seed}`);
          return;
        }
      }
      assert.fail(`not found in ${MUTANT_SEEDS} seeds`);
    });
  }
});
