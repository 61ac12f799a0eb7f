// Seeded bugs. Those of the machines and drivers are changes of the compiled files, made in a copy of them, so that no
// switch for tests stands in the product; those of the engine are the model's.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { ROOT } from "../../daemon-fixture.js";
import type { EngineBugs } from "./engine.js";
import type { play } from "./run.js";

export interface Mutant {
  name: string;
  /** Below src/nearsync-lws, without its ending; none: a bug of the engine. */
  file?: string;
  find?: string;
  replace?: string;
  bugs?: EngineBugs;
  /** What the check that finds it says. */
  killedBy: RegExp;
}

const CAUGHT_UP = /K7: a replica has not caught up/;

export const MUTANTS: readonly Mutant[] = [
  {
    name: "ship before flush",
    bugs: { cutWithoutFlush: true },
    killedBy: /K4: .* is durable|ahead of the owner/,
  },
  { name: "drop a tombstone", bugs: { dropTombstones: true }, killedBy: /K4: .* at LSN/ },
  {
    name: "skip a named point",
    file: "machines/sender",
    find: "named.find((point) => point.lsn > from)?.lsn ?? newest?.lsn",
    replace: "newest?.lsn",
    killedBy: /skips s\d+/,
  },
  {
    name: "trust heartbeats for both sockets",
    file: "machines/heart",
    find: "stalledMs < STALL_MS",
    replace: "true",
    killedBy: CAUGHT_UP,
  },
  {
    name: "send without credit",
    file: "machines/sender",
    find: "creditMax - spent < BULK_BYTES_MAX",
    replace: "false",
    killedBy: /more bytes than there was credit for|K7: a replica/,
  },
  {
    name: "any number of batches",
    file: "machines/sender",
    find: "sent.length < BATCHES_MAX",
    replace: "true",
    killedBy: /more than 2 batches|more bytes than/,
  },
  {
    name: "never let go of history",
    file: "machines/sender",
    find: '[{ type: "follow", lsn: flushed, ifNone: false }, ...effects]',
    replace: "effects",
    killedBy: /keeps history from/,
  },
  {
    name: "never ask again after a full drive",
    file: "machines/sender",
    find: "retry ? nowMs + OFFER_RETRY_MS : null",
    replace: "null",
    killedBy: CAUGHT_UP,
  },
  {
    name: "a cut at every chance",
    file: "machines/schedule",
    find: "nowMs + CUT_MS_MIN",
    replace: "nowMs",
    killedBy: /is cut after/,
  },
  {
    name: "commit before everything is staged",
    file: "machines/receiver",
    find: "staging || queued",
    replace: "queued",
    killedBy: /K4|K7/,
  },
  {
    name: "take chunks in any order",
    file: "machines/receiver",
    find: "batch.due !== sequence",
    replace: "false",
    killedBy: /K4: .* at LSN/,
  },
  {
    name: "take chunks of an older offer",
    file: "machines/receiver",
    find: "event.stream !== state.stream",
    replace: "false",
    killedBy: /a session ended without a middleman|K4/,
  },
  {
    name: "acknowledge before the commit",
    file: "machines/receiver",
    find: "flushed: paid.last",
    replace: "flushed: done.target",
    killedBy: /lets go of history|K4: lag|more than 2 batches/,
  },
  {
    name: "stage a batch on one that is not committed",
    file: "machines/receiver",
    find: "work.target !== first.target",
    replace: "false",
    killedBy: CAUGHT_UP,
  },
  {
    name: "two calls to the engine at a time",
    file: "machines/receiver",
    find: "state.busy || work === undefined",
    replace: "work === undefined",
    killedBy: /K4|K7|lost before/,
  },
  {
    name: "never give credit back",
    file: "machines/receiver",
    find: "state.creditMax + done.bytes",
    replace: "state.creditMax",
    killedBy: CAUGHT_UP,
  },
  {
    name: "a lag that ends with the arrival",
    file: "machines/lag",
    find: "event.flushed ?? 0",
    replace: "event.received ?? 0",
    killedBy: /K4: lag/,
  },
  {
    name: "a lag that grows while nothing happens",
    file: "machines/lag",
    find: "const others = state.points.filter((point) => point.lsn !== lsn);",
    replace: "const others = state.points; if (others.some((point) => point.lsn === lsn)) return state;",
    killedBy: /K7: lag/,
  },
  {
    name: "headers that go on after those of another life",
    file: "machines/headers",
    find: "headers !== null && known && headers.lsn >= last",
    replace: "headers !== null && headers.lsn >= last",
    killedBy: /K9: of headers/,
  },
  {
    name: "headers that look newer than they are",
    file: "machines/headers",
    find: "coversMs: isAll ? askedMs : null",
    replace: "coversMs: isAll ? nowMs : null",
    killedBy: /K9: .* is said to know/,
  },
  {
    name: "a bucket that stays empty",
    file: "machines/bucket",
    find: "Math.min(burst, tokens +",
    replace: "Math.min(tokens, tokens +",
    killedBy: CAUGHT_UP,
  },
  {
    name: "a replica that follows a dead session",
    file: "replication/replication",
    find: "replica.down();\n            },",
    replace: "replica;\n            },",
    killedBy: CAUGHT_UP,
  },
];

/** The simulation over a copy of the compiled files with the bug in it. */
export async function mutated(mutant: Mutant): Promise<(seed: number) => unknown> {
  const folder = join(ROOT, "dist/mutants", mutant.name.replaceAll(" ", "-"));
  rmSync(folder, { recursive: true, force: true });
  for (const part of ["src/nearsync-lws", "src/io-path", "test/nearsync-lws", "test/daemon-fixture.js"]) {
    mkdirSync(join(folder, part, ".."), { recursive: true });
    cpSync(join(ROOT, "dist", part), join(folder, part), { recursive: true });
  }
  const { file, find = "", replace = "", bugs = {} } = mutant;
  if (file !== undefined) {
    const path = join(folder, "src/nearsync-lws", `${file}.js`);
    const text = readFileSync(path, "utf8");
    assert.equal(text.split(find).length, 2, `${mutant.name}: "${find}" stands once in ${file}`);
    writeFileSync(
      path,
      text.replace(find, () => replace),
    );
  }
  const run = join(folder, "test/nearsync-lws/sim/run.js");
  const module = (await import(pathToFileURL(run).href)) as { play: typeof play };
  return (seed) => module.play(seed, bugs);
}
