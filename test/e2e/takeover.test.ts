// Two daemons on one pool where no lock keeps them apart: somebody removed the lock files. The heartbeat on the drives
// does; and who was stopped so long that another one took over writes nothing more.

import assert from "node:assert/strict";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, until } from "../daemon-fixture.js";

describe("a second daemon past the locks", () => {
  const first = new Place();
  const second = new Place();
  let mount = "";

  before(async () => {
    mount = await first.provision({ drives: 2, rf: 2, size: "96MiB" });
    writeFileSync(join(mount, "canary"), "alive", { flush: true });
    await second.start();
  });
  after(async () => {
    await second.remove();
    await first.remove();
  });

  const drives = ["d1", "d2"].map((name) => join(first.folder, name));
  const named = drives.flatMap((drive) => ["--drive", drive]);
  const removeLocks = () => drives.forEach((drive) => rmSync(join(drive, "lock")));

  it("is refused while the first one lives, which loses nothing", { timeout: 120_000 }, () => {
    removeLocks();
    const refused = second.fails(5, "pool", "import", ...named);
    assert.equal(refused.code, "Conflict");
    assert.match(refused.message, /d1 is in use by another program.*its heartbeat goes on/);
    assert.equal(readFileSync(join(mount, "canary"), "utf8"), "alive");
    writeFileSync(join(mount, "canary"), "alive still", { flush: true });
    assert.equal(first.cli("status").code, 0);
  });

  it("takes over from a stopped one, which writes nothing more", { timeout: 180_000 }, async () => {
    process.kill(first.pid, "SIGSTOP");
    removeLocks();
    second.json("pool", "import", ...named);
    const [elsewhere = ""] = second.folders("elsewhere");
    second.json("mount", "v", elsewhere);
    assert.equal(readFileSync(join(elsewhere, "canary"), "utf8"), "alive still");
    writeFileSync(join(elsewhere, "canary"), "second", { flush: true });
    process.kill(first.pid, "SIGCONT");
    assert.throws(
      () => writeFileSync(join(mount, "canary"), "first", { flush: true }),
      (error) => ["EIO", "EROFS", "ENOTCONN"].includes((error as NodeJS.ErrnoException).code ?? ""),
    );
    await until("the first one says so", () =>
      first.status().warnings.some((warning) => warning.includes("another program has taken")),
    );
    assert.equal(second.cli("status").code, 0);
    await first.stop("SIGKILL");
    await second.stop("SIGKILL");
    await second.start();
    assert.equal(readFileSync(join(elsewhere, "canary"), "utf8"), "second");
  });
});
