// Who gets in through a mount: its owner only, unless asked; rights are checked by the kernel, always.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, withoutRoot } from "../daemon-fixture.js";

const NOBODY = 65_534;

/** Runs a line of JavaScript as another user; what it printed, or the code of what it threw. */
function asNobody(line: string): string {
  const script = `process.setgroups([]); process.setgid(${NOBODY}); process.setuid(${NOBODY});
    const fs = require("node:fs");
    try { console.log(${line}) } catch (error) { console.log(error.code) }`;
  return spawnSync(process.execPath, ["-e", script], { encoding: "utf8", cwd: "/" }).stdout.trim();
}

describe("exposure of a mount", { skip: withoutRoot }, () => {
  const place = new Place();
  let mount = "";

  before(async () => {
    mount = await place.provision({ drives: 1, rf: 1, size: "96MiB" });
    chmodSync(place.folder, 0o755);
    chmodSync(mount, 0o755);
    writeFileSync(join(mount, "file"), "content", { mode: 0o644 });
  });
  after(() => place.remove());

  /** Options of the mount and of the superblock, as the kernel shows them. */
  function shown(): string[] {
    const lines = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
    const fields = lines.find((line) => line.split(" ")[4] === mount)?.split(" ") ?? [];
    return [...(fields[5] ?? "").split(","), ...(fields.at(-1) ?? "").split(",")];
  }

  function remount(...options: string[]): void {
    place.json("umount", mount);
    place.json("mount", "v", mount, ...options.flatMap((option) => ["-o", option]));
  }

  const read = (name: string) => asNobody(`fs.readFileSync(${JSON.stringify(join(mount, name))}, "utf8")`);

  it("by default: its owner only, no set-user-id, no devices", () => {
    const options = shown();
    for (const wanted of ["nosuid", "nodev", "default_permissions"])
      assert.ok(options.includes(wanted), wanted);
    assert.ok(!options.includes("allow_other"));
    assert.equal(read("file"), "EACCES");
    assert.equal(asNobody(`fs.statSync(${JSON.stringify(mount)}).mode`), "EACCES");
  });

  it("allow_other never comes without default_permissions, whatever else is asked", () => {
    for (const asked of [["allow_other"], ["allow_other", "suid", "dev"], ["allow_other", "ro"]]) {
      remount(...asked);
      const options = shown();
      assert.ok(
        options.includes("allow_other") && options.includes("default_permissions"),
        options.join(","),
      );
      assert.equal(options.includes("nosuid"), !asked.includes("suid"));
      assert.equal(options.includes("nodev"), !asked.includes("dev"));
    }
    assert.match(place.fails(2, "mount", "v", mount, "-o", "no_default_permissions").message, /not known/);
  });

  it("rights that are taken away count at once, also where attributes were cached", () => {
    remount("allow_other");
    for (let round = 0; round < 6; round += 1) {
      assert.equal(read("file"), "content");
      chmodSync(join(mount, "file"), 0o000);
      assert.equal(read("file"), "EACCES");
      chmodSync(join(mount, "file"), 0o644);
      assert.equal(read("file"), "content");
      chmodSync(mount, 0o000);
      assert.equal(read("file"), "EACCES");
      chmodSync(mount, 0o755);
    }
    assert.equal(asNobody(`fs.writeFileSync(${JSON.stringify(join(mount, "file"))}, "")`), "EACCES");
    assert.equal(readFileSync(join(mount, "file"), "utf8"), "content");
  });
});
