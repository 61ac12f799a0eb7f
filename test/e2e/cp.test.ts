// holdfast cp: trees copied by reference, with everything that belongs to them, and what was written a moment ago.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, run, without, withoutRoot } from "../daemon-fixture.js";
import { NOBODY, cliAsNobody, giveProgram } from "./ordinary-user.js";

const MIB = 2 ** 20;
/** Rounds of copying what was just written, and files in each. */
const ROUNDS = 12;
const FILES = 24;

interface Copied {
  path?: string;
  path_base64?: string;
  kind: string;
  byReference: boolean;
  plain: string | null;
  warnings: string[];
}

/** Content and places of data and holes of two trees of files; prints what differs. */
const COMPARE = `
import os, sys
def parts(path):
    file, at, found = os.open(path, os.O_RDONLY), 0, []
    end = os.fstat(file).st_size
    while at < end:
        try:
            data = os.lseek(file, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(file, data, os.SEEK_HOLE)
        found.append((data, at))
    os.close(file)
    return found
for name in sorted(os.listdir(sys.argv[1])):
    pair = [os.path.join(folder, name) for folder in sys.argv[1:3]]
    contents = [open(path, "rb").read() for path in pair]
    if contents[0] != contents[1]:
        print(name, "content")
    theirs, ours = parts(pair[0]), parts(pair[1])
    if theirs != ours:
        print(name, "parts", theirs, ours)
`;

function describeTree(root: string, at = ""): string[] {
  return readdirSync(join(root, at)).flatMap((name) => {
    const path = join(at, name);
    const full = join(root, path);
    const stats = lstatSync(full);
    const common = [path, stats.mode.toString(8), stats.uid, stats.gid, stats.mtimeMs].join(" ");
    if (stats.isDirectory()) return [common, ...describeTree(root, path)];
    if (stats.isSymbolicLink()) return [`${common} -> ${readlinkSync(full)}`];
    const hash = createHash("sha256").update(readFileSync(full)).digest("hex");
    const named = spawnSync("getfattr", ["-d", "--absolute-names", "-m", "user", full], { encoding: "utf8" });
    const xattrs = named.stdout.split("\n").slice(1).join(" ");
    return [`${common} ${stats.nlink} ${stats.size} ${stats.blocks} ${hash} ${xattrs}`];
  });
}

