// Bad input that needs a pool: a clear error, and nothing lost.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { PoolAnswer } from "../../src/daemon/protocol.js";
import { Place, ROOT, run, until, withoutRoot } from "../daemon-fixture.js";

describe("bad input", () => {
  const place = new Place();
  const other = new Place();
  let mount = "";

  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2 });
    writeFileSync(join(mount, "canary"), "alive", { flush: true });
  });
  after(async () => {
    await place.remove();
    await other.remove();
  });

  const canary = () => assert.equal(readFileSync(join(mount, "canary"), "utf8"), "alive");
  const drive = (name: string) => join(place.folder, name);

  it("fewer drives than copies", () => {
    assert.match(
      place.fails(2, "volume", "create", "x", "--pool", "p", "--rf", "3").message,
      /3 drives.* has 2/,
    );
  });

  it("names that are taken, pools that are not there", () => {
    const [d9 = ""] = place.folders("d9");
    assert.match(place.fails(5, "volume", "create", "v", "--pool", "p").message, /v exists already/);
    assert.match(place.fails(5, "pool", "create", "p", "--drive", d9).message, /p exists already/);
    assert.match(place.fails(4, "volume", "create", "x", "--pool", "q").message, /no pool q/);
  });

  it("a drive that is in a pool already, here and at another daemon", async () => {
    assert.match(place.fails(5, "pool", "create", "q", "--drive", drive("d1")).message, /belongs to pool p/);
    await other.start();
    assert.match(other.fails(5, "pool", "create", "q", "--drive", drive("d1")).message, /belongs to pool p/);
    canary();
  });

  it("a second daemon on the same pool is refused, and again after kill -9 of neither", () => {
    const refused = other.fails(5, "pool", "import", "--drive", drive("d1"), "--drive", drive("d2"));
    assert.equal(refused.code, "Conflict");
    canary();
    writeFileSync(join(mount, "canary"), "alive", { flush: true });
  });

  it("a file that only looks like a drive", () => {
    const [foreign = ""] = place.folders("foreign");
    writeFileSync(join(foreign, "superblock"), Buffer.alloc(8192, 0x5a));
    const refused = other.cli("pool", "import", "--drive", foreign, "--json");
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /foreign/);
    assert.deepEqual(
      readFileSync(join(foreign, "superblock")),
      Buffer.alloc(8192, 0x5a),
      "nothing was written",
    );
    const [empty = ""] = place.folders("empty");
    assert.notEqual(other.cli("pool", "import", "--drive", empty).code, 0);
    assert.deepEqual(readdirSync(empty), []);
  });

  it("mount points: missing, a file, not empty, taken", () => {
    place.json("volume", "create", "w", "--pool", "p", "--rf", "1");
    assert.match(place.fails(4, "mount", "w", join(place.folder, "none")).message, /no such file/);
    const file = join(place.folder, "file");
    writeFileSync(file, "");
    assert.match(place.fails(2, "mount", "w", file).message, /not a directory/);
    const [full = ""] = place.folders("full");
    writeFileSync(join(full, "x"), "");
    assert.match(place.fails(5, "mount", "w", full).message, /not empty/);
    assert.match(place.fails(5, "mount", "w", mount).message, /is mounted there/);
    canary();
  });

  it("a volume that is in use: not destroyed, not renamed, not mounted twice, not unmounted under its users", () => {
    assert.match(place.fails(5, "volume", "destroy", "v", "--yes").message, /v is mounted at .*mnt/);
    assert.match(place.fails(5, "volume", "rename", "v", "u").message, /v is mounted at .*mnt/);
    assert.match(place.fails(5, "pool", "destroy", "p", "--yes").message, /mounted volumes: v/);
    const [second = ""] = place.folders("second");
    assert.match(place.fails(5, "mount", "v", second).message, /v is mounted at .*mnt/);
    const held = openSync(join(mount, "canary"), "r");
    try {
      const refused = place.fails(5, "umount", mount);
      assert.match(refused.message, new RegExp(`mnt is busy: held by .*\\(${process.pid}, `));
      assert.match(refused.hint, /umount --detach/);
      canary();
    } finally {
      closeSync(held);
    }
    assert.match(place.fails(10, "volume", "destroy", "v").message, /destroying volume v/);
    canary();
  });

  it("a superblock of a format that is not known: refused, and not touched", () => {
    // FORMAT.md, section 5, with feature bits of the future: as the corpus has it.
    const corpus = readFileSync(join(ROOT, "native/format/tests/corpus/superblock"), "latin1");
    const line = corpus.split("\n").find((text) => text.startsWith("Unsupported\t")) ?? "";
    const newer = fromCorpus(line.split("\t")[1] ?? "");
    assert.equal(newer.length, 4096);
    const [future = ""] = place.folders("future");
    writeFileSync(join(future, "superblock"), Buffer.concat([newer, newer]));
    writeFileSync(join(future, "manifest"), Buffer.alloc(8192, 1));
    const before = hashOf(future);
    const refusals = [
      other.fails(9, "pool", "import", "--drive", future),
      other.fails(5, "pool", "create", "q", "--drive", future),
      place.fails(5, "pool", "add-drive", "p", "--drive", future),
    ];
    for (const { message } of refusals) assert.match(message, /future/);
    assert.match(refusals[0]?.message ?? "", /newer program/);
    assert.deepEqual(hashOf(future), before);
  });

  /** `tests/bytes/fuzz.rs` says how inputs are written. */
  function fromCorpus(text: string): Buffer {
    const parts = text.split(" ").map((word) => {
      const [digits = "", count = "1"] = word.split("*");
      const bytes = Buffer.from(digits, "hex");
      return Buffer.concat([bytes, Buffer.alloc(Number(count) - 1, bytes.subarray(-1))]);
    });
    return Buffer.concat(parts);
  }

  /** Every file of a drive, by name; its empty lock says nothing. */
  function hashOf(folder: string): Record<string, string> {
    const names = readdirSync(folder).filter((name) => name !== "lock");
    return Object.fromEntries(
      names.map((name) => [name, readFileSync(join(folder, name)).toString("base64")]),
    );
  }

  it("names with newlines and invalid UTF-8 are bytes", () => {
    const name = Buffer.from([0x61, 0x0a, 0xff, 0xfe, 0x0d, 0x5c]);
    const path = Buffer.concat([Buffer.from(`${mount}/`), name]);
    writeFileSync(path, "odd");
    assert.ok(readdirSync(mount, { encoding: "buffer" }).some((found) => found.equals(name)));
    assert.equal(readFileSync(path, "utf8"), "odd");
    const odd = Buffer.concat([Buffer.from(`${place.folder}/mnt-`), name]);
    mkdirSync(odd);
    const quoted = `$'${[...odd].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}'`;
    place.mountQuoted("w", quoted);
    const mounted = place.status().mounts.find(({ volume }) => volume === "w");
    assert.deepEqual(Buffer.from(mounted?.path_base64 ?? "", "base64"), odd);
    writeFileSync(Buffer.concat([odd, Buffer.from("/file")]), "inside");
  });

  it("another user sees nothing of a mount without allow_other", { skip: withoutRoot }, () => {
    const script = `process.setgroups([]); process.setgid(65534); process.setuid(65534);
      try { require("node:fs").readdirSync(${JSON.stringify(mount)}); console.log("seen") }
      catch (error) { console.log(error.code) }`;
    const asNobody = () =>
      spawnSync(process.execPath, ["-e", script], { encoding: "utf8", cwd: "/" }).stdout.trim();
    spawnSync("chmod", ["755", place.folder]);
    assert.equal(asNobody(), "EACCES");
    place.json("umount", mount);
    place.json("mount", "v", mount, "-o", "allow_other");
    assert.equal(asNobody(), "seen");
    spawnSync("chmod", ["000", mount]);
    assert.equal(asNobody(), "EACCES", "rights are checked by the kernel at once");
    spawnSync("chmod", ["755", mount]);
  });
});

