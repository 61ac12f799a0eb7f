// Snapshots, earlier seconds, clones and mounts of the past, through the command line and the kernel.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type {
  DifferenceAnswer,
  MountResult,
  SnapshotAnswer,
  VolumeAnswer,
} from "../../src/daemon/protocol.js";
import { Place, run, until } from "../daemon-fixture.js";

const NOBODY = 65534;

function sha(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** What an ordinary user gets: the program's status and output. */
function asNobody(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  const [program = "", ...args] = argv;
  return spawnSync(program, args, { uid: NOBODY, gid: NOBODY, encoding: "utf8", cwd: "/" });
}

function errno(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "";
  }
  return "";
}

describe("the past of a volume", () => {
  const place = new Place();
  const data = randomBytes(700_001);
  const hash = createHash("sha256").update(data).digest("hex");
  let mount = "";

  before(async () => {
    chmodSync(place.folder, 0o755);
    mount = await place.provision({ drives: 3, rf: 2, mountOptions: "allow_other" });
    mkdirSync(join(mount, "dir"));
    writeFileSync(join(mount, "dir/data"), data);
    writeFileSync(join(mount, "secret"), "mine\n", { mode: 0o600 });
    writeFileSync(join(mount, "text"), "one\n");
  });
  after(() => place.remove());

  const snapshots = (...more: string[]) => place.json<SnapshotAnswer[]>("snapshot", "list", "v", ...more);

  it("is in the mount, for reading only, and hidden from a listing of the root", () => {
    const made = place.json<SnapshotAnswer>("snapshot", "create", "v", "before");
    assert.match(made.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/);
    assert.deepEqual([made.group, made.name, made.held], ["v", "before", false]);
    writeFileSync(join(mount, "text"), "two\n");
    renameSync(join(mount, "dir"), join(mount, "moved"));
    unlinkSync(join(mount, "secret"));

    assert.deepEqual(readdirSync(mount).sort(), ["moved", "text"]);
    assert.deepEqual(readdirSync(join(mount, ".holdfast")).sort(), ["at", "snapshots"]);
    assert.deepEqual(readdirSync(join(mount, ".holdfast/snapshots")), ["before"]);
    const then = join(mount, ".holdfast/snapshots/before");
    assert.deepEqual(readdirSync(then).sort(), ["dir", "secret", "text"]);
    assert.equal(readFileSync(join(then, "text"), "utf8"), "one\n");
    assert.equal(sha(join(then, "dir/data")), hash);
    assert.equal(sha(join(mount, "moved/data")), hash);
    // Another number than the file of now: cp would say that they are the same.
    assert.notEqual(statSync(join(then, "text")).ino, statSync(join(mount, "text")).ino);

    assert.equal(
      errno(() => writeFileSync(join(then, "text"), "three\n")),
      "EROFS",
    );
    assert.equal(
      errno(() => mkdirSync(join(mount, ".holdfast/at/new"))),
      "EROFS",
    );
    assert.equal(
      errno(() => rmSync(join(then, "text"))),
      "EROFS",
    );
    assert.equal(
      errno(() => renameSync(join(mount, "moved"), join(mount, ".holdfast"))),
      "EPERM",
    );
    assert.equal(
      errno(() => readFileSync(join(mount, ".holdfast/at/next year"))),
      "ENOENT",
    );
    assert.equal(
      errno(() => readFileSync(join(mount, ".holdfast/snapshots/other"))),
      "ENOENT",
    );
  });

  it("is everybody's with the rights of then, as the volume says", () => {
    const then = join(mount, ".holdfast/snapshots/before");
    assert.equal(asNobody("cat", join(then, "text")).stdout, "one\n");
    const refused = asNobody("cat", join(then, "secret"));
    assert.match(refused.stderr, /Permission denied/);
    place.json("volume", "set", "v", "--past", "owner");
    assert.match(asNobody("ls", join(mount, ".holdfast/snapshots")).stderr, /Permission denied/);
    assert.equal(readFileSync(join(then, "text"), "utf8"), "one\n");
    place.json("volume", "set", "v", "--past", "off");
    assert.equal(existsSync(join(mount, ".holdfast")), false);
    assert.equal(
      errno(() => mkdirSync(join(mount, ".holdfast"))),
      "EPERM",
    );
    assert.equal(place.json<VolumeAnswer>("volume", "set", "v", "--past", "all").past, "all");
    assert.equal(asNobody("cat", join(then, "text")).stdout, "one\n");
  });

  it("is copied back by reference", () => {
    run("cp", ["-a", "--reflink=auto", join(mount, ".holdfast/snapshots/before/dir"), join(mount, "back")]);
    assert.equal(sha(join(mount, "back/data")), hash);
  });

  it("is compared with now, by file and by byte", () => {
    writeFileSync(join(mount, "grown"), Buffer.alloc(100_000, 1));
    place.json("snapshot", "create", "v", "middle");
    const file = openSync(join(mount, "grown"), "r+");
    writeSync(file, Buffer.alloc(4096, 2), 0, 4096, 40_960);
    closeSync(file);
    renameSync(join(mount, "back"), join(mount, "forth"));
    unlinkSync(join(mount, "text"));
    writeFileSync(join(mount, "new"), "new\n");
    const { changes } = place.json<DifferenceAnswer>("diff", "v", "middle");
    assert.deepEqual(
      changes.map(({ kind, path, old }) => [kind, path, old?.path ?? ""]),
      [
        ["renamed", "forth", "back"],
        ["changed", "grown", ""],
        ["added", "new", ""],
        ["removed", "text", ""],
      ],
    );
    assert.deepEqual(changes[1]?.ranges, [{ offset: 40_960, length: 4096 }]);
    assert.deepEqual(place.json<DifferenceAnswer>("diff", "v", "middle", "middle").changes, []);
    // Names go through the API as they are, and to a terminal without what would command it.
    writeFileSync(Buffer.from(`${mount}/bell\x07\n\x9b2J`, "latin1"), "");
    const named = place.json<DifferenceAnswer>("diff", "v", "middle").changes;
    const bytes = Buffer.from("bell\x07\n\x9b2J", "latin1").toString("base64");
    assert.ok(named.some(({ path_base64 }) => path_base64 === bytes));
    assert.match(place.cli("diff", "v", "middle").stdout, /^\+ bell\\x07\\x0a\\x9b2J$/m);
    assert.match(place.fails(2, "diff", "v", "now", "middle").message, /is not before/);
    writeFileSync(join(mount, "text"), "two\n");
    renameSync(join(mount, "forth"), join(mount, "back"));
    place.json("snapshot", "delete", "v", "middle", "--yes");
  });

  it("has every second, by its time", async () => {
    const target = join(mount, "clock");
    writeFileSync(target, "first\n");
    const newest = () => snapshots("--seconds").at(-1)?.lsn ?? 0;
    await until("the second is kept", () => existsSync(join(mount, `.holdfast/at/lsn:${newest()}/clock`)));
    const lsn = newest();
    const listed = readdirSync(join(mount, ".holdfast/at"));
    const named = listed.filter((name) => existsSync(join(mount, ".holdfast/at", name, "clock")));
    assert.ok(named.length > 0, listed.join(" "));
    writeFileSync(target, "second\n");
    await until("the next second is kept", () => newest() > lsn);
    assert.equal(readFileSync(join(mount, ".holdfast/at", `lsn:${lsn}`, "clock"), "utf8"), "first\n");
    assert.equal(readFileSync(join(mount, ".holdfast/at", named.at(-1) ?? "", "clock"), "utf8"), "first\n");
    const kept = place.json<SnapshotAnswer>("snapshot", "create", "v", "kept", "--at", `lsn:${lsn}`);
    assert.equal(kept.lsn, lsn);
    assert.equal(readFileSync(join(mount, ".holdfast/snapshots/kept/clock"), "utf8"), "first\n");
  });

  it("can be held, renamed and deleted", () => {
    place.json("snapshot", "hold", "v", "kept");
    assert.equal(place.fails(10, "snapshot", "delete", "v", "kept").code, "NeedsYes");
    const held = place.fails(5, "snapshot", "delete", "v", "kept", "--yes");
    assert.match(held.message, /held: release it first/);
    place.json("snapshot", "release", "v", "kept");
    place.json("snapshot", "rename", "v", "kept", "other");
    assert.equal(place.fails(5, "snapshot", "rename", "v", "other", "before").code, "Conflict");
    place.json("snapshot", "delete", "v", "other", "--yes");
    assert.deepEqual(
      snapshots().map(({ name }) => name),
      ["before"],
    );
    assert.equal(place.fails(4, "snapshot", "delete", "v", "other", "--yes").code, "NotFound");
  });

  it("refuses moments that it cannot give, and says what there is", () => {
    for (const [code, words, message] of [
      [4, "2001-01-01", /nothing is kept of 2001-01-01 in group v: kept are states from 20/],
      [2, "2999-01-01", /is in the future/],
      [2, "soon", /is no time: use .*or the name of a snapshot/],
      [2, "lsn:999999999", /the newest operation is/],
    ] as const) {
      assert.match(place.fails(code, "clone", "v", "x", "--at", words).message, message);
      assert.match(place.fails(code, "mount", "v", place.folder, "--at", words).message, message);
    }
    assert.equal(place.fails(5, "snapshot", "create", "v", "before").code, "Conflict");
    assert.match(place.fails(2, "snapshot", "create", "v", "a/b").message, /snapshot name/);
    assert.equal(place.fails(4, "snapshot", "create", "nothing", "x").code, "NotFound");
  });

  it("is mounted for reading, and stays so over a crash", async () => {
    const [dir = ""] = place.folders("then");
    const { mount: answer } = place.json<MountResult>("mount", "v", dir, "--at", "before");
    assert.match(answer.at ?? "", /^lsn:\d+$/);
    assert.equal(place.json<MountResult>("mount", "v", dir, "--at", "before").already, true);
    assert.equal(readFileSync(join(dir, "text"), "utf8"), "one\n");
    assert.equal(
      errno(() => writeFileSync(join(dir, "text"), "x")),
      "EROFS",
    );
    writeFileSync(join(mount, "last"), "acknowledged\n");
    await place.stop("SIGKILL");
    await place.start();
    assert.equal(readFileSync(join(dir, "text"), "utf8"), "one\n");
    assert.equal(readFileSync(join(mount, "last"), "utf8"), "acknowledged\n");
    assert.equal(readFileSync(join(mount, ".holdfast/snapshots/before/text"), "utf8"), "one\n");
    place.json("umount", dir);
  });

  it("is cloned; parent and clones go in any order", async () => {
    const [first = "", second = ""] = place.folders("first", "second");
    const [clone] = place.json<VolumeAnswer[]>("clone", "v", "copy", "--at", "before");
    assert.deepEqual([clone?.name, clone?.base?.group, clone?.rf], ["copy", "v", 2]);
    place.json("mount", "copy", first);
    assert.equal(sha(join(first, "dir/data")), hash);
    const file = openSync(join(first, "dir/data"), "r+");
    writeFileSync(file, "HEAD");
    fsyncSync(file);
    closeSync(file);
    unlinkSync(join(first, "secret"));
    assert.equal(readFileSync(join(mount, ".holdfast/snapshots/before/secret"), "utf8"), "mine\n");
    place.json("clone", "copy", "again");
    place.json("mount", "again", second);
    place.json("umount", first);
    place.json("volume", "destroy", "copy", "--yes");
    place.json("umount", mount);
    place.json("volume", "destroy", "v", "--yes");

    await place.stop("SIGKILL");
    await place.start();
    assert.deepEqual(
      place.json<VolumeAnswer[]>("volume", "list").map(({ name }) => name),
      ["again"],
    );
    const expected = Buffer.concat([Buffer.from("HEAD"), data.subarray(4)]);
    assert.equal(sha(join(second, "dir/data")), createHash("sha256").update(expected).digest("hex"));
    assert.deepEqual(readdirSync(second).sort(), ["dir", "text"]);
    place.json("umount", second);
    place.json("volume", "destroy", "again", "--yes");
    assert.deepEqual(place.json<VolumeAnswer[]>("volume", "list"), []);
  });
});