describe("holdfast cp", { skip: withoutRoot || without("python3", "setfattr", "getfattr") }, () => {
  const place = new Place();
  let mount = "";
  before(async () => {
    chmodSync(place.folder, 0o755);
    giveProgram(place);
    mount = await place.provision({ drives: 2, rf: 2, size: "384MiB", mountOptions: "allow_other" });
  });
  after(() => place.remove());

  const cp = (from: string, to: string) => place.json<Copied>("cp", from, to);
  const leftovers = () => readdirSync(mount).filter((name) => name.startsWith(".holdfast-restore"));
  const written = () => place.status().pools[0]?.status?.counters.payload_bytes ?? 0;

  it("copies a tree with all that belongs to it, and none of its data", () => {
    const tree = join(mount, "tree");
    mkdirSync(join(tree, "dir/deeper"), { recursive: true });
    writeFileSync(join(tree, "large"), randomBytes(24 * MIB));
    writeFileSync(join(tree, "dir/odd"), randomBytes(12_345));
    writeFileSync(join(tree, "holes"), "begin");
    truncateSync(join(tree, "holes"), 3 * MIB + 77);
    linkSync(join(tree, "dir/odd"), join(tree, "dir/deeper/hard"));
    symlinkSync("../large", join(tree, "dir/soft"));
    symlinkSync("/nowhere", join(tree, "dangling"));
    run("setfattr", ["-n", "user.colour", "-v", "green", join(tree, "dir/odd")]);
    chmodSync(join(tree, "dir/odd"), 0o4750);
    chownSync(join(tree, "dir"), NOBODY, NOBODY);
    for (const name of ["large", "dir/odd", "dir"])
      utimesSync(join(tree, name), 1_000_000_000, 1_234_567_890.5);
    const before = written();
    const done = cp(tree, join(mount, "copy"));
    assert.deepEqual(
      [done.path, done.kind, done.byReference, done.plain],
      [join(mount, "copy"), "directory", true, null],
    );
    assert.deepEqual(describeTree(join(mount, "copy")), describeTree(tree));
    const copied = written() - before;
    assert.ok(copied < MIB, `${copied} bytes were written for ${25 * MIB}`);
    assert.equal(
      lstatSync(join(mount, "copy/dir/odd")).ino,
      lstatSync(join(mount, "copy/dir/deeper/hard")).ino,
    );
    writeFileSync(join(mount, "copy/large"), "changed");
    assert.equal(lstatSync(join(tree, "large")).size, 24 * MIB);
    rmSync(join(mount, "copy"), { recursive: true });
    const into = cp(join(tree, "large"), `${join(tree, "dir")}/`);
    assert.deepEqual([into.path, into.kind], [join(tree, "dir/large"), "file"]);
    unlinkSync(join(tree, "dir/large"));
  });

  it("copies what was written a moment ago, with its holes, again and again", { timeout: 120_000 }, () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const [from, to] = [join(mount, `fresh-${round}`), join(mount, `copy-${round}`)];
      mkdirSync(from);
      for (let at = 0; at < FILES; at += 1) {
        const file = openSync(join(from, `${at}`), "w");
        // Pieces with gaps between them, aligned or not, over a hole or over each other.
        for (let piece = 0; piece <= (at + round) % 5; piece += 1) {
          const offset = piece * (at % 3 === 0 ? 128 * 1024 : 70_001) + (round % 4) * 4096;
          writeSync(
            file,
            randomBytes(1 + ((at * 7919 + piece * 104_729 + round) % 100_000)),
            0,
            undefined,
            offset,
          );
        }
        if (at % 6 === 5) truncateSync(join(from, `${at}`), 400_000 + at);
        closeSync(file);
      }
      assert.equal(cp(from, to).byReference, true);
      const told = spawnSync("python3", ["-c", COMPARE, from, to], { encoding: "utf8" });
      assert.deepEqual([told.status, told.stdout], [0, ""], `round ${round}: ${told.stderr}`);
      rmSync(from, { recursive: true });
      // The source is gone: what the copy shows is its own.
      if (round % 5 === 0) assert.equal(readdirSync(to).length, FILES);
      rmSync(to, { recursive: true });
    }
  });

  it("copies out of the past", () => {
    place.json("snapshot", "create", "v", "then");
    const wanted = describeTree(join(mount, "tree"));
    unlinkSync(join(mount, "tree/large"));
    const done = cp(join(mount, ".holdfast/snapshots/then/tree"), join(mount, "back"));
    assert.deepEqual([done.byReference, describeTree(join(mount, "back"))], [true, wanted]);
    rmSync(join(mount, "tree"), { recursive: true });
    cp(join(mount, "back"), join(mount, "tree"));
    rmSync(join(mount, "back"), { recursive: true });
  });

  it("copies every byte between two volumes, and says so", () => {
    const [dir = ""] = place.folders("other");
    place.json("volume", "create", "w", "--pool", "p");
    place.json("mount", "w", dir);
    const done = cp(join(mount, "tree"), join(dir, "tree"));
    assert.equal(done.byReference, false);
    assert.match(done.plain ?? "", /two mounts/);
    assert.deepEqual(describeTree(join(dir, "tree")), describeTree(join(mount, "tree")));
    const out = join(place.folder, "out");
    assert.match(cp(join(mount, "tree/dir"), out).plain ?? "", /is in no mounted volume/);
    assert.equal(existsSync(join(out, "odd")), true);
    place.json("umount", dir);
    place.json("volume", "destroy", "w", "--yes");
  });

  it("works for an ordinary user, with the rights that they have", () => {
    const home = join(mount, "home");
    mkdirSync(home);
    chownSync(home, NOBODY, NOBODY);
    writeFileSync(join(home, "secret"), "root's", { mode: 0o600 });
    const own = cliAsNobody(place, "cp", join(mount, "tree/holes"), join(home, "holes"));
    assert.equal(own.status, 0, JSON.stringify(own.error));
    assert.equal((JSON.parse(own.stdout) as Copied).byReference, true);
    assert.equal(lstatSync(join(home, "holes")).uid, NOBODY);
    const refused = cliAsNobody(place, "cp", join(home, "secret"), join(home, "mine"));
    assert.deepEqual([refused.status, refused.error?.code], [9, "Denied"]);
    const elsewhere = cliAsNobody(place, "cp", join(home, "holes"), join(mount, "tree/holes2"));
    assert.equal(elsewhere.status, 9);
    assert.deepEqual(readdirSync(home).sort(), ["holes", "secret"]);
  });

  it("refuses what cannot be, and leaves nothing behind", () => {
    const tree = join(mount, "tree");
    assert.match(place.fails(2, "cp", tree, join(tree, "dir/again")).message, /is in .*tree itself/);
    symlinkSync("tree/dir", join(mount, "way"));
    assert.match(place.fails(2, "cp", tree, join(mount, "way/again")).message, /is in .*tree itself/);
    assert.match(place.fails(2, "cp", mount, join(mount, "all")).message, /itself/);
    assert.match(place.fails(5, "cp", tree, join(mount, "home")).message, /home is there/);
    assert.match(place.fails(5, "cp", join(tree, "holes"), tree).hint, /DIRECTORY\//);
    assert.equal(place.fails(4, "cp", join(tree, "none"), join(mount, "x")).code, "NotFound");
    assert.equal(place.fails(4, "cp", tree, join(mount, "no/such/place")).code, "NotFound");
    place.fails(2, "cp", tree);
    place.fails(2, "cp", tree, join(mount, ".holdfast/at/x"));
    // Bytes have to be written there: more than there is room for.
    place.json("volume", "create", "full", "--pool", "p", "--quota", "8MiB");
    const [dir = ""] = place.folders("full");
    place.json("mount", "full", dir);
    const full = place.fails(6, "cp", tree, join(dir, "tree"));
    assert.match(full.message, /quota|No space/);
    assert.deepEqual([readdirSync(dir), leftovers()], [[], []]);
  });
});
