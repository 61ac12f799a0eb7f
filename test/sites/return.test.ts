// Two real daemons, and owners that come back: what only they had is a fork, then they follow, and replication goes the
// other way. There and back again, with kills of either in the middle.

import assert from "node:assert/strict";
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type {
  FailoverAnswer,
  ForkAnswer,
  MountAnswer,
  ProtectionAnswer,
  SnapshotAnswer,
  VolumeAnswer,
} from "../../src/daemon/protocol.js";
import { Place, mountsBelow, until } from "../daemon-fixture.js";
import { caughtUp, configOf, sameThere, startPeers, stayThere } from "./pair.js";

const BANDWIDTH = 64 * 2 ** 20;
const PROTECTED = ["--rpo", "400ms", "--bandwidth", `${BANDWIDTH}`];

interface Difference {
  volumes: { volume: string; changes: { kind: string; path: string }[] }[];
}

describe("a former owner that comes back", () => {
  const [a, b] = [new Place(), new Place()];
  let [mountA, mountB] = ["", ""];

  const start = (place: Place) => place.start({ config: configOf(place) });
  const forks = (place: Place) => place.json<ForkAnswer[]>("fork", "list");
  const volume = (place: Place) => place.json<VolumeAnswer>("volume", "show", "v");
  const sent = (place: Place): ProtectionAnswer | undefined =>
    place.json<ProtectionAnswer[]>("protect", "list")[0];
  const plans = (place: Place): unknown[] => {
    const file = join(place.state, "returns.json");
    return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as { list: unknown[] }).list : [];
  };
  const everything = (owner: Place) => caughtUp(owner, { others: [a, b] });
  /** The one follows the other, which has taken up sending it as it was sent before. */
  const follows = async (follower: Place, owner: Place): Promise<void> => {
    await until("the former owner follows", () => {
      return plans(follower).length === 0 && volume(follower).replicaOf !== null;
    }).catch((error: unknown) => {
      const status = JSON.stringify(follower.status().warnings);
      throw new Error(`${String(error)}\n${status}\n${a.log}\n${b.log}`, { cause: error });
    });
    const { rpoMs, bytesPerSecond } = sent(owner) ?? {};
    assert.deepEqual([rpoMs, bytesPerSecond], [400, BANDWIDTH]);
    assert.equal(sent(follower), undefined);
    await everything(owner);
  };
  before(async () => {
    await startPeers(a, b);
    stayThere(a, b);
    mountA = await a.provision({ drives: 2, rf: 2 });
    b.json("pool", "create", "q", "--size", "512MiB", ...b.folders("e1").flatMap((dir) => ["--drive", dir]));
    [mountB = ""] = b.folders("mnt");
    mkdirSync(join(mountA, "dir"));
    writeFileSync(join(mountA, "dir", "both"), "of both");
    a.json("protect", "v", "--to", "south", "--rf", "1", ...PROTECTED);
    await everything(a);
  });
  after(async () => {
    await a.remove();
    await b.remove();
  });

  it("is not replaced by mistake while it is connected", () => {
    const refused = b.fails(5, "failover", "v", "--unplanned", "--yes");
    assert.match(`${refused.message} ${refused.hint}`, /connected.*--force/);
    assert.notEqual(volume(b).replicaOf, null);
  });

  it("keeps as a fork what only it has, and follows; kills of it in the middle change nothing", async () => {
    await b.stop("SIGKILL");
    writeFileSync(join(mountA, "tail"), "of the former owner");
    writeFileSync(join(mountA, "dir", "both"), "changed by the former owner");
    await a.stop("SIGKILL");
    await start(b);
    assert.equal(b.json<FailoverAnswer>("failover", "v", "--unplanned", "--yes").already, false);
    b.json("mount", "v", mountB);
    writeFileSync(join(mountB, "new"), "of the new owner");
    assert.equal(await b.stop(), 0);
    // It serves, since nobody says anything else.
    await start(a);
    assert.equal(sent(a)?.link, "unconfirmed");
    const held = openSync(join(mountA, "tail"), "r");
    await start(b);
    // A busy mount takes two seconds to end: time enough to die in.
    await until("it is found out", () => plans(a).length > 0);
    await a.stop("SIGKILL");
    closeSync(held);
    await start(a);
    await follows(a, b);
    sameThere(a, mountB);
    assert.equal(readFileSync(join(mountB, "dir", "both"), "utf8"), "of both");
    assert.deepEqual([mountsBelow(a.folder), a.json<MountAnswer[]>("volume", "list").length], [[], 2]);
    assert.equal(a.fails(8, "mount", "v", mountA).code, "Fenced");
    assert.equal(volume(a).rf, 2);
  });

  it("has a fork that can be listed, compared, read and cloned, and that nobody changes", () => {
    const [fork] = forks(a);
    assert.ok(fork !== undefined);
    assert.match(fork.name, /^v-fork-\d{8}T\d{6}$/);
    assert.equal(fork.of, "v");
    assert.ok(fork.common?.time != null && fork.ops > 0 && fork.newestLsn > fork.common.lsn);
    const { changes } = a.json<ForkAnswer>("fork", "show", fork.name);
    assert.deepEqual([changes?.files, changes?.isMore], [2, false]);
    const { volumes } = a.json<Difference>("fork", "diff", fork.name);
    const told = volumes.flatMap((one) => one.changes.map(({ kind, path }) => `${kind} ${path}`));
    assert.deepEqual(told, ["changed dir/both", "added tail"]);
    const named = a.json<SnapshotAnswer[]>("snapshot", "list", fork.name);
    assert.deepEqual(
      named.map(({ name, held, lsn }) => [name, held, lsn]),
      [["fork-point", true, fork.common.lsn]],
    );
    a.json("mount", fork.name, mountA);
    assert.equal(readFileSync(join(mountA, "tail"), "utf8"), "of the former owner");
    assert.equal(readFileSync(join(mountA, "dir", "both"), "utf8"), "changed by the former owner");
    const then = join(mountA, ".holdfast", "snapshots", "fork-point", "dir", "both");
    assert.equal(readFileSync(then, "utf8"), "of both");
    assert.throws(() => writeFileSync(join(mountA, "tail"), "forged"), { code: "EROFS" });
    assert.equal(a.fails(5, "fork", "drop", fork.name, "--yes").code, "Conflict");
    a.json("umount", mountA);
    assert.equal(a.fails(8, "protect", fork.name, "--to", "south").code, "Fenced");
    assert.equal(a.fails(8, "failover", fork.name, "--unplanned", "--yes").code, "Fenced");
    a.json("clone", fork.name, "again");
    a.json("mount", "again", mountA);
    writeFileSync(join(mountA, "tail"), "goes on");
    a.json("umount", mountA);
    a.json("volume", "destroy", "again", "--yes");
    assert.match(a.fails(10, "fork", "drop", fork.name).message, /2 changed files/);
    a.json("fork", "drop", fork.name, "--yes");
    assert.equal(a.fails(4, "fork", "show", fork.name).code, "NotFound");
    assert.deepEqual(forks(a), []);
  });

  it("goes back: the follower takes over, and an owner without a tail leaves no fork", async () => {
    writeFileSync(join(mountB, "new"), "of the new owner, later");
    await everything(b);
    b.json("umount", mountB);
    await everything(b);
    assert.equal(await b.stop(), 0);
    assert.equal(a.json<FailoverAnswer>("failover", "v", "--unplanned", "--yes").already, false);
    a.json("mount", "v", mountA);
    assert.equal(readFileSync(join(mountA, "new"), "utf8"), "of the new owner, later");
    writeFileSync(join(mountA, "back"), "home again");
    await start(b);
    await follows(b, a);
    sameThere(b, mountA);
    assert.deepEqual(forks(b), []);
    assert.match(b.log, /this site had nothing alone/);
  });

  it("does nothing when it starts again", async () => {
    await b.stop("SIGKILL");
    await start(b);
    await everything(a);
    assert.deepEqual([plans(b), forks(b), forks(a)], [[], [], []]);
    assert.notEqual(volume(b).replicaOf, null);
    sameThere(b, mountA);
  });

  it("stops writers, whatever they hold open, and waits for a successor that dies meanwhile", async () => {
    const held = openSync(join(mountA, "held"), "a");
    writeSync(held, "in time");
    fsyncSync(held);
    await everything(a);
    b.json("failover", "v", "--unplanned", "--force", "--yes");
    await until("it is found out", () => plans(a).length > 0).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${a.log}\n${b.log}`, { cause: error });
    });
    await b.stop("SIGKILL");
    await until("it waits", () => /waits to be sent/.test(a.status().warnings.join("\n")));
    assert.throws(() => writeSync(held, "too late"), { code: /^(?:EROFS|ENOTCONN|ECONNABORTED|ENODEV)$/ });
    closeSync(held);
    assert.deepEqual(mountsBelow(a.folder), []);
    await start(b);
    await follows(a, b);
    b.json("mount", "v", mountB);
    sameThere(a, mountB);
    assert.equal(readFileSync(join(mountB, "held"), "utf8"), "in time");
  });
});
