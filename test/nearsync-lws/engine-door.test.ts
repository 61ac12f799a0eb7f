// The machines' door on the real engine: two pools of one process, as two sites.

import assert from "node:assert/strict";
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Pool } from "../../src/io-path/pool.js";
import type { EngineOptions } from "../../src/io-path/pool.js";
import { decodeDescription, encodeDescription } from "../../src/nearsync-lws/description.js";
import { EngineDoor, epochIdOf, groupIdOf } from "../../src/nearsync-lws/engine-door.js";
import { HeaderStore } from "../../src/nearsync-lws/header-store.js";
import type { DoorAnswers, Point, Staging } from "../../src/nearsync-lws/machines/door.js";
import { systemClock } from "../../src/nearsync-lws/seams.js";
import { failsWith } from "./fixture.js";

const MIB = 2 ** 20;
const FOLLOWER = "f".repeat(64);

describe("the machines' door on the engine", () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-door-"));
  const pools: Pool[] = [];
  let [group, epochId] = ["", ""];
  let owner: EngineDoor, peer: EngineDoor, kept: HeaderStore;
  let description: Uint8Array = new Uint8Array(0);

  const poolAt = async (name: string): Promise<Pool> => {
    const [drive, runtime] = [join(folder, name), join(folder, `${name}-run`)];
    mkdirSync(drive);
    mkdirSync(runtime);
    const options: EngineOptions = {
      ...{ memtableBytes: 8 * MIB, ringBytes: 8 * MIB, metadataCacheBytes: 8 * MIB, dataCacheBytes: 8 * MIB },
      ...{ retentionSeconds: 0, thin: [], historyLimitPercent: 20, healBytesPerSecond: 32 * MIB },
      runtimeDir: Buffer.from(runtime),
    };
    const pool = await Pool.create(
      name,
      [{ path: Buffer.from(drive), bytes: 256 * MIB, domain: "" }],
      options,
    );
    pools.push(pool);
    return pool;
  };
  /** Something changes. */
  const change = (number: number): Promise<void> =>
    (pools[0] as Pool).setVolume("v", { quotaBytes: number * MIB });
  const state = (): Promise<DoorAnswers["replicaState"]> => peer.call({ call: "replicaState", group });

  /** Reads a batch from `cursor` on and stages it; the cursor after its last chunk. */
  async function ship(base: number | null, target: number, cursor: string | null): Promise<number> {
    const opened = await owner.call({ call: "deltaOpen", group, base, target, cursor });
    for (let chunks = 1; ; chunks += 1) {
      const next = await owner.call({ call: "deltaNext", group, delta: opened.delta, bytesMax: 262_144 });
      await peer.call({
        call: "stage",
        group,
        epochId,
        base,
        target,
        chunk: next.chunk,
        cursor: next.cursor,
      });
      if (!next.done) continue;
      await owner.call({ call: "deltaClose", group, delta: opened.delta });
      return chunks;
    }
  }
  const commit = (base: number | null, target: Point): Promise<null> =>
    peer.call({ call: "commit", group, epochId, base, target });
  const follow = (lsn: number | null, ifNone = false): Promise<null> =>
    owner.call({ call: "follow", group, follower: FOLLOWER, lsn, ifNone });
  const mark = async (): Promise<bigint | undefined> =>
    (await (pools[0] as Pool).replication.followers("v"))[0]?.lsn;

  before(async () => {
    const [here, there] = [await poolAt("here"), await poolAt("there")];
    const volume = {
      name: "v",
      rf: 1,
      ack: "fsync",
      quotaBytes: 0,
      below: "block",
      domain: "drive",
    } as const;
    await here.createVolume(volume);
    const { uuid, lineage } = await here.replication.identity("v");
    [group, epochId] = [groupIdOf(uuid), epochIdOf(lineage)];
    owner = new EngineDoor({
      clock: systemClock,
      headers: new HeaderStore(folder),
      place: () => assert.fail("an owner is asked for a replica"),
    });
    owner.set(group, { pool: here.replication.pool, name: "v" });
    const place = async (wanted: { description: Uint8Array }) => {
      const told = decodeDescription(wanted.description);
      await there.replication.create(told.engine, told.name, told.rf);
      return { pool: there.replication.pool, name: told.name };
    };
    kept = new HeaderStore(folder);
    peer = new EngineDoor({ clock: systemClock, headers: kept, place });
    const engine = await here.replication.describe("v");
    description = encodeDescription({
      ...{ name: "w", isNameChosen: true, rf: 1, rpoMs: 1000, site: "here", others: [], engine },
    });
  });
  after(async () => {
    await owner.close();
    await peer.close();
    await kept.close();
    for (const pool of pools) await pool.close();
    rmSync(folder, { recursive: true, force: true });
  });

  it("knows nothing of other groups, and makes a replica from its description", async () => {
    await assert.rejects(owner.call({ call: "cut", group: "00" }), failsWith("NotFound", "not here"));
    await assert.rejects(state(), failsWith("NotFound", "not here"));
    await peer.call({ call: "replicaCreate", group, peer: FOLLOWER, description });
    assert.deepEqual(await state(), { epochId, last: null, staging: null, headers: null });
  });

  it("cuts the same point again with a later moment, and tells of it what the engine keeps", async () => {
    const [first, second] = [
      await owner.call({ call: "cut", group }),
      await owner.call({ call: "cut", group }),
    ];
    assert.equal(first.lsn, second.lsn);
    assert.ok(second.bootNs >= first.bootNs && second.timeNs >= first.timeNs);
    const { delta, target } = await owner.call({
      ...{ call: "deltaOpen", group, base: null, target: first.lsn, cursor: null },
    });
    const kept = await (pools[0] as Pool).history.find("v", `lsn:${first.lsn}`);
    assert.equal(target.bootNs, second.bootNs);
    assert.equal(target.timeNs / 1_000_000_000n, BigInt(kept.wallSeconds));
    await owner.call({ call: "deltaClose", group, delta });
    await assert.rejects(
      owner.call({ call: "deltaNext", group, delta, bytesMax: 1 }),
      failsWith("Closed", "was closed"),
    );
  });

  it("pins a first sync once, and never goes back", async () => {
    const { lsn: first } = await owner.call({ call: "cut", group });
    await follow(first, true);
    await change(1);
    const { lsn: second } = await owner.call({ call: "cut", group });
    assert.ok(second > first);
    await follow(second, true);
    assert.equal(await mark(), BigInt(first));
    await follow(second);
    await follow(first);
    assert.equal(await mark(), BigInt(second));
  });

  it("ends a batch that is staged whole with an empty chunk, then commits it, once or twice", async () => {
    const cut = await owner.call({ call: "cut", group });
    await ship(null, cut.lsn, null);
    const { last, staging } = await state();
    assert.deepEqual([last, staging], [null, { base: null, target: cut.lsn, cursor: "" } satisfies Staging]);
    assert.equal(await ship(null, cut.lsn, ""), 1);
    await commit(null, cut);
    await commit(null, cut);
    assert.deepEqual(await state(), { epochId, last: cut.lsn, staging: null, headers: null });
  });

  it("tells what is done beyond recovery points, durably, as long as one frame continues the other", async () => {
    const has = (await state()).last as number;
    const tell = async (from: number, chain: string | null) => {
      const told = await owner.call({
        ...{ call: "headers", group, from, chain, bytesMax: 4096, summarize: false },
      });
      assert.ok(told.frame !== null);
      return told.frame;
    };
    const keep = (frame: Uint8Array, id = epochId) =>
      peer.call({ call: "headersKeep", group, epochId: id, frames: [frame] });
    const nothing = await owner.call({
      ...{ call: "headers", group, from: 1e9, chain: null, bytesMax: 4096, summarize: false },
    });
    assert.equal(nothing.frame, null);
    await change(3);
    const first = await tell(has + 1, null);
    assert.deepEqual(await keep(first.bytes), { lsn: first.last, chain: first.chain });
    await change(4);
    const second = await tell(first.last + 1, first.chain);
    await assert.rejects(keep(second.bytes, "0".repeat(16)), failsWith("Conflict", "another epoch"));
    const torn = Buffer.from(second.bytes);
    torn.writeUInt8(torn.readUInt8(torn.length - 1) ^ 1, torn.length - 1);
    await assert.rejects(keep(torn), failsWith("Corrupt", "header stream"));
    const mark = { lsn: second.last, chain: second.chain };
    assert.deepEqual(await keep(second.bytes), mark);
    assert.deepEqual((await state()).headers, mark);
    const stranger = await tell(first.last + 1, "0".repeat(16));
    await assert.rejects(keep(stranger.bytes), failsWith("Conflict", "do not continue"));
    await peer.call({ call: "headersBeat", group, newest: second.last, timeNs: 5n });
    assert.equal((await kept.of(group)).known().frames.length, 2);
    // What another process finds, with half a record behind it.
    await kept.close();
    appendFileSync(join(folder, `headers-${group}`), Buffer.from([40, 0, 0, 0, 1, 2, 3]));
    const again = new HeaderStore(folder);
    const found = (await again.of(group)).known();
    assert.deepEqual([found.mark, found.beat], [mark, { newest: second.last, timeNs: 5n }]);
    assert.deepEqual(
      found.frames.map((frame) => Buffer.from(frame)),
      [first, second].map(({ bytes }) => Buffer.from(bytes)),
    );
    await again.close();
  });

  it("refuses points that are not kept and batches that do not follow, and goes on", async () => {
    const before = (await state()).last as number;
    await change(2);
    const cut = await owner.call({ call: "cut", group });
    const lost = { call: "deltaOpen", group, base: null, target: 1, cursor: null } as const;
    await assert.rejects(owner.call(lost), failsWith("NotFound", "kept"));
    const ahead = {
      call: "deltaOpen",
      group,
      base: cut.lsn + 1000,
      target: cut.lsn + 1001,
      cursor: null,
    } as const;
    await assert.rejects(owner.call(ahead), failsWith("Conflict", "not in this history"));
    await assert.rejects(commit(before, cut), failsWith("Conflict", "not whole"));
    await ship(before, cut.lsn, null);
    const other = { call: "commit", group, epochId: "0".repeat(16), base: before, target: cut } as const;
    await assert.rejects(peer.call(other), failsWith("Fenced", "lineage"));
    await commit(before, cut);
    assert.equal((await state()).last, cut.lsn);
  });

  it("is fenced where the replica was promoted; what follows no more pins nothing", async () => {
    await (pools[1] as Pool).replication.promote("w", "");
    await assert.rejects(state(), failsWith("Fenced", "promoted here"));
    await follow(null);
    assert.equal(await mark(), undefined);
  });
});
