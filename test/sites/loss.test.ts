// The owner is killed at a random moment of a bounded load: what the loss statement says to be known is exactly what
// the owner did, as its log and the writer have it, and nothing that was lost is older than the lag that was shown.
// When the owner is back, all of it is said exactly, and is what its fork has.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Headers } from "../../src/io-path/headers.js";
import type { Loss } from "../../src/io-path/headers.js";
import { Pool } from "../../src/io-path/pool.js";
import type {
  FailoverAnswer,
  ForkAnswer,
  LossStatement,
  PeerAnswer,
  ProtectionAnswer,
} from "../../src/daemon/protocol.js";
import { Place, metricsOf, run, until } from "../daemon-fixture.js";
import { randomOf } from "../nearsync-lws/random.js";
import { configOf, startPeers, stayThere } from "./pair.js";

const ROUNDS = 3;
const SEED = Number(process.env.HOLDFAST_LOSS_SEED ?? Date.now() % 1_000_000);
const MIB = 2 ** 20;
const RING_BYTES = 16 * MIB;
const WRITE_BYTES = 1000;
/** The writer stops by itself after so many operations; the kill comes before. All of them stay in the owner's log. */
const OPS_MAX = 2400;

/** Writes and fsyncs in turns that are drawn; after each it notes, in one line, that it was acknowledged, and when. */
const WRITER = `
const { appendFileSync, fsyncSync, openSync, writeSync } = require("node:fs");
const [dir, noted, seed] = [process.argv[1], process.argv[2], Number(process.argv[3])];
let state = seed >>> 0 || 1;
const draw = (below) => {
  state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
  return (state >>> 0) % below;
};
const files = [0, 1, 2, 3].map((name) => openSync(dir + "/f" + name, "w"));
const log = openSync(noted, "a");
const block = Buffer.alloc(${WRITE_BYTES}, 7);
const pause = new Int32Array(new SharedArrayBuffer(4));
// It ends with the mount.
process.on("uncaughtException", () => process.exit(0));
for (let op = 0; op < ${OPS_MAX}; op += 1) {
  const file = draw(4);
  const syncs = draw(6) === 0;
  if (syncs) fsyncSync(files[file]);
  // The kernel asks for each side of a page boundary by itself: the kill may come between.
  else if (writeSync(files[file], block, 0, block.length, draw(64) * block.length) < block.length) process.exit(0);
  // It is at work still when the owner is killed.
  Atomics.wait(pause, 0, 0, 1);
  appendFileSync(log, (syncs ? "sync " : "write ") + file + " " + Date.now() + "\\n");
}
`;

interface Noted {
  what: string;
  atMs: number;
}

function noted(path: string): Noted[] {
  const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
  return lines.map((line) => {
    const [what = "", , at = "0"] = line.split(" ");
    return { what, atMs: Number(at) };
  });
}

const sumsOf = ({ ops, bytes, files, fsyncedOps, fsyncedBytes, fsyncedFiles }: Loss) => ({
  ...{ ops, bytes, files },
  fsynced: { ops: fsyncedOps, bytes: fsyncedBytes, files: fsyncedFiles },
});

