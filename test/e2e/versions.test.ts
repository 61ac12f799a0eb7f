// Versions of a file, restore and undelete, through the command line: as root, as an ordinary user, and against those
// who put links in the way.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { SnapshotAnswer } from "../../src/daemon/protocol.js";
import { MAIN, Place, run, until, without, withoutRoot } from "../daemon-fixture.js";
import { NOBODY, cliAsNobody, giveProgram } from "./ordinary-user.js";

const MIB = 2 ** 20;
const LARGE_MIB = 256;
interface VersionsAnswer {
  path?: string;
  path_base64?: string;
  versions: {
    state: string;
    change: string;
    now: boolean;
    from: string | null;
    to: string | null;
    attributes: { kind: string; size: number; mode: string; uid: number } | null;
  }[];
}

interface GoneAnswer {
  path: string;
  at: string;
  kind: string;
}

describe(
  "versions, restore and undelete",
  { skip: withoutRoot || without("setfacl", "getfattr", "xargs") },
  () => {
    const place = new Place();
    const large = { path: "", hash: "" };
    let mount = "";
    let home = "";
    let snapshots = 0;

    /** A point of now; its name. */
    function keep(): string {
      snapshots += 1;
      const name = `s${snapshots}`;
      place.json<SnapshotAnswer>("snapshot", "create", "v", name);
      return name;
    }
    /** With one change, so that a second that is kept in between shows nothing else. */
    function put(path: string, content: string): void {
      writeFileSync(join(mount, ".draft"), content);
      renameSync(join(mount, ".draft"), path);
    }
    const text = (path: string) => readFileSync(path, "utf8");
    const versions = (path: string, ...more: string[]) =>
      place.json<VersionsAnswer>("versions", path, ...more).versions;
    const restore = (path: string, at: string, ...more: string[]) =>
      place.json("restore", path, "--at", at, ...more);
    const leftovers = (folder: string) =>
      readdirSync(folder).filter((name) => name.startsWith(".holdfast-restore"));

    const asNobody = (...args: string[]) => cliAsNobody(place, ...args);

    before(async () => {
      chmodSync(place.folder, 0o755);
      giveProgram(place);
      mount = await place.provision({ drives: 3, rf: 2, size: "1GiB", mountOptions: "allow_other" });
      home = join(mount, "home");
      mkdirSync(home);
      chownSync(home, NOBODY, NOBODY);
    });
    after(() => place.remove());

    it("shows every version, also of what is gone", () => {
      const file = join(mount, "file");
      put(file, "one\n");
      const first = keep();
      appendFileSync(file, "two\n");
      keep();
      chmodSync(file, 0o600);
      keep();
      assert.equal(versions(file)[0]?.now, true);
      unlinkSync(file);
      keep();
      const found = versions(file);
      assert.deepEqual(
        found.slice(0, 3).map(({ change, state }) => [change, state]),
        [
          ["deleted", "absent"],
          ["attributes", "there"],
          ["content", "there"],
        ],
      );
      assert.deepEqual(
        found.slice(0, 4).map(({ attributes }) => [attributes?.size, attributes?.mode]),
        [
          [undefined, undefined],
          [8, "0600"],
          [8, "0644"],
          [4, "0644"],
        ],
      );
      assert.deepEqual([found[0]?.now, found[1]?.now], [true, false]);
      assert.ok((found[2]?.from ?? "") > (found[3]?.to ?? "?"));
      assert.equal(versions(file, "--limit", "2").length, 2);
      assert.equal(text(join(mount, ".holdfast/at", found[2]?.to ?? "", "file")), "one\ntwo\n");
      restore(file, first);
      assert.equal(text(file), "one\n");
      assert.match(
        place.cli("versions", file).stdout,
        /^FROM +TO +CHANGE +WHAT +SIZE .*\n.* now +created +file +4 B/,
      );
    });

    it("brings back what is gone, and lists it", () => {
      const folder = join(mount, "gone");
      mkdirSync(folder);
      put(join(folder, "a"), "a\n");
      mkdirSync(join(folder, "b"));
      put(join(folder, "b/c"), "c\n");
      keep();
      rmSync(join(folder, "b"), { recursive: true });
      put(join(folder, "d"), "d\n");
      keep();
      rmSync(folder, { recursive: true });
      keep();
      const names = (dir: string) =>
        place.json<GoneAnswer[]>("undelete", "--list", dir).map(({ path, kind }) => `${path} ${kind}`);
      assert.deepEqual(names(folder), ["a file", "d file", "b directory"]);
      assert.ok(names(mount).includes("gone directory"));
      assert.match(place.fails(4, "undelete", join(folder, "a")).hint, /holdfast undelete .*gone/);
      place.json("undelete", folder);
      assert.deepEqual(readdirSync(folder).sort(), ["a", "d"]);
      place.json("undelete", join(folder, "b"));
      assert.equal(text(join(folder, "b/c")), "c\n");
      assert.equal(place.fails(5, "undelete", join(folder, "b")).code, "Conflict");
      assert.match(
        place.fails(4, "undelete", join(mount, "never")).message,
        /in no kept state: kept are states from/,
      );
      assert.match(place.fails(4, "versions", join(mount, "never/was")).message, /was never there/);
      assert.deepEqual(leftovers(mount), []);
    });

    it("takes names that are not UTF-8", () => {
      const name = Buffer.from([0x66, 0xff, 0x22]);
      const path = Buffer.concat([Buffer.from(`${mount}/`), name]);
      writeFileSync(path, "bytes\n");
      const at = keep();
      unlinkSync(path);
      keep();
      const cli = (verb: string, more = "") => {
        const line = `"$0" "$1" ${verb} "$2"/$'f\\xff"' ${more} --json`;
        return run("bash", ["-c", line, process.execPath, MAIN, mount]);
      };
      assert.equal((JSON.parse(cli("versions")) as VersionsAnswer).path_base64, path.toString("base64"));
      cli("restore", `--at ${at}`);
      assert.equal(readFileSync(path, "utf8"), "bytes\n");
      unlinkSync(path);
      cli("undelete");
      assert.equal(readFileSync(path, "utf8"), "bytes\n");
    });

    /** Everything that is to be as it was; links to names outside of the tree are not. */
    function portrait(tree: string): string {
      const format = "%P %y %m %U %G %T@ %l\\n";
      const nodes = run("find", [tree, "-printf", format]).split("\n").sort();
      const files = run("find", [tree, "-type", "f", "-printf", "%P %s %b\\n"]).split("\n").sort();
      const inner = ["-R", "-P", "-h", "-d", "-m", "^user\\.", "."];
      const attributes = run("getfattr", inner, { cwd: tree });
      const lists = run("getfacl", ["-R", "-P", "-n", "."], { cwd: tree });
      return [...nodes, ...files, attributes, lists].join("\n");
    }

    it("restores trees of every kind of node as they were, in place and beside", () => {
      const tree = join(mount, "tree");
      mkdirSync(join(tree, "sub/closed"), { recursive: true });
      writeFileSync(join(tree, "sub/one"), randomBytes(300_001));
      linkSync(join(tree, "sub/one"), join(tree, "two"));
      writeFileSync(join(mount, "outside"), "outside\n");
      linkSync(join(mount, "outside"), join(tree, "inside"));
      for (const [name, to] of [
        ["absolute", "/etc/passwd"],
        ["up", "../../.."],
        ["dangling", "nothing"],
      ] as const)
        symlinkSync(to, join(tree, name));
      run("mkfifo", [join(tree, "fifo")]);
      run("mknod", [join(tree, "device"), "c", "1", "3"]);
      closeSync(openSync(join(tree, "sparse"), "w"));
      truncateSync(join(tree, "sparse"), 64 * MIB);
      appendFileSync(join(tree, "sparse"), randomBytes(5000));
      run("setfattr", ["-n", "user.note", "-v", "kept", join(tree, "two")]);
      run("setfacl", ["-m", `u:${NOBODY}:r`, join(tree, "sub/one")]);
      run("setfacl", ["-d", "-m", `u:${NOBODY}:rx`, join(tree, "sub")]);
      chownSync(join(tree, "two"), 1234, 4321);
      chmodSync(join(tree, "two"), 0o4750);
      chmodSync(join(tree, "sub/closed"), 0o500);
      run("touch", ["-d", "2001-02-03 04:05:06.123456789", join(tree, "sparse"), join(tree, "sub")]);
      run("touch", ["-h", "-d", "2001-02-03 04:05:06.5", join(tree, "up")]);
      const expected = portrait(tree);
      const at = keep();
      assert.equal(portrait(join(mount, ".holdfast/snapshots", at, "tree")), expected);

      writeFileSync(join(tree, "new"), "of now\n");
      unlinkSync(join(tree, "fifo"));
      writeFileSync(join(mount, "outside"), "changed\n");
      const asks = place.fails(10, "restore", tree, "--at", at);
      assert.match(asks.message, /not empty/);
      assert.equal(text(join(tree, "new")), "of now\n");
      restore(tree, at, "--yes");
      assert.equal(portrait(tree), expected);
      restore(tree, at, "--to", join(mount, "beside"));
      assert.equal(portrait(join(mount, "beside")), expected);
      assert.equal(lstatSync(join(tree, "two")).ino, lstatSync(join(tree, "sub/one")).ino);
      assert.ok(lstatSync(join(tree, "sparse")).blocks * 512 < MIB);
      assert.equal(text(join(mount, "outside")), "changed\n");
      assert.equal(text(join(tree, "inside")), "outside\n");
      // Newer points are as they were; so is what was in the tree a moment ago.
      const kept = keep();
      restore(join(mount, "file"), at);
      assert.equal(portrait(join(mount, ".holdfast/snapshots", kept, "tree")), expected);

      const [elsewhere = ""] = place.folders("elsewhere");
      restore(tree, at, "--to", `${elsewhere}/`);
      assert.deepEqual(readdirSync(elsewhere), ["tree"]);
      assert.equal(readlinkSync(join(elsewhere, "tree/up")), "../../..");
      assert.equal(statSync(join(elsewhere, "tree/two")).uid, 1234);
      assert.deepEqual([leftovers(mount), leftovers(elsewhere)], [[], []]);
    });

    it("writes nowhere but at the target, whatever links are in the way", () => {
      const [canary = ""] = place.folders("canary");
      writeFileSync(join(canary, "f"), "sings\n");
      const alive = () => {
        assert.deepEqual(readdirSync(canary), ["f"]);
        assert.equal(text(join(canary, "f")), "sings\n");
      };
      mkdirSync(join(mount, "now-link"));
      put(join(mount, "now-link/f"), "then\n");
      symlinkSync(canary, join(mount, "was-link"));
      symlinkSync("was-link", join(mount, "was-chain"));
      symlinkSync(canary, join(mount, "link"));
      put(join(mount, "plain"), "then\n");
      const at = keep();
      rmSync(join(mount, "now-link"), { recursive: true });
      symlinkSync(canary, join(mount, "now-link"));
      for (const name of ["was-link", "was-chain"]) {
        unlinkSync(join(mount, name));
        mkdirSync(join(mount, name));
      }
      // What leads out now is outside; what led out then leads nowhere.
      assert.match(
        place.fails(2, "restore", join(mount, "now-link/f"), "--at", at).message,
        /not in a Holdfast mount/,
      );
      assert.match(
        place.fails(2, "restore", `${mount}/../../etc/f`, "--at", at).message,
        /not in a Holdfast mount/,
      );
      for (const name of ["was-link", "was-chain"])
        assert.match(
          place.fails(2, "restore", join(mount, name, "f"), "--at", at).message,
          /not a directory/,
        );
      assert.equal(versions(join(mount, "now-link"))[0]?.attributes?.kind, "symlink");
      for (const words of ["../..", "..", ".", "/", "x/../../..", ""])
        assert.equal(place.fails(4, "restore", join(mount, "plain"), "--at", words).code, "NotFound");
      alive();
      // A link that stands at the target is replaced, not followed; one of then is one again.
      unlinkSync(join(mount, "plain"));
      symlinkSync(join(canary, "f"), join(mount, "plain"));
      restore(join(mount, "plain"), at);
      assert.equal(lstatSync(join(mount, "plain")).isFile(), true);
      restore(join(mount, "link"), at, "--to", join(mount, "copied"));
      assert.equal(readlinkSync(join(mount, "copied")), canary);
      restore(join(mount, "now-link"), at);
      assert.equal(text(join(mount, "now-link/f")), "then\n");
      // Another name of the file that is replaced keeps what it has.
      linkSync(join(mount, "plain"), join(mount, "other-name"));
      appendFileSync(join(mount, "plain"), "now\n");
      restore(join(mount, "plain"), at);
      assert.deepEqual(
        [text(join(mount, "plain")), text(join(mount, "other-name"))],
        ["then\n", "then\nnow\n"],
      );
      alive();
      assert.deepEqual(leftovers(mount), []);
    });

    it("is every user's, with the rights of then and of now", () => {
      const own = join(home, "own");
      const write = (path: string, content: string, mode: number, uid: number) => {
        put(path, content);
        chmodSync(path, mode);
        chownSync(path, uid, uid);
      };
      mkdirSync(join(home, "read-only"));
      put(join(home, "read-only/f"), "f\n");
      chownSync(join(home, "read-only"), NOBODY, NOBODY);
      chmodSync(join(home, "read-only"), 0o555);
      write(own, "mine\n", 0o640, NOBODY);
      write(join(home, "was-secret"), "then\n", 0o600, 0);
      mkdirSync(join(mount, "theirs"));
      write(join(mount, "theirs/open"), "then\n", 0o644, 0);
      const at = keep();
      write(own, "now\n", 0o640, NOBODY);
      write(join(home, "was-secret"), "now\n", 0o644, 0);
      write(join(mount, "theirs/open"), "now\n", 0o600, 0);

      assert.equal(asNobody("restore", own, "--at", at).status, 0);
      assert.equal(text(own), "mine\n");
      const { uid, gid, mode } = statSync(own);
      assert.deepEqual([uid, gid, mode & 0o7777], [NOBODY, NOBODY, 0o640]);
      // Readable now, but not then; readable then, but its directory is not theirs to write in now.
      for (const [path, now] of [
        [join(home, "was-secret"), "now\n"],
        [join(mount, "theirs/open"), "now\n"],
      ] as const) {
        const refused = asNobody("restore", path, "--at", at);
        assert.deepEqual([refused.status, refused.error?.code], [9, "Denied"], refused.error?.message);
        assert.equal(text(path), now);
      }
      assert.equal(asNobody("restore", join(mount, "theirs/open"), "--at", at, "--to", `${home}/`).status, 0);
      assert.equal(statSync(join(home, "open")).uid, NOBODY);
      // A directory that its owner may not write in goes and comes, too.
      assert.equal(asNobody("restore", join(home, "read-only"), "--at", at, "--yes").status, 0);
      assert.equal(statSync(join(home, "read-only")).mode & 0o7777, 0o555);
      unlinkSync(own);
      // Without a point in between nobody would know that it was gone.
      keep();
      assert.equal(asNobody("undelete", own).status, 0);
      const seen = JSON.parse(asNobody("versions", own).stdout) as VersionsAnswer;
      assert.deepEqual([seen.versions[0]?.change, seen.versions[1]?.change], ["created", "deleted"]);
      assert.deepEqual(leftovers(home), []);

      mkdirSync(join(mount, "closed"), { mode: 0o700 });
      put(join(mount, "closed/f"), "f\n");
      keep();
      chmodSync(join(mount, "closed"), 0o755);
      const closed = JSON.parse(asNobody("versions", join(mount, "closed/f")).stdout) as VersionsAnswer;
      assert.deepEqual([closed.versions[0]?.state, closed.versions[1]?.state], ["there", "denied"]);
    });

    it("brings a large file back by reference", () => {
      large.path = join(mount, "large");
      const piece = randomBytes(MIB);
      const hash = createHash("sha256");
      const file = openSync(large.path, "w");
      for (let at = 0; at < LARGE_MIB; at += 1) {
        piece.writeUInt32LE(at);
        writeSync(file, piece);
        hash.update(piece);
      }
      fsyncSync(file);
      closeSync(file);
      large.hash = hash.digest("hex");
      const at = keep();
      unlinkSync(large.path);
      const dataBytes = () => place.status().pools[0]?.status?.dataBytes ?? Number.NaN;
      const earlier = dataBytes();
      restore(large.path, at);
      const later = dataBytes();
      assert.ok(later - earlier < 16 * MIB, `${(later - earlier) / MIB} MiB more`);
      const read = createHash("sha256").update(readFileSync(large.path)).digest("hex");
      assert.equal(read, large.hash);
    });

    it("leaves the target as it is when there is no room", () => {
      const at = keep();
      const copy = join(mount, "copy");
      put(copy, "small\n");
      place.json("volume", "set", "v", "--quota", `${(LARGE_MIB + 100) * MIB}`);
      const full = place.fails(6, "restore", large.path, "--at", at, "--to", copy);
      assert.equal(full.code, "NoSpace");
      assert.equal(text(copy), "small\n");
      assert.deepEqual(leftovers(mount), []);
      place.json("volume", "set", "v", "--quota", "0");
    });

    it("leaves the target as it is when it is killed; the next one cleans up", async () => {
      const target = join(mount, "killed");
      mkdirSync(target);
      put(join(target, "f"), "then\n");
      const at = keep();
      put(join(target, "f"), "now\n");
      // A cp that copies, says so, and does not end.
      const [bin = ""] = place.folders("slow");
      const real = run("which", ["cp"]).trim();
      const done = join(place.folder, "done");
      const lines = [
        `[ "$1" = --version ] && exec ${real} --version`,
        `${real} "$@" && touch ${done} && exec tail -f /dev/null`,
      ];
      writeFileSync(join(bin, "cp"), `#!/bin/sh\n${lines.join("\n")}\n`, { mode: 0o755 });
      const args = [MAIN, "restore", target, "--at", at, "--yes"];
      const start = () =>
        spawn(process.execPath, args, { env: { ...process.env, PATH: `${bin}:${process.env.PATH}` } });
      const child = start();
      await until("the copy is made", () => existsSync(done));
      assert.match(
        place.fails(5, "restore", target, "--at", at, "--yes").message,
        /process \d+ restores the same name/,
      );
      const ended = new Promise((resolve) => child.once("close", resolve));
      child.kill("SIGKILL");
      await ended;
      assert.equal(text(join(target, "f")), "now\n");
      const [left = ""] = leftovers(mount);
      assert.equal(statSync(join(mount, left)).mode & 0o7777, 0o700);

      // As if it had been killed between the two renames of a directory.
      renameSync(target, join(mount, left, "old"));
      const asks = place.fails(10, "restore", target, "--at", at);
      assert.equal(asks.code, "NeedsYes");
      assert.equal(text(join(target, "f")), "now\n");
      assert.deepEqual(leftovers(mount), []);
      restore(target, at, "--yes");
      assert.equal(text(join(target, "f")), "then\n");

      // Ctrl-C cleans up by itself.
      rmSync(done);
      const polite = start();
      await until("the copy is made", () => existsSync(done));
      const status = new Promise<number | null>((resolve) => polite.once("close", resolve));
      polite.kill("SIGINT");
      assert.equal(await status, 3);
      assert.deepEqual(leftovers(mount), []);
      assert.equal(text(join(target, "f")), "then\n");
    });

    it("says what there is when it cannot", () => {
      const file = join(mount, "file");
      assert.match(
        place.fails(4, "restore", file, "--at", "2001-01-01").message,
        /kept are states from 20.* to 20/,
      );
      assert.match(place.fails(2, "versions", place.folder).message, /is not in a Holdfast mount/);
      assert.match(place.fails(2, "restore", mount, "--at", "s1").hint, /--to/);
      assert.match(
        place.fails(2, "versions", join(mount, ".holdfast/at")).message,
        /an earlier state itself/,
      );
      assert.match(place.fails(4, "restore", join(mount, "large"), "--at", "s1").hint, /holdfast versions/);
      place.json("volume", "set", "v", "--past", "owner");
      assert.match(asNobody("versions", file).error?.message ?? "", /only the owner/);
      place.json("volume", "set", "v", "--past", "off");
      const off = place.fails(9, "versions", file);
      assert.match(off.message, /is off/);
      assert.match(off.hint, /--past/);
    });
  },
);
