// What must not be done to drives is refused, with what would make it possible; `doctor` names the next command.

import assert from "node:assert/strict";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { PoolAnswer } from "../../src/daemon/protocol.js";
import type { Finding } from "../../src/cli/verbs/pool-health.js";
import { Place, until, withoutRoot } from "../daemon-fixture.js";

const SIZE = ["--size", "128MiB"];

describe("drives: what is refused", { skip: withoutRoot }, () => {
  const place = new Place();
  let mount = "";
  let paths: string[] = [];

  before(async () => {
    paths = place.folders("d1", "d2", "d3", "d4", "d5");
    [mount = ""] = place.folders("mnt");
    await place.start();
    // Two racks.
    const labels = ["a/1/1/1", "a/1/2/2", "b/1/3/3"];
    const drives = labels.flatMap((label, at) => ["--drive", paths[at] ?? "", "--domain", label]);
    place.json("pool", "create", "p", ...SIZE, ...drives);
    place.json("volume", "create", "v", "--pool", "p", "--rf", "2", "--domain", "rack");
    place.json("mount", "v", mount);
    writeFileSync(join(mount, "canary"), Buffer.alloc(3_000_000, 7), { flush: true });
  });
  after(() => place.remove());

  function refused(code: number, says: RegExp, ...args: string[]): void {
    const { message, hint } = place.fails(code, ...args);
    assert.match(`${message} ${hint}`, says);
    assert.ok(readFileSync(join(mount, "canary")).equals(Buffer.alloc(3_000_000, 7)));
    const { status } = place.json<PoolAnswer>("pool", "show", "p");
    assert.deepEqual(
      status?.drives.map(({ path, state }) => [path, state]),
      paths.slice(0, 3).map((path) => [path, "active"]),
    );
  }

  it("removing a drive without which the copies could not be apart", () => {
    const [, , d3 = ""] = paths;
    refused(
      5,
      /drives in 1 racks, RF 2 needs 2: add a drive in another rack first, or lower/u,
      "pool",
      "remove-drive",
      "p",
      d3,
    );
  });

  it("replacing a drive by a smaller one", () => {
    const [d1 = "", , , d4 = ""] = paths;
    const says =
      /gives 64 MiB, .*d1 has 128 MiB: replace it with one of at least that size, or add it and remove the old one/u;
    refused(2, says, "pool", "replace-drive", "p", d1, "--drive", d4, "--size", "64MiB");
  });

  it("adding a drive twice, by any name", () => {
    const [d1 = ""] = paths;
    for (const name of [d1, `${d1}/../d1/.`])
      refused(5, /d1 is in pool p already/u, "pool", "add-drive", "p", "--drive", name);
  });

  it("a label that would break every placement", () => {
    const [, , d3 = ""] = paths;
    const says =
      /label a\/1\/4\/3 .* has 1 rack domains, RF 2 needs 2: label other drives first, add one in another rack/u;
    refused(5, says, "pool", "label", "p", d3, "a/1/4/3");
    refused(
      2,
      /no label rack\/block\/node\/drive: it has more than four parts/u,
      "pool",
      "label",
      "p",
      d3,
      "a/b/c/d/e",
    );
  });

  it("three copies in two racks", () => {
    const says =
      /RF 3 with copies in different racks needs 3 of them, .* are in 2: label the drives .*, add one in another rack/u;
    refused(2, says, "volume", "create", "w", "--pool", "p", "--rf", "3", "--domain", "rack");
    refused(2, says, "volume", "set", "v", "--rf", "3");
  });

  it("removing a drive whose data has nowhere to go", () => {
    const [d1 = ""] = paths;
    const ballast = join(mount, "ballast");
    for (let at = 0; at < 100; at += 1)
      writeFileSync(`${ballast}-${at}`, Buffer.alloc(1 << 20, at), { flush: at % 20 === 0 });
    const says =
      /holds \d+ MiB, the other drives of pool p have room for \d+ MiB: add a drive, delete something or shorten/u;
    refused(5, says, "pool", "remove-drive", "p", d1);
    for (let at = 0; at < 100; at += 1) rmSync(`${ballast}-${at}`);
  });
});

describe("drives: the last good copy", { skip: withoutRoot }, () => {
  const place = new Place();
  after(() => place.remove());

  it("of something on a drive that is away is not given up; doctor says what to do", async () => {
    const mount = await place.provision({ drives: 2, rf: 1, size: "128MiB" });
    for (let at = 0; at < 8; at += 1)
      writeFileSync(join(mount, `f${at}`), Buffer.alloc(600_000, at), { flush: true });
    const [d2 = ""] = place.folders("d2");
    await place.stop("SIGTERM");
    const kept = readFileSync(join(d2, "superblock"));
    // As a disk that is not mounted: the directory is empty. The pool opens without it.
    renameSync(d2, `${d2}-away`);
    place.folders("d2");
    await place.start({ ready: false });
    const away = await until("the pool is open", () => {
      const { status } = place.json<PoolAnswer>("pool", "show", "p");
      return status?.drives.find(({ state }) => state === "missing");
    });
    const refused = place.fails(5, "pool", "remove-drive", "p", away.uuid);
    assert.match(refused.message, /may hold the last copies of \d+ tables and egroups: attach it/u);
    const doctor = place.cli("doctor", "--json");
    assert.equal(doctor.code, 11);
    const findings = JSON.parse(doctor.stdout) as Finding[];
    const drive = findings.find(({ check }) => check === `drive ${away.uuid}`);
    assert.match(drive?.detail ?? "", /is not there/u);
    assert.match(
      drive?.hint ?? "",
      /attach it and restart the daemon, or give it up: holdfast pool remove-drive p/u,
    );
    await place.stop("SIGTERM");
    rmSync(d2, { recursive: true });
    renameSync(`${d2}-away`, d2);
    assert.ok(readFileSync(join(d2, "superblock")).equals(kept), "nothing was done to it");
    await place.start();
    for (let at = 0; at < 8; at += 1)
      assert.ok(readFileSync(join(mount, `f${at}`)).equals(Buffer.alloc(600_000, at)));
    assert.equal(place.json<PoolAnswer>("pool", "show", "p").status?.drives.length, 2);
  });
});