describe("a full disk under one drive", { skip: withoutRoot }, () => {
  const place = new Place();
  const disk = join(place.folder, "disk");
  after(async () => {
    await place.stop("SIGTERM");
    spawnSync("umount", [disk]);
    await place.remove();
  });

  it("costs that drive's room only, and no write; all full is ENOSPC, and deleting helps", async () => {
    const [d1 = "", d2 = "", mount = ""] = place.folders("d1", "d2", "mnt");
    mkdirSync(disk);
    run("mount", ["-t", "tmpfs", "-o", "size=160m", "none", disk]);
    const d3 = join(disk, "d3");
    mkdirSync(d3);
    await place.start();
    const drives = [d1, d2, d3].flatMap((drive) => ["--drive", drive]);
    place.json("pool", "create", "p", "--size", "128MiB", ...drives);
    place.json("volume", "create", "v", "--pool", "p", "--rf", "2");
    place.json("mount", "v", mount);
    // Somebody else takes what the drive was promised.
    assert.notEqual(
      spawnSync("dd", ["if=/dev/zero", `of=${disk}/others`, "bs=1M"]).status,
      0,
      "the disk is full",
    );
    const pieces: string[] = [];
    const write = () => {
      const name = join(mount, `f${pieces.length}`);
      writeFileSync(name, Buffer.alloc(2 ** 20, pieces.length), { flush: true });
      pieces.push(name);
    };
    // More than two copies on three drives could hold if the third one had stopped everything.
    for (let number = 0; number < 48; number += 1) write();
    const state = () => place.status().pools[0]?.status?.drives.map((drive) => drive.state);
    assert.deepEqual(state(), ["active", "active", "active"], "a full disk is no failure");
    assert.throws(
      () => {
        for (let number = 0; number < 200; number += 1) write();
      },
      (error) => (error as NodeJS.ErrnoException).code === "ENOSPC",
    );
    for (const [number, name] of pieces.entries()) {
      assert.ok(readFileSync(name).equals(Buffer.alloc(2 ** 20, number)), name);
    }
    for (const name of pieces.slice(0, 16)) rmSync(name);
    rmSync(join(mount, `f${pieces.length}`), { force: true });
    await until("it is writable again", () => {
      try {
        writeFileSync(join(mount, "again"), Buffer.alloc(2 ** 20, 9), { flush: true });
        return true;
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
        return false;
      }
    });
    assert.deepEqual(state(), ["active", "active", "active"]);
  });
});

