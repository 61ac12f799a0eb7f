// The whole life of a pool, a volume and a mount, through the command line and the kernel.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { MountResult, PoolAnswer, UmountResult, VolumeAnswer } from "../../src/daemon/protocol.js";
import { Place, mountsBelow, run, until } from "../daemon-fixture.js";

const MIB = 2 ** 20;

function keysOf(value: object | undefined | null): string[] {
  return Object.keys(value ?? {}).sort();
}

describe("life of a volume", () => {
  const place = new Place();
  const data = randomBytes(3 * MIB + 17);
  const hash = createHash("sha256").update(data).digest("hex");
  let mount = "";

  before(async () => {
    mount = await place.provision({ drives: 3, rf: 2 });
  });
  after(() => place.remove());

  const content = () =>
    createHash("sha256")
      .update(readFileSync(join(mount, "dir/data")))
      .digest("hex");

  it("is written and read", () => {
    mkdirSync(join(mount, "dir"));
    writeFileSync(join(mount, "dir/data"), data, { flush: true });
    assert.equal(content(), hash);
    assert.deepEqual(readdirSync(mount), ["dir"]);
    const { type, bavail, bsize } = statfsSync(mount);
    assert.equal(type, 0x65735546, "FUSE");
    assert.ok(bavail * bsize > 64 * MIB, `${bavail * bsize} bytes available`);
  });

  it("is shown with the fields of the contract", () => {
    const [pool] = place.json<PoolAnswer[]>("pool", "list");
    assert.deepEqual(keysOf(pool), ["drives", "name", "problem", "state", "status", "uuid"]);
    assert.equal(pool?.status?.drives.length, 3);
    assert.ok(pool?.status?.drives.every(({ state }) => state === "active"));
    const [volume] = place.json<VolumeAnswer[]>("volume", "list");
    assert.deepEqual(
      keysOf(volume),
      [
        ...[
          "ack",
          "base",
          "below",
          "branch",
          "createdSeconds",
          "domain",
          "drainedLsn",
          "durableLsn",
          "group",
          "minWriteCopies",
        ],
        ...[
          "mount",
          "name",
          "newestLsn",
          "past",
          "pool",
          "problem",
          "promotion",
          "quotaBytes",
          "replicaOf",
          "retention",
          "rf",
          "space",
          "trouble",
          "usage",
        ],
      ].sort(),
    );
    assert.deepEqual([volume?.name, volume?.group, volume?.rf, volume?.ack], ["v", "v", 2, "fsync"]);
    assert.deepEqual(keysOf(volume?.mount), [
      "at",
      "options",
      "path",
      "problem",
      "state",
      "transport",
      "transportReason",
      "volume",
    ]);
    assert.equal(volume?.mount?.path, mount);
    assert.match(volume.mount.transport, /^(dev|uring)$/);
    assert.notEqual(volume.mount.transportReason, "");
    // Positions in the log, and the seconds that are kept, move on with each second.
    const still = (one: VolumeAnswer) => {
      const retention = { ...one.retention, ticks: 0, heldWindowSeconds: 0 };
      return { ...one, newestLsn: 0, durableLsn: 0, drainedLsn: 0, retention };
    };
    const [listed] = place.json<VolumeAnswer[]>("volume", "list");
    assert.ok(listed !== undefined);
    assert.deepEqual(still(place.json<VolumeAnswer>("volume", "show", "v")), still(listed));
    const status = place.status();
    assert.equal(status.ready, true);
    assert.equal(status.mounts[0]?.state, "mounted");
    assert.match(place.cli("status").stdout, /VOLUME +MOUNTED AT/);
  });

  it("all drives on one disk: warned, not refused", () => {
    const warnings = place.status().warnings;
    assert.ok(
      warnings.some((warning) => /disk/.test(warning)),
      JSON.stringify(warnings),
    );
  });

  it("mounting where it is mounted is fine; elsewhere it is a conflict", () => {
    assert.equal(place.json<MountResult>("mount", "v", mount).already, true);
    assert.match(place.cli("mount", "v", mount).stdout, /already/);
    const [elsewhere = ""] = place.folders("elsewhere");
    assert.match(place.fails(5, "mount", "v", elsewhere).message, /is mounted at/);
    assert.match(place.fails(5, "volume", "destroy", "v", "--yes").message, /is mounted at/);
    assert.match(place.fails(5, "volume", "rename", "v", "w").message, /is mounted at/);
    assert.match(place.fails(5, "pool", "destroy", "p", "--yes").message, /mounted volumes: v/);
  });

  it("comes back after umount and mount", () => {
    assert.deepEqual(place.json<UmountResult>("umount", mount), { volume: "v", detached: false });
    assert.deepEqual(mountsBelow(place.folder), []);
    assert.deepEqual(readdirSync(mount), []);
    assert.equal(place.fails(4, "umount", mount).code, "NotFound");
    place.json("mount", "v", mount, "-o", "ro,noatime");
    assert.equal(content(), hash);
    assert.throws(() => writeFileSync(join(mount, "x"), ""), { code: "EROFS" });
    place.json("umount", mount);
    place.json("mount", "v", mount);
  });

  it("comes back by itself after an orderly stop", async () => {
    assert.equal(await place.stop("SIGTERM"), 0, place.log);
    assert.deepEqual(mountsBelow(place.folder), []);
    await place.start();
    assert.equal(place.status().mounts[0]?.state, "mounted");
    assert.equal(content(), hash);
  });

  it("comes back by itself after kill -9, with what was acknowledged and never flushed", async () => {
    writeFileSync(join(mount, "dir/unflushed"), "acknowledged");
    await place.stop("SIGKILL");
    // The first request after the kill may still have been taken by the dying connection.
    assert.throws(() => statSync(join(mount, "dir")), { code: /^(?:ENOTCONN|ECONNABORTED|ECANCELED)$/ });
    await place.start();
    assert.equal(readFileSync(join(mount, "dir/unflushed"), "utf8"), "acknowledged");
    assert.equal(content(), hash);
  });

  it("is wanted no longer when somebody unmounts it by hand", async () => {
    run("umount", [mount]);
    await until("the daemon noticed", () => place.status().mounts.length === 0);
    place.json("mount", "v", mount);
    assert.equal(content(), hash);
  });

  it("is mounted with the transport that is asked for", () => {
    place.json("umount", mount);
    const made = place.json<MountResult>("mount", "v", mount, "--transport", "dev").mount;
    assert.deepEqual([made.transport, made.transportReason], ["dev", "it was asked for"]);
    assert.equal(content(), hash);
    assert.equal(place.cli("mount", "v", mount, "--transport", "fast").code, 2);
    place.json("umount", mount);
    place.json("mount", "v", mount);
  });

  it("renamed, with a quota", () => {
    place.json("umount", mount);
    assert.equal(place.json<VolumeAnswer>("volume", "rename", "v", "w").name, "w");
    assert.equal(place.fails(4, "volume", "show", "v").code, "NotFound");
    assert.equal(place.json<VolumeAnswer>("volume", "set", "w", "--quota", "16MiB").quotaBytes, 16 * MIB);
    place.json("mount", "w", mount);
    assert.equal(content(), hash);
    const tooBig = () => writeFileSync(join(mount, "big"), Buffer.alloc(20 * MIB), { flush: true });
    // Node has no name for EDQUOT.
    assert.throws(tooBig, (error: NodeJS.ErrnoException) => error.errno === -122 || error.code === "ENOSPC");
    rmSync(join(mount, "big"), { force: true });
    assert.equal(place.json<VolumeAnswer>("volume", "set", "w", "--quota", "0").quotaBytes, 0);
    writeFileSync(join(mount, "big"), Buffer.alloc(20 * MIB), { flush: true });
  });

  it("a lost state folder: the pool is imported", async () => {
    await place.stop("SIGTERM");
    rmSync(place.state, { recursive: true });
    await place.start();
    const drives = ["d1", "d2", "d3"].flatMap((name) => ["--drive", join(place.folder, name)]);
    assert.equal(place.json<PoolAnswer>("pool", "import", ...drives).name, "p");
    assert.match(place.fails(5, "pool", "import", ...drives).message, /is a drive of pool p already/);
    place.json("mount", "w", mount);
    assert.equal(content(), hash);
  });

  it("destroyed: the drives are empty again and can be used again", () => {
    place.json("umount", mount);
    assert.equal(place.cli("volume", "destroy", "w").code, 10);
    place.json("volume", "destroy", "w", "--yes");
    assert.deepEqual(place.json("volume", "list"), []);
    assert.equal(place.cli("pool", "destroy", "p").code, 10);
    place.json("pool", "destroy", "p", "--yes");
    for (const name of ["d1", "d2", "d3"]) assert.deepEqual(readdirSync(join(place.folder, name)), []);
    place.json("pool", "create", "p", "--size", "256MiB", "--drive", join(place.folder, "d1"));
  });
});

describe("SIGTERM with a holder", () => {
  const place = new Place();
  after(() => place.remove());

  it("names it after the grace, detaches, and still ends in order", async () => {
    const config = join(place.folder, "config.yaml");
    writeFileSync(config, "stop: {grace: 500ms}\n");
    await place.start({ config });
    const mount = await place.provision({ drives: 1, rf: 1 });
    const holder = spawn("sleep", ["600"], { cwd: mount, stdio: "ignore" });
    try {
      await until("the holder is there", () => holder.pid !== undefined);
      const busy = place.fails(5, "umount", mount);
      assert.match(busy.message, new RegExp(`sleep \\(${holder.pid}, cwd\\)`));
      assert.match(busy.hint, /--detach/);
      assert.equal(await place.stop("SIGTERM"), 0, place.log);
      assert.match(place.log, new RegExp(`held by sleep \\(${holder.pid}, cwd\\)`));
      assert.deepEqual(mountsBelow(place.folder), []);
    } finally {
      holder.kill("SIGKILL");
    }
    await place.start({ config });
    assert.equal(place.status().mounts[0]?.state, "mounted", "it stayed wanted");
  });
});
