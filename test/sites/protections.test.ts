// Protections as they are made and ended, through the command line: both directions at once, names that are in use, a
// peer that is away, files that somebody damaged.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type {
  FailoverAnswer,
  ProtectionAnswer,
  StatusAnswer,
  VolumeAnswer,
  YieldAnswer,
} from "../../src/daemon/protocol.js";
import { Client } from "../../src/cli/client.js";
import { Place, until } from "../daemon-fixture.js";
import { caughtUp, configOf, startPeers } from "./pair.js";

describe("protections", () => {
  const [a, b] = [new Place(), new Place()];
  let [mountA, mountB] = ["", ""];
  const names = (place: Place) => place.json<VolumeAnswer[]>("volume", "list").map(({ name }) => name);
  const list = (place: Place) => place.json<ProtectionAnswer[]>("protect", "list");
  /** A file of the newest point of a replica. */
  const readAt = (place: Place, volume: string, file: string): string => {
    const [dir = ""] = place.folders("seen");
    const { localLsn = 0 } = place.json<VolumeAnswer>("volume", "show", volume).replicaOf ?? {};
    place.json("mount", volume, dir, "--at", `lsn:${localLsn}`);
    try {
      return readFileSync(join(dir, file), "utf8");
    } finally {
      place.json("umount", dir);
    }
  };

  before(async () => {
    await startPeers(a, b);
    [mountA, mountB] = [await a.provision({ drives: 1, rf: 1 }), await b.provision({ drives: 1, rf: 1 })];
  });
  after(async () => {
    await a.remove();
    await b.remove();
  });

  it("refuses a name that is in use at the peer, and takes another one unless it was asked for", () => {
    const refused = a.fails(5, "protect", "v", "--to", "south", "--name", "v");
    assert.match(refused.message, /name v is in use there; choose another one with --name/);
    assert.deepEqual([list(a), names(b)], [[], ["v"]]);
    assert.equal(a.json<ProtectionAnswer>("protect", "v", "--to", "south", "--bandwidth", "8MiB").link, "up");
    assert.deepEqual(names(b), ["v", "v-north"]);
  });

  it("goes in both directions at once", async () => {
    writeFileSync(join(mountA, "who"), "north");
    writeFileSync(join(mountB, "who"), "south");
    b.json("protect", "v", "--to", "north", "--name", "copy", "--rpo", "400ms");
    await caughtUp(a);
    await caughtUp(b);
    assert.equal(readAt(b, "v-north", "who"), "north");
    assert.equal(readAt(a, "copy", "who"), "south");
  });

  it("lets go, and takes up again what is there", async () => {
    const { bytesSent } = list(a)[0] ?? { bytesSent: 0 };
    assert.ok(bytesSent > 0);
    a.json("unprotect", "v", "--to", "south");
    assert.equal(a.fails(4, "unprotect", "v", "--to", "south").code, "NotFound");
    assert.deepEqual([list(a), names(b)], [[], ["v", "v-north"]]);
    writeFileSync(join(mountA, "who"), "north again");
    a.json("protect", "v", "--to", "south");
    await caughtUp(a);
    assert.equal(readAt(b, "v-north", "who"), "north again");
    assert.deepEqual(names(b), ["v", "v-north"]);
  });

  it("does not stop at the word of a peer that may not own, which can give the group back", async () => {
    a.json("peer", "set", "south", "--role", "replica-write", "--role", "read");
    assert.match(b.fails(5, "failover", "v-north", "--unplanned", "--yes").message, /owner .* is connected/);
    const taken = ["failover", "v-north", "--unplanned", "--force", "--yes"];
    assert.equal(b.json<FailoverAnswer>(...taken).already, false);
    const warned = () => a.json<StatusAnswer>("status").warnings.join("\n");
    await until("the owner says what to do", () =>
      /south owns v, too; it lacks the role may-own .*--yield/.test(warned()),
    );
    assert.match(list(a)[0]?.problem ?? "", /promoted here/);
    writeFileSync(join(mountA, "who"), "north goes on");
    const [mounted = ""] = b.folders("taken");
    b.json("mount", "v-north", mounted);
    writeFileSync(join(mounted, "who"), "south, too");
    assert.match(b.fails(10, "failover", "v-north", "--yield").message, /its mounts end/);
    const given = b.json<YieldAnswer>("failover", "v-north", "--yield", "--yes");
    assert.deepEqual([given.already, given.to], [false, "north"]);
    await caughtUp(a);
    assert.equal(readAt(b, "v-north", "who"), "north goes on");
    assert.equal(b.json<YieldAnswer>("failover", "v-north", "--yield", "--yes").already, true);
    const fork = given.fork ?? "";
    b.json("mount", fork, mounted);
    assert.equal(readFileSync(join(mounted, "who"), "utf8"), "south, too");
    b.json("umount", mounted);
    b.json("fork", "drop", fork, "--yes");
    assert.match(a.fails(5, "failover", "v", "--yield", "--yes").message, /nobody to yield to/);
  });

  it("stops at the word of one that may, and is sent the group the other way", async () => {
    a.json("peer", "set", "south", "--role", "replica-write", "--role", "read", "--role", "may-own");
    b.json("failover", "v-north", "--unplanned", "--force", "--yes");
    const follows = () => a.json<VolumeAnswer>("volume", "show", "v").replicaOf !== null;
    await until("the former owner follows", follows);
    await until("it is sent the group", () => list(b).some(({ group }) => group === "v-north"));
    await caughtUp(b, { group: "v-north" });
    assert.equal(readAt(a, "v", "who"), "north goes on");
    assert.deepEqual(list(a), []);
    a.json("failover", "v", "--unplanned", "--force", "--yes");
    await until("and back", () => list(a).some(({ group, link }) => group === "v" && link === "up"));
    await caughtUp(a);
    assert.deepEqual(
      list(b).map(({ group }) => group),
      ["v"],
    );
  });

  it("ends although somebody asks all the while", async () => {
    const client = new Client(a.state);
    let code: number | string | undefined;
    void a.stop().then((ended) => {
      code = ended;
    });
    const statuses = new Set<number>();
    await until("it ended", async () => {
      const answer = await client.send("GET", "/v1/protections").catch(() => undefined);
      if (answer !== undefined) statuses.add(answer.status);
      return code !== undefined;
    });
    assert.equal(code, 0);
    assert.ok(statuses.has(503), "it was asked when its worker was gone");
    await a.start({ config: configOf(a) });
  });

  it("waits for a peer that is away, and says so", async () => {
    assert.equal(await b.stop(), 0);
    await until("the owner notices", () => list(a)[0]?.link === "down");
    a.json("volume", "create", "w", "--pool", "p", "--rf", "1");
    assert.equal(a.json<ProtectionAnswer>("protect", "w", "--to", "south").link, "down");
    const { warnings } = a.json<StatusAnswer>("status");
    assert.match(warnings.join("\n"), /peer south is not connected/);
    a.json("unprotect", "w", "--to", "south");
  });

  it("says what is wrong with its file, and starts when that is mended", async () => {
    assert.equal(await a.stop(), 0);
    const file = join(a.state, "protections.json");
    const text = readFileSync(file, "utf8");
    for (const bad of ["{", text.replace('"rpoMs": 1000', '"rpoMs": -1')]) {
      writeFileSync(file, bad);
      await assert.rejects(a.start({ config: configOf(a) }), /protections\.json/);
    }
    writeFileSync(file, text);
    await a.start({ config: configOf(a) });
    // The peer is away, and may own it by now.
    assert.deepEqual(
      list(a).map(({ group, peer, link }) => [group, peer, link]),
      [["v", "south", "unconfirmed"]],
    );
  });
});
