// tar out and in: a tree with links, modes, times, holes and odd names goes onto the mount and comes back equal.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { chmodSync, linkSync, lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { symlinkSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, run, without } from "../daemon-fixture.js";

const FILES = 1_500;

function makeTree(root: string): void {
  mkdirSync(root);
  for (let index = 0; index < FILES; index += 1) {
    const dir = join(root, `d${index % 30}`, `e${index % 7}`);
    mkdirSync(dir, { recursive: true });
    const file = join(dir, `file ${index}`);
    writeFileSync(file, randomBytes((index * 977) % 20_000));
    chmodSync(file, [0o600, 0o644, 0o755, 0o4755][index % 4] ?? 0o600);
    utimesSync(file, 1_000_000_000 + index, 1_500_000_000 + index / 8);
  }
  linkSync(join(root, "d0/e0/file 0"), join(root, "hard"));
  symlinkSync("d0/e0/file 0", join(root, "soft"));
  symlinkSync("/nowhere/at/all", join(root, "dangling"));
  writeFileSync(join(root, "holes"), "begin");
  truncateSync(join(root, "holes"), 50 * 2 ** 20);
  writeFileSync(Buffer.concat([Buffer.from(`${root}/odd`), Buffer.from([0x0a, 0xff, 0xfe])]), "odd");
  mkdirSync(join(root, "empty"));
}

/** One line for everything in a tree: name, type, mode, links, size, time, content. */
function describeTree(root: string, at: Buffer = Buffer.from(root)): string[] {
  const names = readdirSync(at, { encoding: "buffer" }).sort((a, b) => a.compare(b));
  return names.flatMap((name) => {
    const path = Buffer.concat([at, Buffer.from("/"), name]);
    const stats = lstatSync(path);
    const shown = path.subarray(root.length).toString("latin1");
    const common = `${shown} ${stats.mode.toString(8)} ${stats.uid}:${stats.gid}`;
    if (stats.isDirectory()) return [common, ...describeTree(root, path)];
    if (stats.isSymbolicLink()) return [`${common} -> ${readlinkSync(path)}`];
    const hash = createHash("sha256").update(readFileSync(path)).digest("hex");
    return [`${common} ${stats.nlink} ${stats.size} ${stats.mtimeMs} ${hash}`];
  });
}

describe("tar", { skip: without("tar") }, () => {
  const place = new Place();
  let mount = "";
  before(async () => {
    mount = await place.provision({ size: "1GiB" });
  });
  after(() => place.remove());

  it("onto the mount and back: equal trees", { timeout: 300_000 }, () => {
    const source = join(place.folder, "source");
    makeTree(source);
    const wanted = describeTree(source);
    assert.ok(wanted.length > FILES);
    const archive = join(place.folder, "archive.tar");
    run("tar", ["-C", source, "--format=posix", "-S", "-cf", archive, "."]);
    mkdirSync(join(mount, "tree"));
    run("tar", ["-C", join(mount, "tree"), "-xpf", archive]);
    assert.deepEqual(describeTree(join(mount, "tree")), wanted);
    assert.ok(lstatSync(join(mount, "tree/holes")).blocks * 512 < 2 ** 20, "the hole takes no space");

    const back = join(mount, "back.tar");
    run("tar", ["-C", join(mount, "tree"), "--format=posix", "-S", "-cf", back, "."]);
    const [again = ""] = place.folders("again");
    run("tar", ["-C", again, "-xpf", back]);
    assert.deepEqual(describeTree(again), wanted);
  });

  it("the same after umount and mount", { timeout: 120_000 }, () => {
    const wanted = describeTree(join(place.folder, "source"));
    place.json("umount", mount);
    place.json("mount", "v", mount);
    assert.deepEqual(describeTree(join(mount, "tree")), wanted);
  });
});
