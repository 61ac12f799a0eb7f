// A failover that is only tried, between two real daemons: production and replication go on meanwhile, and nothing is
// left of it afterwards.

import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { TestFailoverAnswer, TestFailoverDropAnswer, VolumeAnswer } from "../../src/daemon/protocol.js";
import { Place, mountsBelow } from "../daemon-fixture.js";
import { caughtUp, configOf, startPeers } from "./pair.js";

describe("a failover that is tried", () => {
  const [a, b] = [new Place(), new Place()];
  let [mount, trial] = ["", ""];

  const names = () => b.json<VolumeAnswer[]>("volume", "list").map(({ name }) => name);
  const tests = () => b.json<TestFailoverAnswer[]>("failover", "--test", "--list");
  const write = (text: string) => writeFileSync(join(mount, "file"), text);
  const record = () => readFileSync(join(b.state, "test-failovers.json"), "utf8");

  before(async () => {
    await startPeers(a, b);
    mount = await a.provision({ drives: 1, rf: 1, size: "128MiB" });
    const [drive = "", dir = ""] = b.folders("e1", "trial");
    trial = dir;
    b.json("pool", "create", "q", "--size", "128MiB", "--drive", drive);
    write("before the test");
    a.json("protect", "v", "--to", "south", "--rpo", "400ms");
    await caughtUp(a);
  });
  after(async () => {
    await a.remove();
    await b.remove();
  });

  it("says what is wrong with a request", () => {
    const bad: [number, string, ...string[]][] = [
      [2, "add --test", "failover", "v", "--drop"],
      [2, "different things", "failover", "v", "--test", "--unplanned"],
      [2, "which group", "failover", "--test"],
      [4, "no volume w", "failover", "w", "--test"],
      [2, "is not a name", "failover", "v", "--test", "--name", "a/b"],
      [5, "v exists already", "failover", "v", "--test", "--name", "v"],
      [4, "make it first", "failover", "v", "--test", "--mount", join(b.folder, "nowhere")],
    ];
    for (const [code, words, ...args] of bad) {
      const error = b.fails(code, ...args);
      assert.ok(`${error.message} ${error.hint}`.includes(words), `${args.join(" ")}: ${error.message}`);
    }
    assert.match(a.fails(8, "failover", "v", "--test").hint, /holdfast clone v NAME/);
    assert.deepEqual([names(), tests()], [["v"], []]);
    const none = b.json<TestFailoverDropAnswer>("failover", "v", "--test", "--drop");
    assert.deepEqual(none, { group: "v", name: null, already: true });
  });

  it("gives a clone to write to, while the owner goes on and is followed", async () => {
    const made = b.json<TestFailoverAnswer>("failover", "v", "--test", "--mount", trial);
    assert.deepEqual([made.group, made.name, made.already, made.volumes], ["v", "v-test", false, ["v-test"]]);
    assert.deepEqual(made.mounts, [{ volume: "v-test", path: trial }]);
    assert.ok(made.localLsn !== null && made.time !== null);
    assert.equal(readFileSync(join(trial, "file"), "utf8"), "before the test");
    writeFileSync(join(trial, "file"), "of the test");
    write("during the test");
    await caughtUp(a);
    assert.equal(readFileSync(join(trial, "file"), "utf8"), "of the test");
    assert.equal(readFileSync(join(mount, "file"), "utf8"), "during the test");
    const again = b.json<TestFailoverAnswer>("failover", "v", "--test", "--mount", trial);
    assert.deepEqual(again, { ...made, already: true });
    assert.deepEqual(tests(), [again]);
    assert.match(b.fails(5, "failover", "v", "--test", "--name", "other").message, /v-test/);
    assert.match(b.cli("failover", "--test", "--list").stdout, /v +v-test +\d{4}-.* +\/.*trial/);
  });

  it("is there after a kill, and is not dropped while somebody works in it", async () => {
    await b.stop("SIGKILL");
    await b.start({ config: configOf(b) });
    assert.equal(readFileSync(join(trial, "file"), "utf8"), "of the test");
    const held = openSync(join(trial, "file"), "r");
    try {
      assert.match(b.fails(5, "failover", "v", "--test", "--drop").message, /is busy/);
      assert.equal(readFileSync(join(trial, "file"), "utf8"), "of the test");
    } finally {
      closeSync(held);
    }
  });

  it("leaves nothing behind, and can be done again with what came meanwhile", async () => {
    const done = b.json<TestFailoverDropAnswer>("failover", "v", "--test", "--drop");
    assert.deepEqual(done, { group: "v", name: "v-test", already: false });
    assert.equal(b.json<TestFailoverDropAnswer>("failover", "v-test", "--test", "--drop").already, true);
    assert.deepEqual([names(), tests(), mountsBelow(b.folder)], [["v"], [], []]);
    assert.deepEqual(readdirSync(trial), []);
    await caughtUp(a);
    b.json("failover", "v", "--test", "--mount", trial, "--name", "trial");
    assert.equal(readFileSync(join(trial, "file"), "utf8"), "during the test");
  });

  it("is found out about when a crash left only its name", async () => {
    assert.equal(await b.stop(), 0);
    const whole = record();
    assert.match(whole, /"uuid": "[0-9a-f-]{36}"/);
    const begun = whole.replace(/"uuid": "[0-9a-f-]{36}"/, '"uuid": null');
    writeFileSync(join(b.state, "test-failovers.json"), begun);
    await b.start({ config: configOf(b) });
    assert.equal(record(), whole);
    assert.equal(tests()[0]?.mounts.length, 1);
    assert.equal(b.json<TestFailoverDropAnswer>("failover", "v", "--test", "--drop").already, false);
    assert.equal(await b.stop(), 0);
    writeFileSync(join(b.state, "test-failovers.json"), begun);
    await b.start({ config: configOf(b) });
    assert.deepEqual([names(), tests()], [["v"], []]);
    // Somebody's own clone of that name is not taken for it.
    b.json("clone", "v", "trial");
    assert.equal(b.json<TestFailoverDropAnswer>("failover", "v", "--test", "--drop").already, true);
    assert.deepEqual(names().sort(), ["trial", "v"]);
  });
});
