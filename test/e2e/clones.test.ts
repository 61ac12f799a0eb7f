// Clones: what they lie on and hold, and how one becomes independent of its origin while both are used.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { CloneAnswer, PromoteAnswer, VolumeAnswer } from "../../src/daemon/protocol.js";
import { Place, until } from "../daemon-fixture.js";

const MIB = 2 ** 20;

/** Every byte depends on where it is. */
function write(path: string, mebibytes: number, seed: number): void {
  const descriptor = openSync(path, "w");
  for (let at = 0; at < mebibytes; at += 1) writeSync(descriptor, Buffer.alloc(MIB, `${seed} ${at};`));
  closeSync(descriptor);
}

function treeOf(folder: string): Record<string, string> {
  const names = readdirSync(folder).sort();
  return Object.fromEntries(
    names.map((name) => [
      name,
      createHash("sha256")
        .update(readFileSync(join(folder, name)))
        .digest("hex"),
    ]),
  );
}

/** Appends so many pieces to a file and overwrites its beginning, as another process. */
async function busy(path: string, pieces: number): Promise<void> {
  const program = `const fs = require("node:fs"); const [path, pieces] = process.argv.slice(1);
    const file = fs.openSync(path, "w");
    for (let at = 0; at < Number(pieces); at += 1) {
      fs.writeSync(file, Buffer.alloc(32768, path + at), 0, 32768, at * 32768);
      fs.writeSync(file, Buffer.from("piece " + at), 0, 7, 0);
      if (at % 10 === 0) fs.fsyncSync(file);
    }`;
  const [code] = (await once(spawn(process.execPath, ["-e", program, path, `${pieces}`]), "close")) as [
    number,
  ];
  assert.equal(code, 0);
}

