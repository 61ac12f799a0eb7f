// Three real daemons: the replicas at two of them are both promoted. Neither yields by itself, nor does their former
// owner choose; the operator does, and what the one that yields has alone is a fork.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { PeerAnswer, ProtectionAnswer, VolumeAnswer, YieldAnswer } from "../../src/daemon/protocol.js";
import { Place, until } from "../daemon-fixture.js";
import { configOf, connected, isCutAfter, pair } from "./pair.js";

describe("two peers that both took over", () => {
  const places = { north: new Place(), east: new Place(), west: new Place() };
  const { north, east, west } = places;
  let [mountEast, mountWest] = ["", ""];

  const start = (place: Place) => place.start({ config: configOf(place) });
  const sentFrom = (place: Place) => place.json<ProtectionAnswer[]>("protect", "list");
  const follows = (place: Place) => place.json<VolumeAnswer>("volume", "show", "v").replicaOf !== null;
  const caughtUp = async (place: Place, count: number): Promise<void> => {
    const since = performance.now();
    await until("the peers have everything", () => {
      const asked = performance.now();
      const sent = sentFrom(place);
      return sent.length === count && sent.every((one) => isCutAfter(since, asked, one));
    });
  };

  before(async () => {
    for (const [site, place] of Object.entries(places)) {
      writeFileSync(configOf(place), `replication: {site: ${site}, listen: "127.0.0.1:0"}\n`);
      await start(place);
    }
    pair(east, north);
    pair(west, north);
    pair(west, east);
    const mounted = await north.provision({ drives: 1, rf: 1 });
    for (const place of [east, west]) {
      const drives = place.folders("e1").flatMap((dir) => ["--drive", dir]);
      place.json("pool", "create", "q", "--size", "512MiB", ...drives);
    }
    await connected(north, 2);
    for (const peer of ["east", "west"]) north.json("protect", "v", "--to", peer, "--rpo", "400ms");
    writeFileSync(join(mounted, "who"), "north");
    await caughtUp(north, 2);
    await north.stop("SIGKILL");
    for (const place of [east, west]) {
      await until("the owner is gone", () => {
        return place.json<PeerAnswer[]>("peer", "list").some((peer) => !peer.connected);
      });
      place.json("failover", "v", "--unplanned", "--yes");
    }
    [mountEast = ""] = east.folders("mnt");
    [mountWest = ""] = west.folders("mnt");
    east.json("mount", "v", mountEast);
    west.json("mount", "v", mountWest);
    writeFileSync(join(mountEast, "who"), "east");
    writeFileSync(join(mountWest, "who"), "west");
  });
  after(async () => {
    for (const place of Object.values(places)) await place.remove();
  });

  it("are not chosen between by their former owner, which says so", async () => {
    await start(north);
    await connected(north, 2);
    const warned = () => north.status().warnings.join("\n");
    await until("it is contested", () => /owns v, too; so does another peer/.test(warned()));
    assert.deepEqual([follows(north), follows(east), follows(west)], [false, false, false]);
  });

  it("settle it as the operator says: one yields, keeps its own as a fork, and all follow the other", async () => {
    assert.match(east.fails(10, "failover", "v", "--yield", "--to", "west").message, /its mounts end/);
    const given = east.json<YieldAnswer>("failover", "v", "--yield", "--to", "west", "--yes");
    assert.deepEqual([given.already, given.to], [false, "west"]);
    assert.notEqual(given.common, null);
    await until("the former owner follows, too", () => follows(north));
    await caughtUp(west, 2);
    assert.deepEqual([follows(north), follows(east), follows(west)], [true, true, false]);
    for (const [place, dir] of [
      [east, mountEast],
      [north, join(north.folder, "mnt")],
    ] as const) {
      const { localLsn = 0 } = place.json<VolumeAnswer>("volume", "show", "v").replicaOf ?? {};
      place.json("mount", "v", dir, "--at", `lsn:${localLsn}`);
      assert.equal(readFileSync(join(dir, "who"), "utf8"), "west");
      place.json("umount", dir);
    }
    east.json("mount", given.fork ?? "", mountEast);
    assert.equal(readFileSync(join(mountEast, "who"), "utf8"), "east");
  });
});
