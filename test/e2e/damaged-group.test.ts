// A log that is bad on every drive: its volume does not mount and says why; the pool and the other volumes go on, and
// `status` and `doctor` say what to do.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { VolumeAnswer } from "../../src/daemon/protocol.js";
import { Place } from "../daemon-fixture.js";
import { flipBit, forEachPage } from "./slab-pages.js";
import type { PageAddress } from "./slab-pages.js";

/** FORMAT.md, "frame": magic, number of ops, group, first LSN. */
interface Frame {
  ops: number;
  group: number;
  firstLsn: bigint;
}

function parseFrame(page: Buffer): Frame | undefined {
  if (page.toString("latin1", 0, 4) !== "HFRM") return undefined;
  return { ops: page.readUInt16LE(6), group: page.readUInt32LE(8), firstLsn: page.readBigUInt64LE(32) };
}

describe("a log that is bad on every drive", () => {
  const place = new Place();
  let mount = "";
  let other = "";

  before(async () => {
    mount = await place.provision({ drives: 3, rf: 2, size: "96MiB" });
    [other = ""] = place.folders("other");
    place.json("volume", "create", "w", "--pool", "p", "--rf", "2");
    place.json("mount", "w", other);
    for (let number = 0; number < 3; number += 1) {
      writeFileSync(join(mount, `f${number}`), "lost", { flush: true });
      writeFileSync(join(other, `f${number}`), "kept", { flush: true });
    }
    await place.stop("SIGKILL");
  });
  after(() => place.remove());

  /** Damages the first frame of the first volume's group wherever it lies; the number of copies. */
  function breakFirstFrame(): number {
    const found: { address: PageAddress; frame: Frame }[] = [];
    for (const drive of ["d1", "d2", "d3"]) {
      forEachPage(join(place.folder, drive), (address, page) => {
        const frame = parseFrame(page);
        if (frame !== undefined && frame.ops > 0) found.push({ address, frame });
      });
    }
    const group = Math.min(...found.map(({ frame }) => frame.group));
    const frames = found.filter(({ frame }) => frame.group === group);
    const first = frames.map(({ frame }) => frame.firstLsn).sort((a, b) => Number(a - b))[0];
    const copies = frames.filter(({ frame }) => frame.firstLsn === first);
    for (const { address } of copies) flipBit(address, 200);
    return copies.length;
  }

  it("keeps its volume unmounted, with the reason; the other one works", { timeout: 120_000 }, async () => {
    assert.equal(breakFirstFrame(), 2);
    await place.start({ ready: false });
    const refused = place.fails(7, "mount", "v", mount);
    assert.equal(refused.code, "Corrupt");
    assert.match(refused.message, /group v is damaged.*log of group v: operations 1 to \d+ were durable/);
    assert.equal(readFileSync(join(other, "f2"), "utf8"), "kept");
    writeFileSync(join(other, "more"), "more", { flush: true });
    const volumes = place.json<VolumeAnswer[]>("volume", "list");
    assert.match(volumes.find(({ name }) => name === "v")?.problem ?? "", /damaged/);
    assert.equal(volumes.find(({ name }) => name === "w")?.problem, "");
    assert.match(place.cli("volume", "list").stdout, /\bdamaged\b/);
  });

  it("shows in status and doctor, which say what to do", () => {
    assert.equal(place.cli("status").code, 3, "a wanted mount is missing");
    const told = /group v is damaged, volumes v cannot be used.*attach the missing drives.*volume destroy v/;
    assert.ok(place.status().warnings.some((warning) => told.test(warning)));
    const doctor = place.cli("doctor");
    assert.equal(doctor.code, 11);
    assert.match(doctor.stdout, told);
  });

  it("is given up on request; then everything is well again", async () => {
    place.json("umount", mount);
    place.json("volume", "destroy", "v", "--yes");
    assert.equal(place.cli("status").code, 0);
    assert.deepEqual(
      place.status().warnings.filter((warning) => warning.includes("damaged")),
      [],
    );
    place.json("volume", "create", "v", "--pool", "p");
    place.json("mount", "v", mount);
    writeFileSync(join(mount, "new"), "new", { flush: true });
    await place.stop("SIGKILL");
    await place.start();
    assert.equal(readFileSync(join(mount, "new"), "utf8"), "new");
    assert.equal(readFileSync(join(other, "more"), "utf8"), "more");
  });
});
