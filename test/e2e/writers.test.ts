// Who made each version of a file, through the command line and the kernel.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, until, without, withoutRoot } from "../daemon-fixture.js";
import { NOBODY } from "./ordinary-user.js";

interface VersionsAnswer {
  versions: {
    change: string;
    now: boolean;
    attributes: { size: number } | null;
    writer: { uid: number; user: string | null; pid: number | null; command: string | null } | null;
    held: boolean;
  }[];
}

describe("who made a version", { skip: withoutRoot || without("dd", "python3") }, () => {
  const place = new Place();
  let mount = "";
  let home = "";
  let snapshots = 0;

  function keep(): void {
    snapshots += 1;
    place.json("snapshot", "create", "v", `s${snapshots}`);
  }
  const versions = (path: string) => place.json<VersionsAnswer>("versions", path).versions;
  const asNobody = (program: string, ...args: string[]) =>
    spawnSync(program, args, { uid: NOBODY, gid: NOBODY, encoding: "utf8" });

  before(async () => {
    chmodSync(place.folder, 0o755);
    mount = await place.provision({ drives: 2, rf: 2, mountOptions: "allow_other" });
    home = join(mount, "home");
    mkdirSync(home);
    chownSync(home, NOBODY, NOBODY);
  });
  after(() => place.remove());

  it("is told with its user, process and program", () => {
    const file = join(home, "who");
    // Made by the shell, written by what it becomes: another name, and the same process.
    const made = asNobody("sh", "-c", 'exec cat /etc/hostname > "$0"', file);
    keep();
    const written = spawnSync("dd", ["if=/dev/zero", `of=${file}`, "bs=1", "count=99", "conv=notrunc"]);
    keep();
    asNobody("rm", "-f", file);
    keep();
    const [gone, second, first] = versions(file);
    assert.deepEqual([gone?.change, gone?.writer?.command], ["deleted", "rm"]);
    assert.deepEqual([gone?.writer?.uid, gone?.writer?.user], [NOBODY, "nobody"]);
    assert.equal(second?.change, "content");
    assert.deepEqual(second.writer, { uid: 0, user: "root", pid: written.pid, command: "dd" });
    assert.deepEqual(first?.writer, { uid: NOBODY, user: "nobody", pid: made.pid, command: "cat" });
    assert.match(place.cli("versions", file).stdout, /content +file .* root \(dd, pid \d+\)/);
  });

  it("survives a crash, and is not known of a mapping's pages", async () => {
    const file = join(mount, "mapped");
    writeFileSync(file, "x".repeat(4096));
    await place.stop("SIGKILL");
    await place.start();
    assert.equal(versions(file)[0]?.writer?.pid, process.pid);
    const program = `import mmap, sys
f = open(sys.argv[1], "r+b")
m = mmap.mmap(f.fileno(), 0)
m[0:3] = b"new"
m.flush()`;
    assert.equal(spawnSync("python3", ["-c", program, file]).status, 0);
    assert.equal(readFileSync(file, "utf8").slice(0, 4), "newx");
    assert.deepEqual([versions(file)[0]?.now, versions(file)[0]?.writer], [true, null]);
  });

  it("is asked like owner and times, by whoever may search the directory", () => {
    const closed = join(mount, "closed");
    mkdirSync(closed, { mode: 0o700 });
    writeFileSync(join(closed, "in"), "x");
    const question = join(closed, ".holdfast:who:in");
    assert.match(readlinkSync(question), /^ctime=\d+\.\d{9} uid=0 pid=\d+ command=node$/);
    writeFileSync(join(closed, "in"), "y", { flag: "a" });
    const { ctimeNs } = statSync(join(closed, "in"), { bigint: true });
    assert.ok(
      readlinkSync(question).startsWith(`ctime=${ctimeNs / 1_000_000_000n}.`),
      "nothing old is remembered",
    );
    assert.deepEqual(readdirSync(closed), ["in"]);
    assert.equal(existsSync(join(closed, ".holdfast:who:other")), false);
    assert.match(asNobody("readlink", "-v", question).stderr, /Permission denied/);
    // What somebody made under such a name is theirs.
    writeFileSync(join(closed, ".holdfast:who:absent"), "mine");
    assert.equal(readFileSync(join(closed, ".holdfast:who:absent"), "utf8"), "mine");
  });

  it("is not told of what is not held any more, which is marked", async () => {
    const file = join(mount, "older");
    writeFileSync(file, "one\n");
    const born = statSync(file, { bigint: true }).birthtimeNs;
    await until("a second has passed", () => BigInt(Date.now()) * 1_000_000n > born + 1_100_000_000n);
    appendFileSync(file, "two\n");
    // A clone has no states from before it was made.
    const [dir = ""] = place.folders("younger");
    place.json("clone", "v", "younger");
    place.json("mount", "younger", dir);
    const [now, earlier, ...more] = versions(join(dir, "older"));
    assert.deepEqual([now?.now, now?.held, now?.attributes?.size], [true, true, 8]);
    assert.deepEqual(
      [earlier?.held, earlier?.attributes, earlier?.writer, more.length],
      [false, null, null, 0],
    );
    assert.match(
      place.cli("versions", join(dir, "older")).stdout,
      /\(made 20[^)]+Z\) +created +not held any more/,
    );
  });
});
