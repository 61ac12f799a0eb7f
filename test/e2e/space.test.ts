// What of the past is kept and what it holds: retention, thinning, quotas, and what deleting would free.

import assert from "node:assert/strict";
import { closeSync, openSync, statfsSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type {
  SnapshotAnswer,
  StatusAnswer,
  VolumeAnswer,
  WouldFreeAnswer,
} from "../../src/daemon/protocol.js";
import { Place, metricsOf, until } from "../daemon-fixture.js";

const MIB = 2 ** 20;
const PIECE = Buffer.alloc(MIB, 7);

function write(path: string, mebibytes: number, flags = "w"): number {
  const descriptor = openSync(path, flags);
  try {
    let written = 0;
    for (let at = 0; at < mebibytes; at += 1) written += writeSync(descriptor, PIECE);
    return written;
  } finally {
    closeSync(descriptor);
  }
}

/** As a number: Node has no name for EDQUOT. */
function errno(work: () => unknown): number {
  try {
    work();
  } catch (error) {
    return -((error as NodeJS.ErrnoException).errno ?? 0);
  }
  return 0;
}

const EDQUOT = 122;

describe("space of the past", () => {
  const place = new Place();
  let mount = "";
  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2, size: "256MiB" });
  });
  after(() => place.remove());

  const volume = () => place.json<VolumeAnswer>("volume", "show", "v");
  const wouldFree = (...names: string[]) =>
    place.json<WouldFreeAnswer>("snapshot", "delete", "v", ...names, "--dry-run");

  it("is kept as it was asked for, by the daemon or by the group", () => {
    const { retention } = volume();
    assert.equal(retention.windowSeconds, 3600);
    assert.deepEqual(retention.thin[0], { everySeconds: 60, forSeconds: 86_400 });
    const set = place.json<VolumeAnswer>(
      ...["volume", "set", "v", "--retention", "2h", "--thin", "5m:1d", "--history-limit", "10%"],
    );
    assert.equal(set.retention.windowSeconds, 7200);
    assert.deepEqual(set.retention.thin, [{ everySeconds: 300, forSeconds: 86_400 }]);
    assert.ok((set.retention.limitBytes ?? 0) > 40 * MIB);
    const years = place.fails(2, "volume", "set", "v", "--retention", "365d");
    assert.match(years.message, /31536000 points.*at most 36 hours/);
    place.fails(2, "volume", "set", "v", "--thin", "1m");
    place.fails(10, "volume", "set", "v", "--retention", "0s", "--thin", "none");
    assert.equal(volume().retention.windowSeconds, 7200, "nothing was set");
  });

  it("says what the window is when something outside of it is asked for", () => {
    write(join(mount, "any"), 1);
    place.json("snapshot", "create", "v", "first");
    const early = place.fails(4, "snapshot", "create", "v", "early", "--at", "-30d");
    assert.match(early.message, /kept are states from \d{4}-.* to \d{4}-/);
  });

  it("says what deleting snapshots would give back, and gives that back", async () => {
    write(join(mount, "large"), 24);
    place.json("snapshot", "create", "v", "large");
    unlinkSync(join(mount, "large"));
    place.json("snapshot", "create", "v", "after");
    // The seconds hold it as well.
    place.json("volume", "set", "v", "--retention", "0s", "--thin", "none", "--yes");
    await until("the seconds are gone", () => volume().retention.ticks === 0);
    await until("the deletion is known", () => wouldFree("large").bytes >= 24 * MIB);
    const free = wouldFree("large", "after");
    assert.ok(free.bytes >= 24 * MIB && free.bytes < 27 * MIB, `${free.bytes} bytes`);
    assert.equal(wouldFree("after").bytes, 0);
    const listed = place.json<SnapshotAnswer[]>("snapshot", "list", "v");
    const large = listed.find(({ name }) => name === "large")?.space;
    assert.ok(large != null && large.uniqueBytes === wouldFree("large").bytes);
    assert.ok(large.uniqueLastingBytes >= large.uniqueBytes && large.sharedBytes >= 0);

    place.json("snapshot", "hold", "v", "large");
    place.fails(5, "snapshot", "delete", "v", "large", "--dry-run");
    place.fails(5, "snapshot", "delete", "v", "large", "--yes");
    place.json("snapshot", "release", "v", "large");
    place.fails(4, "snapshot", "delete", "v", "none", "--dry-run");
    place.json("snapshot", "delete", "v", "large", "after", "--yes");
    await until("it is given back", () => {
      const { usage } = volume();
      return usage.historyBytes + usage.snapshotBytes < 2 * MIB;
    });
  });

  it("is told by status, volume list, metrics and df in the same numbers", async () => {
    const { pools, volumes } = place.json<StatusAnswer>("status");
    const status = pools[0]?.status;
    assert.ok(status != null);
    const { liveBytes, cloneBytes, historyBytes, snapshotBytes, deadBytes } = status.usage;
    const data = liveBytes + cloneBytes + historyBytes + snapshotBytes + deadBytes;
    const all = data + status.freeBytes + status.logBytes + status.metadataBytes;
    assert.ok(Math.abs(all - status.totalBytes) <= status.totalBytes / 100, `${all} of ${status.totalBytes}`);
    const { bavail, bsize, blocks } = statfsSync(mount);
    const told = volumes[0]?.space;
    assert.ok(told != null);
    assert.ok(Math.abs(told.totalBytes - blocks * bsize) <= MIB);
    assert.ok(
      Math.abs(told.availableBytes - bavail * bsize) <= 8 * MIB,
      `${told.availableBytes}, ${bavail * bsize}`,
    );
    const metrics = await metricsOf(place.state);
    for (const name of [
      "pool_bytes",
      "volume_bytes",
      "group_bytes",
      "group_window_seconds",
      "group_points",
    ]) {
      assert.match(metrics, new RegExp(`^holdfast_${name}\\{`, "m"));
    }
  });

  it("stays within a quota, which df shows, and out of which deletions lead", async () => {
    place.json("volume", "set", "v", "--quota", "16MiB");
    const { blocks, bsize } = statfsSync(mount);
    assert.equal(blocks * bsize, 16 * MIB);
    assert.equal(
      errno(() => write(join(mount, "much"), 32)),
      EDQUOT,
    );
    unlinkSync(join(mount, "much"));
    // The kernel says later that nobody has the file open any more.
    await until("the file has gone", () => statfsSync(mount).bavail * bsize >= 8 * MIB);
    assert.equal(write(join(mount, "fits"), 8), 8 * MIB);
    assert.equal(place.json<VolumeAnswer>("volume", "set", "v", "--quota", "0").quotaBytes, 0);
  });
});
