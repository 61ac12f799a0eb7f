// git on the mount: a repository made here is cloned onto it, checked and worked in.

import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, run, without } from "../daemon-fixture.js";

const FILES = 2_000;
const COMMITS = 300;

const IDENTITY = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "gc.auto=0"];

/** One stream for `git fast-import`: the first commit has every file, each other one changes seven. */
function history(): string {
  const parts: string[] = [];
  for (let commit = 0; commit < COMMITS; commit += 1) {
    const message = `commit ${commit}\n`;
    parts.push(`commit refs/heads/main\ncommitter Test <test@localhost> ${1_700_000_000 + commit} +0000\n`);
    parts.push(`data ${message.length}\n${message}`);
    const changed = commit === 0 ? FILES : 7;
    for (let index = 0; index < changed; index += 1) {
      const file = commit === 0 ? index : (commit * 131 + index * 17) % FILES;
      const content = `file ${file} at commit ${commit}\n`.repeat(1 + (file % 40));
      parts.push(`M 100644 inline dir${file % 50}/file${file}.txt\ndata ${content.length}\n${content}\n`);
    }
  }
  return parts.join("");
}

describe("git", { skip: without("git") }, () => {
  const place = new Place();
  let mount = "";
  let origin = "";

  before(async () => {
    origin = join(place.folder, "origin.git");
    run("git", ["init", "-q", "--bare", "-b", "main", origin]);
    run("git", ["-C", origin, "fast-import", "--quiet"], { input: history() });
    mount = await place.provision({ size: "1GiB" });
  });
  after(() => place.remove());

  it("clones, and the clone is whole and clean", { timeout: 300_000 }, () => {
    const clone = join(mount, "clone");
    run("git", ["clone", "-q", "--no-local", origin, clone]);
    run("git", ["-C", clone, "fsck", "--full", "--strict"]);
    assert.equal(run("git", ["-C", clone, "rev-list", "--count", "HEAD"]).trim(), `${COMMITS}`);
    assert.equal(run("git", ["-C", clone, "ls-files"]).trim().split("\n").length, FILES);
    assert.equal(run("git", ["-C", clone, "status", "--porcelain"]), "");
    const head = (where: string) => run("git", ["-C", where, "rev-parse", "HEAD^{tree}"]);
    assert.equal(head(clone), head(origin));
  });

  it("commits, repacks, and survives kill -9 of the daemon", { timeout: 300_000 }, async () => {
    const clone = join(mount, "clone");
    mkdirSync(join(clone, "new"));
    writeFileSync(join(clone, "new/file"), "new\n");
    run("git", ["-C", clone, ...IDENTITY, "add", "-A"]);
    run("git", ["-C", clone, ...IDENTITY, "commit", "-q", "-m", "on the mount"]);
    run("git", ["-C", clone, "repack", "-q", "-a", "-d"]);
    const head = run("git", ["-C", clone, "rev-parse", "HEAD"]);
    await place.stop("SIGKILL");
    await place.start();
    assert.equal(run("git", ["-C", clone, "rev-parse", "HEAD"]), head);
    run("git", ["-C", clone, "fsck", "--full", "--strict"]);
    assert.equal(run("git", ["-C", clone, "status", "--porcelain"]), "");
  });
});