describe(`what a failover costs (seed ${SEED})`, () => {
  const [a, b] = [new Place(), new Place()];
  const random = randomOf(SEED);
  const [rings = ""] = a.folders("rings");
  const drives = a.folders("d1", "d2");

  before(async () => {
    await startPeers(a, b);
    stayThere(a, b, {
      north: `runtime_dir: ${rings}
memory: {ring: ${RING_BYTES}}
`,
    });
    await a.stop();
    await a.start({ config: configOf(a) });
    a.json("pool", "create", "p", "--size", "512MiB", ...drives.flatMap((path) => ["--drive", path]));
    const other = b.folders("e1");
    b.json("pool", "create", "q", "--size", "512MiB", ...other.flatMap((path) => ["--drive", path]));
  });
  after(async () => {
    await a.remove();
    await b.remove();
  });

  const protection = (group: string): ProtectionAnswer => {
    const found = a.json<ProtectionAnswer[]>("protect", "list").find((one) => one.group === group);
    assert.ok(found !== undefined);
    return found;
  };

  /** What the owner's log says, as the next start would find it; looked at in a copy, which it ends. */
  async function inLog(look: (headers: Headers) => Promise<void>): Promise<void> {
    const [ring = "", ...others] = readdirSync(rings);
    assert.deepEqual(others, []);
    const copy = join(a.folder, "copy");
    mkdirSync(copy);
    run("cp", ["-a", "--sparse=always", ...drives, rings, `${copy}/`]);
    const pool = await Pool.open(
      drives.map((path) => Buffer.from(join(copy, basename(path)))),
      {
        ...{ memtableBytes: 32 * MIB, ringBytes: RING_BYTES, metadataCacheBytes: 8 * MIB },
        ...{ dataCacheBytes: 8 * MIB, retentionSeconds: 3600, thin: [], historyLimitPercent: 20 },
        ...{ healBytesPerSecond: 32 * MIB, runtimeDir: Buffer.from(join(copy, basename(rings), ring)) },
      },
    );
    try {
      await look(new Headers(pool.replication.pool));
    } finally {
      await pool.close();
      rmSync(copy, { recursive: true });
    }
  }

  async function round(group: string): Promise<void> {
    const [mount = ""] = a.folders(`mnt-${group}`);
    a.json("volume", "create", group, "--pool", "p", "--rf", "2");
    a.json("mount", group, mount);
    a.json("protect", group, "--to", "south", "--rf", "1", "--rpo", "3s");
    await until("headers flow", () => protection(group).headers.lagMs !== null);
    assert.match(a.cli("protect", "list").stdout, new RegExp(`${group} +south +up`));
    const log = join(a.folder, `${group}.log`);
    writeFileSync(log, "");
    const writer = spawn(process.execPath, ["-e", WRITER, mount, log, `${Math.floor(random() * 2 ** 31)}`], {
      stdio: "inherit",
    });
    const ended = new Promise((resolve) => writer.once("close", resolve));
    const wanted = 200 + Math.floor(random() * (OPS_MAX / 2));
    await until(`${wanted} operations`, () => noted(log).length >= wanted);
    const [askedMs, shown] = [Date.now(), protection(group)];
    await a.stop("SIGKILL");
    await ended;
    await until("the owner is missed", () => b.json<PeerAnswer[]>("peer", "list")[0]?.connected === false);

    // Said before it is asked, and nothing is changed by that.
    const asked = b.cli("failover", group, "--unplanned", "--json");
    assert.equal(asked.code, 10, asked.stderr);
    const said = JSON.parse(asked.stdout) as LossStatement;
    assert.match(b.cli("failover", group, "--unplanned").stdout, /known lost: .*not known: /s);
    const { loss } = b.json<FailoverAnswer>("failover", group, "--unplanned", "--yes");
    assert.deepEqual(loss, said);
    await b.stop("SIGKILL");
    await b.start({ config: configOf(b) });
    assert.deepEqual(b.json("failover", group, "--statement"), said);
    assert.deepEqual(b.json<FailoverAnswer>("failover", group, "--unplanned", "--yes").loss, said);

    const { recovered, known, unknown } = said;
    const done = noted(log);
    let bytesLost = 0;
    const exact = { known: {}, unknown: {}, total: {} };
    const cutMs = Date.parse(recovered.time ?? "");
    const rpoMs = shown.lag.rpoMs ?? Number.POSITIVE_INFINITY;
    await inLog(async (headers) => {
      const newest = headers.newest(group);
      const of = (above: number, until: number | bigint) =>
        headers.lossOfLog(group, BigInt(above), BigInt(until));
      const exactly = await of(recovered.lsn, known.lastLsn);
      assert.deepEqual([exactly.isExact, known.isExact], [true, true]);
      assert.deepEqual(sumsOf(exactly), {
        ...{ ops: known.ops, bytes: known.bytes, files: known.files },
        fsynced: known.fsynced,
      });
      // The writer knows of the last operation only when it was answered.
      const writes = done.filter(({ what }) => what === "write");
      const all = await of(0, newest);
      const inAll = all.bytes / WRITE_BYTES;
      assert.ok(inAll >= writes.length && inAll <= writes.length + 1, `${inAll} of ${writes.length} writes`);
      const before = (ms: number) => writes.filter(({ atMs }) => atMs < ms).length;
      const within = async (lsn: number) => Math.floor((await of(0, lsn)).bytes / WRITE_BYTES);
      const kept = await within(recovered.lsn);
      assert.ok(kept >= before(cutMs), "what was written before the cut is recovered");
      bytesLost = all.bytes - (await of(0, recovered.lsn)).bytes;
      exact.known = sumsOf(exactly);
      exact.unknown = sumsOf(await of(known.lastLsn, newest));
      exact.total = sumsOf(await of(recovered.lsn, newest));
      const oldestMs = writes[kept]?.atMs ?? askedMs;
      // A millisecond for what each side rounds.
      assert.ok(
        oldestMs >= askedMs - rpoMs - 1,
        `lost from ${oldestMs} on, ${rpoMs} ms behind at ${askedMs}`,
      );
      const sinceMs = Date.parse(unknown.since ?? "");
      const knownWrites = await within(known.lastLsn);
      assert.ok(
        knownWrites + unknown.opsAtLeast >= before(sinceMs),
        "what was written before the last look is known",
      );
      const blind = writes.slice(knownWrites);
      const blindMs = blind.length === 0 ? 0 : (done.at(-1)?.atMs ?? 0) - (blind[0]?.atMs ?? 0);
      const lost = `${known.ops} operations known to be lost, ${known.fsynced.ops} fsynced`;
      console.log(`${group}: ${lost}; ${blind.length} unknown, of the last ${blindMs} ms`);
    });
    await a.start({ config: configOf(a), ready: false });

    const again = await until("the former owner tells", () => {
      const { reconciled, ...first } = b.json<LossStatement>("failover", group, "--statement");
      assert.deepEqual({ ...first, reconciled: null }, said);
      return reconciled ?? undefined;
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${a.log}\n${b.log}`, { cause: error });
    });
    assert.deepEqual([again.peer, again.isContradicted], ["north", false]);
    for (const part of ["known", "unknown", "total"] as const) {
      const { ops, bytes, files, fsynced, isExact } = again[part];
      assert.ok(isExact, part);
      assert.deepEqual({ ops, bytes, files, fsynced }, exact[part], part);
    }
    assert.equal(again.total.bytes, bytesLost);
    assert.ok(again.total.named.every(({ volume }) => volume === group));
    assert.match(b.cli("failover", group, "--statement").stdout, /reconciled with north.*lost in all: LSN/s);
    const fork = await until("there is a fork", () =>
      a.json<ForkAnswer[]>("fork", "list").find(({ of }) => of === group),
    );
    const { changes } = a.json<ForkAnswer>("fork", "show", fork.name);
    const changed = again.total.named.filter(({ ops }) => ops > 0).length;
    assert.deepEqual([fork.common?.lsn, changes?.files], [recovered.lsn, changed]);
  }

  for (let number = 1; number <= ROUNDS; number += 1) {
    it(`is said exactly, kill ${number}`, async () => {
      await round(`v${number}`);
    });
  }

  it("names the volumes of files in a group of several", async () => {
    const names = ["one", "two"];
    const files = names.map((name) => {
      const [dir = ""] = a.folders(`mnt-${name}`);
      a.json("volume", "create", name, "--pool", "p", "--rf", "1", "--group", "both");
      a.json("mount", name, dir);
      writeFileSync(join(dir, "file"), "of before");
      return join(dir, "file");
    });
    // The next recovery point is half a minute away.
    a.json("protect", "both", "--to", "south", "--rpo", "1m");
    await until(
      "headers flow",
      () => protection("both").headers.lagMs !== null && protection("both").has !== null,
    );
    for (const file of files) writeFileSync(file, "changed");
    await until("it is known", () => {
      const { known } = b.json<LossStatement>("failover", "both", "--statement");
      const told = known.named.map(({ volume, path }) => `${volume}:${path}`).sort();
      return told.join(" ") === "both-one:file both-two:file";
    });
    assert.match(b.cli("failover", "both", "--statement").stdout, /^both-one:file +[1-9]/m);
  });

  it("raises an alarm when the former owner has something else than was said", async () => {
    const [group, file] = [`v${ROUNDS}`, join(b.state, "statements.json")];
    const warned = () =>
      b.status().warnings.filter((text) => text.includes("is not what its former owner has"));
    assert.deepEqual(warned(), []);
    await b.stop();
    const stored = JSON.parse(readFileSync(file, "utf8")) as { list: { statement: LossStatement }[] };
    for (const { statement } of stored.list) {
      if (statement.group !== group) continue;
      statement.known.fsynced.ops += 1;
      statement.reconciled = null;
    }
    writeFileSync(file, JSON.stringify(stored));
    await b.start({ config: configOf(b) });
    await until("the alarm", () => warned().some((text) => text.includes(` lost of ${group} `)));
    await until("the log says so", () => /"level":50.*is not what its former owner has/.test(b.log));
    const metrics = await metricsOf(b.state);
    assert.match(metrics, new RegExp(`holdfast_failover_contradicted{group="${group}"} 1`));
    assert.match(metrics, new RegExp('holdfast_failover_contradicted{group="v1"} 0'));
    assert.match(b.cli("failover", group, "--statement").stdout, /CONTRADICTED by north/);
  });
});
