// The whole of it but the engine: drivers and machines over real sessions, TLS and sockets, with the model of the
// engine on a real clock. Every write arrives, over broken connections, and the replica shows recovery points only.

import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { Replication } from "../../src/nearsync-lws/replication/replication.js";
import { systemClock } from "../../src/nearsync-lws/seams.js";
import { until } from "../daemon-fixture.js";
import { TestSite, peerOf } from "./fixture.js";
import { Engine, stateAt } from "./sim/engine.js";
import { World } from "./sim/world.js";

const GROUP = "0a".repeat(16);
const EPOCH = "0b".repeat(8);
const WRITES = 600;
const BREAKS = 5;

/** The simulation's chance, on the real clock. */
class RealWorld extends World {
  override atMoment(atMs: number, _host: undefined, run: () => void): () => void {
    this.nowMs = performance.now();
    return systemClock.after(Math.max(0, atMs - this.nowMs), () => {
      this.nowMs = performance.now();
      run();
    });
  }
}

function siteOf(name: string) {
  const world = new RealWorld(7);
  world.calm = true;
  const engine = new Engine(world, { name, life: 0, pausedUntilMs: 0 }, {});
  const replication = new Replication({ door: engine.port, clock: systemClock, authorize: () => undefined });
  const site = new TestSite(name, {
    begin: (session) => replication.begin(session.peer.fingerprint, session),
  });
  return { world, engine, replication, site };
}

describe("replication over real sockets", () => {
  const [a, b] = [siteOf("a"), siteOf("b")];
  after(async () => {
    for (const { site, replication } of [a, b]) {
      replication.close();
      await site.links.close();
    }
  });

  it(`carries ${WRITES} writes over ${BREAKS} broken sessions, and says how far behind it is`, async () => {
    const owned = {
      epochId: EPOCH,
      ops: [],
      durable: 0,
      points: new Map(),
      marks: new Map(),
      lastCutMs: 0,
      life: -1,
    };
    a.engine.owned.set(GROUP, owned);
    const shown: number[] = [];
    b.engine.committed = (_group, _from, { visible, last }) => {
      const model = a.engine.owned.get(GROUP);
      assert.ok(model !== undefined && last !== null);
      assert.deepEqual(visible, stateAt(model, last));
      shown.push(last);
    };
    const { listening } = await b.site.links.configure({
      peers: [peerOf(a.site, [])],
      listen: "127.0.0.1:0",
      site: "b",
    });
    await a.site.links.configure({ peers: [peerOf(b.site, [listening ?? ""])], site: "a" });
    const peer = b.site.fingerprint;
    const description = Buffer.from("what a replica is made from");
    a.replication.protect({
      group: GROUP,
      epochId: EPOCH,
      rpoMs: 400,
      peer,
      bytesPerSecond: null,
      description,
    });
    for (let part = 0; part <= BREAKS; part += 1) {
      for (let write = 0; write < WRITES / (BREAKS + 1); write += 1) {
        a.engine.write(GROUP, a.world.whole(0, 23), part * 1000 + write + 1);
      }
      const newest = owned.ops.length;
      const named = a.engine.snapshot(GROUP, `part-${part}`);
      assert.ok(named !== undefined);
      named.bootNs = systemClock.bootNs();
      a.replication.announce(GROUP, named);
      if (part < BREAKS) a.site.links.sessions.with(peer)?.close("a test");
      else await until("everything is there", () => b.replication.replicaLsn(GROUP) === newest);
    }
    assert.equal(owned.ops.length, WRITES);
    assert.deepEqual(
      shown.filter((lsn) => lsn % (WRITES / (BREAKS + 1)) === 0),
      [100, 200, 300, 400, 500, 600],
    );
    const status = await until("the owner knows", () => {
      const told = a.replication.status(GROUP, peer);
      return told?.has === WRITES && told;
    });
    assert.deepEqual([status.link, status.problem], ["up", null]);
    assert.ok(status.bytesSent > 0 && status.rpoMs !== null);
    await until("history before that may go", () => a.engine.owned.get(GROUP)?.marks.get(peer) === WRITES);
  });
});