describe("a full pool", () => {
  const place = new Place();
  after(() => place.remove());

  it("says ENOSPC before the ack, reads and deletes go on, and after kill -9 it is writable again", async () => {
    const mount = await place.provision({ drives: 2, rf: 2, size: "96MiB" });
    writeFileSync(join(mount, "kept"), "kept", { flush: true });
    const written = fill(mount);
    assert.ok(written > 8, `${written} MiB fit`);
    assert.equal(readFileSync(join(mount, "kept"), "utf8"), "kept");
    await place.stop("SIGKILL");
    await place.start();
    assert.equal(readFileSync(join(mount, "kept"), "utf8"), "kept");
    rmSync(join(mount, "filler"));
    await until("it is writable again", () => canWrite(join(mount, "again")), 15_000).catch(
      (error: unknown) => {
        assert.fail(`${String(error)}\n${place.fate}${place.log}`);
      },
    );
    const [pool] = place.json<PoolAnswer[]>("pool", "list");
    assert.equal(pool?.state, "open");
  });

  /** Writes until nothing fits; the MiB that were acknowledged. */
  function fill(mount: string): number {
    const fd = openSync(join(mount, "filler"), "w");
    const block = Buffer.alloc(2 ** 20, 0xa5);
    let written = 0;
    try {
      for (;;) {
        writeSync(fd, block);
        written += 1;
        assert.ok(written < 4096, "it never fills");
      }
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
    } finally {
      closeSync(fd);
    }
    return written;
  }

  function canWrite(path: string): boolean {
    try {
      writeFileSync(path, Buffer.alloc(2 ** 20), { flush: true });
      return true;
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
      return false;
    }
  }
});
