// Two real daemons over loopback: what is written at one site is at the other, through kills of both, and goes
// on there.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type {
  FailoverAnswer,
  ProtectionAnswer,
  SnapshotAnswer,
  VolumeAnswer,
} from "../../src/daemon/protocol.js";
import { CREDIT_BYTES } from "../../src/nearsync-lws/limits.js";
import { Place, metricsOf, run, until } from "../daemon-fixture.js";
import { caughtUp, configOf, sameThere, startPeers, stayThere } from "./pair.js";

const FILES = 40;
const BIG_BYTES = 24 * 2 ** 20;
/** So that a large file is under way for a second or two. */
const SLOWLY = ["--rpo", "500ms", "--bandwidth", "12MiB"];
/** Headers, and what else changes. */
const SLACK_BYTES = 2 ** 20;
const CATCH_UP_MS = 60_000;

/** Bytes that no compressor makes small, the same for the same seed. */
function noise(bytes: number, seed: number): Buffer {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  let state = seed >>> 0 || 1;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return Buffer.from(words.buffer).subarray(0, bytes);
}

describe("a group that is protected to a peer", () => {
  const [a, b] = [new Place(), new Place()];
  let [mount, seen] = ["", ""];

  const protection = (): ProtectionAnswer => {
    const [only] = a.json<ProtectionAnswer[]>("protect", "list");
    assert.ok(only !== undefined);
    return only;
  };
  const replica = (): VolumeAnswer | undefined =>
    b.json<VolumeAnswer[]>("volume", "list").find(({ name }) => name === "v");
  const everything = () => caughtUp(a, { others: [b], deadlineMs: CATCH_UP_MS });
  /** A batch is in the middle. */
  const underWay = async (before: number): Promise<void> => {
    await until("some of it is on its way", () => {
      const { bytesSent, backlog } = protection();
      return bytesSent > before + BIG_BYTES / 3 && backlog.batches > 0;
    });
  };
  before(async () => {
    await startPeers(a, b);
    stayThere(a, b);
    mount = await a.provision({ drives: 2, rf: 2 });
    const drives = b.folders("e1");
    b.json("pool", "create", "q", "--size", "512MiB", ...drives.flatMap((path) => ["--drive", path]));
    [seen = ""] = b.folders("seen");
  });
  after(async () => {
    await a.remove();
    await b.remove();
  });

  it("says what is wrong with a request", () => {
    const bad: [number, string, ...string[]][] = [
      [2, "--to", "protect", "v"],
      [4, "no peer x", "protect", "v", "--to", "x"],
      [4, "no volume w", "protect", "w", "--to", "south"],
      [2, "rpo", "protect", "v", "--to", "south", "--rpo", "10ms"],
      [2, "bandwidth", "protect", "v", "--to", "south", "--bandwidth", "1"],
      [2, "RF 2 needs 2 drives", "protect", "v", "--to", "south"],
      [4, "not protected", "unprotect", "v", "--to", "south"],
      [2, "--unplanned", "failover", "v"],
      [8, "owns it", "failover", "v", "--unplanned", "--yes"],
    ];
    for (const [code, words, ...args] of bad) {
      const error = a.fails(code, ...args);
      assert.ok(`${error.message} ${error.hint}`.includes(words), `${args.join(" ")}: ${error.message}`);
    }
    assert.deepEqual(a.json("protect", "list"), []);
    b.json("peer", "set", "north", "--role", "read");
    assert.match(a.fails(9, "protect", "v", "--to", "south", "--rf", "1").message, /role replica-write/);
    b.json("peer", "set", "north", "--role", "replica-write");
    assert.deepEqual(a.json("protect", "list"), []);
  });

  it("is there, as it is here", async () => {
    mkdirSync(join(mount, "dir"));
    for (let index = 0; index < FILES; index += 1) {
      writeFileSync(join(mount, "dir", `f${index}`), noise(index * 700, index + 1));
    }
    const made = a.json<ProtectionAnswer>("protect", "v", "--to", "south", "--rf", "1", ...SLOWLY);
    assert.deepEqual([made.group, made.peer, made.link, made.rpoMs], ["v", "south", "up", 500]);
    assert.equal(a.fails(5, "protect", "v", "--to", "south", "--rf", "1").code, "Conflict");
    assert.equal(a.fails(5, "peer", "remove", "south", "--yes").code, "Conflict");
    assert.match(a.fails(5, "volume", "destroy", "v", "--yes").hint, /unprotect v --to south/);
    await everything();
    sameThere(b, mount);
    assert.equal(replica()?.rf, 1);
    const { lag } = await until("the lag is known", () => {
      const told = protection();
      return told.lag.rpoMs !== null && told;
    });
    const parts = lag.cutMs + lag.shipMs + lag.applyMs + lag.flushMs;
    assert.ok(Math.abs(parts - (lag.rpoMs ?? 0)) < 1, JSON.stringify(lag));
    assert.match(await metricsOf(a.state), /holdfast_protection_rpo_seconds\{group="v",peer="south"\} \d/);
    assert.match(a.cli("status").stdout, /v +south +up/);
  });

  it("is a replica there: nobody writes to it, nobody sends it on", () => {
    assert.match(b.cli("volume", "list").stdout, /replica, as of/);
    const [at = ""] = b.folders("refused");
    assert.equal(b.fails(8, "mount", "v", at).code, "Fenced");
    assert.equal(b.fails(8, "protect", "v", "--to", "north").code, "Fenced");
  });

  it("follows what is changed, renamed and removed", async () => {
    writeFileSync(join(mount, "dir", "f3"), noise(9000, 99));
    run("mv", [join(mount, "dir", "f4"), join(mount, "renamed")]);
    run("rm", [join(mount, "dir", "f5")]);
    run("truncate", ["-s", "100", join(mount, "dir", "f6")]);
    await everything();
    sameThere(b, mount);
  });

  it("gets snapshots under their names, each with what it was", async () => {
    for (const name of ["one", "two"]) {
      writeFileSync(join(mount, "named"), name);
      a.json("snapshot", "create", "v", name);
    }
    await everything();
    const names = () => b.json<SnapshotAnswer[]>("snapshot", "list", "v").map((one) => one.name);
    assert.deepEqual(names(), ["one", "two"]);
    for (const name of names()) {
      b.json("mount", "v", seen, "--at", name);
      assert.equal(readFileSync(join(seen, "named"), "utf8"), name);
      b.json("umount", seen);
    }
    b.json("mount", "v", seen, "--at", "one");
    assert.equal(readFileSync(join(seen, ".holdfast", "snapshots", "two", "named"), "utf8"), "two");
    const kept = b.json<SnapshotAnswer[]>("snapshot", "list", "v", "--seconds");
    assert.ok(kept.length > 2);
    for (const { lsn } of kept)
      assert.ok(readdirSync(join(seen, ".holdfast", "at", `lsn:${lsn}`)).length > 0);
    b.json("umount", seen);
  });

  it("catches up after a kill of the owner in the middle of a stream", async () => {
    writeFileSync(join(mount, "big"), noise(BIG_BYTES, 5));
    await underWay(protection().bytesSent);
    await a.stop("SIGKILL");
    await a.start({ config: configOf(a) });
    await everything();
    sameThere(b, mount);
  });

  it("catches up after a kill of the peer in the middle of a batch", async () => {
    writeFileSync(join(mount, "big"), noise(BIG_BYTES, 6));
    const before = protection().bytesSent;
    await underWay(before);
    await b.stop("SIGKILL");
    await until("the owner notices", () => protection().link === "down");
    await b.start({ config: configOf(b) });
    await everything();
    sameThere(b, mount);
    // What was staged there is not sent again: only what was in flight.
    const sent = protection().bytesSent - before;
    assert.ok(sent < BIG_BYTES + CREDIT_BYTES + SLACK_BYTES, `${sent} bytes were sent`);
  });

  it("goes on at the peer when the owner is gone", async () => {
    await everything();
    const names = readdirSync(join(mount, "dir")).sort();
    const big = readFileSync(join(mount, "big"));
    await a.stop("SIGKILL");
    const asked = b.fails(10, "failover", "v", "--unplanned");
    assert.match(asked.message, /goes on from LSN \d+, cut at .*; known to be lost .* unknown/);
    const done = b.json<FailoverAnswer>("failover", "v", "--unplanned", "--yes");
    assert.deepEqual([done.already, done.loss.recovered], [false, done.recovered]);
    const again = b.json<FailoverAnswer>("failover", "v", "--unplanned", "--yes");
    assert.deepEqual([again.already, again.recovered, again.loss], [true, done.recovered, done.loss]);
    assert.equal(replica()?.replicaOf, null);
    const [here = ""] = b.folders("here");
    b.json("mount", "v", here);
    assert.deepEqual(readdirSync(join(here, "dir")).sort(), names);
    assert.ok(readFileSync(join(here, "big")).equals(big));
    writeFileSync(join(here, "new"), "of the new owner");
    assert.equal(readFileSync(join(here, "new"), "utf8"), "of the new owner");
  });
});