describe("clones", () => {
  const place = new Place();
  let [mount, dir] = ["", ""];
  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2, size: "384MiB" });
    // What overwrites hide is not to be kept for an hour.
    place.json("volume", "set", "v", "--retention", "0s", "--thin", "none", "--yes");
    write(join(mount, "shared"), 24, 1);
    write(join(mount, "origins"), 40, 2);
    mkdirSync(join(mount, "small"));
    for (let at = 0; at < 500; at += 1) writeFileSync(join(mount, `small/${at}`), `${at}\n`.repeat(at));
    place.json("snapshot", "create", "v", "before");
    unlinkSync(join(mount, "origins"));
    [dir = ""] = place.folders("clone");
    place.json("clone", "v", "trial", "--at", "before");
    place.json("mount", "trial", dir);
    unlinkSync(join(dir, "origins"));
    write(join(dir, "new"), 4, 3);
  });
  after(() => place.remove());

  const clones = (...args: string[]) => place.json<CloneAnswer[]>("clone", "list", ...args);
  const volume = (name: string) => place.json<VolumeAnswer>("volume", "show", name);

  it("are listed with what they lie on, and what they hold", async () => {
    place.json("clone", "trial", "again");
    const [again, trial] = clones()
      .sort((left, right) => left.base.depth - right.base.depth)
      .reverse();
    assert.ok(trial !== undefined && again !== undefined);
    assert.deepEqual(
      [trial.name, trial.base.group, trial.base.name, trial.base.depth],
      ["trial", "v", "before", 1],
    );
    assert.deepEqual(
      [again.name, again.base.group, again.base.name, again.base.depth],
      ["again", "trial", "", 2],
    );
    assert.match(trial.base.time ?? "", /^20\d\d-.*Z$/);
    assert.deepEqual(
      clones("v").map(({ name }) => name),
      ["trial"],
    );
    assert.deepEqual(
      clones("trial").map(({ name }) => name),
      ["again"],
    );
    const { holds } = clones("v", "--space")[0] ?? {};
    assert.ok(holds != null && holds.ownBytes >= 4 * MIB && holds.ownBytes < 6 * MIB, JSON.stringify(holds));
    assert.ok(holds.sharedBytes >= 24 * MIB && holds.sharedBytes < 28 * MIB, JSON.stringify(holds));
    assert.match(
      place.cli("clone", "list").stdout,
      /^CLONE +ORIGIN +POINT +DEPTH +OWN +SHARED +KEPT FOR IT$/m,
    );
    assert.match(place.cli("clone", "list").stdout, /^trial +v +before +1 +4\.\d MiB +2\d\.\d MiB /m);
    assert.match(
      place.cli("volume", "show", "again").stdout,
      /a clone of group trial at LSN \d+, on 2 generations/,
    );
    place.json("volume", "destroy", "again", "--yes");
    await until("only one is left", () => clones().length === 1);
  });

  it("become independent while they and their origins are written", async () => {
    const expected = treeOf(join(dir, "small"));
    const [origin, clone] = [busy(join(mount, "busy"), 200), busy(join(dir, "busy"), 200)];
    const { already, volumes } = place.json<PromoteAnswer>("clone", "promote", "trial");
    assert.deepEqual([already, volumes[0]?.base, volumes[0]?.promotion], [false, null, null]);
    await Promise.all([origin, clone]);
    assert.deepEqual(clones(), []);
    assert.deepEqual(treeOf(join(dir, "small")), expected);
    const again = place.json<PromoteAnswer>("clone", "promote", "trial");
    assert.deepEqual([again.already, again.volumes[0]?.name], [true, "trial"]);
    assert.equal(place.cli("clone", "promote", "trial").stdout, "trial has everything of its own already\n");
  });

  it("read the same when their origin is destroyed, whose space is given back", async () => {
    const free = () => place.status().pools[0]?.status?.freeBytes ?? 0;
    const files = ["shared", "new", "busy"].map((name) => join(dir, name));
    const hashes = () => files.map((path) => createHash("sha256").update(readFileSync(path)).digest("hex"));
    const [expected, small, before] = [hashes(), treeOf(join(dir, "small")), free()];
    place.json("umount", mount);
    place.json("volume", "destroy", "v", "--yes");
    // 40 MiB that only the origin's snapshot had, and what was written to it meanwhile; two copies.
    await until("the origin's space is free", () => free() - before >= 2 * 40 * MIB);
    assert.deepEqual([hashes(), treeOf(join(dir, "small"))], [expected, small]);
    await place.stop("SIGKILL");
    await place.start();
    assert.deepEqual([hashes(), treeOf(join(dir, "small"))], [expected, small]);
    assert.deepEqual(
      place.status().volumes.map(({ name, base }) => [name, base]),
      [["trial", null]],
    );
    const { usage } = place.status().pools[0]?.status ?? {};
    assert.ok(usage !== undefined && usage.cloneBytes === 0);
  });

  it("go on becoming independent after the daemon was killed", async () => {
    const [other = ""] = place.folders("other");
    place.json("clone", "trial", "other");
    place.json("mount", "other", other);
    const expected = treeOf(join(other, "small"));
    const { already } = place.json<PromoteAnswer>("clone", "promote", "other", "--background");
    assert.equal(already, false);
    await place.stop("SIGKILL");
    await place.start();
    await until(
      "it is independent",
      () => volume("other").base === null && volume("other").promotion === null,
    );
    assert.deepEqual(treeOf(join(other, "small")), expected);
  });

  it("refuse what cannot be", () => {
    assert.match(place.fails(4, "clone", "promote", "nobody").message, /no volume nobody/);
    assert.match(place.fails(4, "clone", "list", "nobody").message, /no volume nobody/);
    place.json("volume", "create", "left", "--pool", "p", "--group", "pair");
    place.json("volume", "create", "right", "--pool", "p", "--group", "pair");
    assert.match(place.fails(5, "clone", "promote", "left").message, /shares group pair/);
    assert.match(place.fails(5, "clone", "trial", "left").message, /exists/);
    assert.match(place.fails(2, "clone", "trial", "a/b").message, /a\/b/);
    assert.match(place.fails(2, "clone", "trial", "later", "--at", "2099-01-01T00:00:00Z").message, /future/);
  });
});
