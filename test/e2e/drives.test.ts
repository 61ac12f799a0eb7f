// Drives of a mounted pool: added, emptied, replaced, rotten; with a real daemon and a real mount.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, readdirSync, statSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { PoolAnswer } from "../../src/daemon/protocol.js";
import type { ScrubReport } from "../../src/io-path/pool.js";
import { Place, until, withoutRoot } from "../daemon-fixture.js";

const FILES = 8;
const FILE_BYTES = 3_000_000;
const SLOT_BYTES = 256 << 10;
/** Writes a block of a file again and again: a process of its own, which nothing here holds up. */
const USER = `const fs = require("node:fs"), fd = fs.openSync(process.argv[1], "w"), block = Buffer.alloc(4096, 1);
setInterval(() => fs.writeSync(fd, block, 0, 4096, 0), 20);`;

void test("drives come and go under a mounted volume", { skip: withoutRoot }, async () => {
  const place = new Place();
  try {
    const mount = await place.provision({ drives: 2, rf: 2, size: "128MiB" });
    const files = new Map<string, string>();
    for (let at = 0; at < FILES; at += 1) {
      const content = randomBytes(FILE_BYTES);
      const path = join(mount, `file-${at}`);
      writeFileSync(path, content, { flush: true });
      files.set(path, createHash("sha256").update(content).digest("hex"));
    }
    const verify = (when: string): void => {
      for (const [path, hash] of files)
        assert.equal(createHash("sha256").update(readFileSync(path)).digest("hex"), hash, `${when}: ${path}`);
    };
    const [d1 = "", d2 = "", d3 = "", d4 = ""] = place.folders("d1", "d2", "d3", "d4");
    const gone = (drive: string): Promise<boolean> =>
      until(`${drive} is out of the pool`, () => {
        const { status } = place.json<PoolAnswer>("pool", "show", "p");
        return status?.drives.every(({ path }) => path !== drive) === true;
      });

    const refused = place.fails(5, "pool", "remove-drive", "p", d1);
    assert.match(refused.message, /add a drive first/u);
    place.json("pool", "add-drive", "p", "--drive", d3, "--size", "128MiB");
    place.fails(5, "pool", "add-drive", "p", "--drive", d3);
    place.json("pool", "remove-drive", "p", d1);
    await gone(d1);
    verify("a drive was emptied");
    await until("its files are gone, too", () => readdirSync(d1).every((name) => name === "lock"));
    place.json("pool", "replace-drive", "p", d2, "--drive", d4, "--size", "128MiB");
    await gone(d2);
    verify("a drive was replaced");

    const clean = place.json<ScrubReport>("scrub", "v");
    assert.ok(clean.pages > 0 && clean.badCopies === 0, JSON.stringify(clean));
    const slab = join(d3, "slab-000000");
    const fd = openSync(slab, "r+");
    for (let at = 0; at < statSync(slab).size; at += SLOT_BYTES) writeSync(fd, randomBytes(512), 0, 512, at);
    closeSync(fd);
    const report = place.json<ScrubReport>("scrub", "--pool", "p");
    assert.ok(report.badCopies > 0 && report.lost === 0, JSON.stringify(report));
    assert.equal(report.repaired, report.badCopies);
    assert.equal(place.json<ScrubReport>("scrub", "--pool", "p").badCopies, 0);
    verify("scrubbed");

    await place.stop("SIGTERM");
    await place.start();
    verify("after a restart");
  } finally {
    await place.remove();
  }
});

void test(
  "a rebuild says how far it is, leaves users room, and goes on after kill -9",
  { skip: withoutRoot },
  async () => {
    const place = new Place();
    let user: ChildProcess | undefined;
    try {
      const [folder = ""] = place.folders("config");
      const config = join(folder, "holdfast.yaml");
      writeFileSync(config, "rebuild: {limit: 1MiB}\n");
      await place.start({ config });
      const mount = await place.provision({ drives: 4, rf: 2, size: "128MiB" });
      const files = new Map<string, Buffer>();
      for (let at = 0; at < FILES; at += 1) {
        const content = randomBytes(FILE_BYTES);
        files.set(join(mount, `file-${at}`), content);
        writeFileSync(join(mount, `file-${at}`), content, { flush: true });
      }
      const status = () => place.json<PoolAnswer>("pool", "show", "p").status;
      const healing = () => {
        const found = status()?.healing;
        assert.ok(found, "a pool that is open");
        return found;
      };
      // Somebody is at work all the time: the limit holds, and the rebuild takes several seconds.
      const path = join(mount, "user");
      user = spawn(process.execPath, ["-e", USER, path], { stdio: "ignore" });
      await until("somebody is at work", () => statSync(path, { throwIfNoEntry: false })?.size === 4096);
      const [d1 = ""] = place.folders("d1");
      const copied = () => status()?.counters.bytes_healed ?? 0;
      place.json("pool", "remove-drive", "p", d1);
      const begun = await until("some of it is copied, and how long the rest takes is known", () => {
        const now = healing();
        return now.bytesDone > 0 && now.bytesLeft > 0 && now.etaSeconds !== null && copied() > 0 && now;
      });
      assert.ok((begun.etaSeconds ?? 0) >= 1, JSON.stringify(begun));
      // The user ends with the mount.
      await place.stop("SIGKILL");
      await place.start({ config });
      // What was copied is not copied again: less is left, nobody is at work, and it ends soon.
      await until("the drive is empty", () => status()?.drives.every(({ path }) => path !== d1) === true);
      const done = healing();
      assert.deepEqual([done.bytesLeft, done.thingsSingle, done.thingsLost], [0, 0, 0]);
      for (const [path, content] of files) assert.ok(readFileSync(path).equals(content), path);
      const report = place.json<ScrubReport>("scrub", "v");
      assert.ok(report.pages > 0 && report.badCopies === 0, JSON.stringify(report));
    } finally {
      user?.kill("SIGKILL");
      await place.remove();
    }
  },
);
