// What `df` says of a mount is what can be written there: fresh, and right after half of it was deleted.

import assert from "node:assert/strict";
import { closeSync, openSync, statfsSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Place, until } from "../daemon-fixture.js";

const MIB = 2 ** 20;
const PIECE = Buffer.alloc(256 * 1024, 7);
const FILE_BYTES = MIB;
/** Written, of what was promised: as in native/store/tests/statfs.rs. */
const WRITTEN_LEAST = 0.98;
const WRITTEN_MOST = 1.16;

function promised(mount: string): number {
  const { bavail, bfree, bsize } = statfsSync(mount);
  assert.ok(bavail <= bfree);
  return bavail * bsize;
}

/** Writes files until nothing fits: bytes that were acknowledged, and the files. */
function fill(mount: string, prefix: string): { written: number; files: string[] } {
  let written = 0;
  const files: string[] = [];
  for (;;) {
    const file = join(mount, `${prefix}-${files.length}`);
    try {
      const descriptor = openSync(file, "wx");
      files.push(file);
      try {
        for (let at = 0; at < FILE_BYTES; at += PIECE.length) written += writeSync(descriptor, PIECE);
      } finally {
        closeSync(descriptor);
      }
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
      return { written, files };
    }
  }
}

describe("a mount that is filled", () => {
  const place = new Place();
  after(() => place.remove());

  it("takes what statfs promised, fresh and after half was deleted", { timeout: 240_000 }, async () => {
    const mount = await place.provision({ drives: 3, rf: 2, size: "128MiB" });
    const before = promised(mount);
    const first = fill(mount, "first");
    const part = (written: number, of: number) => {
      const share = written / of;
      assert.ok(
        share >= WRITTEN_LEAST && share <= WRITTEN_MOST,
        `${written} of ${of} bytes: ${share.toFixed(3)}`,
      );
    };
    part(first.written, before);
    const deleted = first.files.filter((_file, index) => index % 2 === 0);
    deleted.forEach((file) => unlinkSync(file));
    // The kernel tells when it has forgotten a file in its own time; until then it may be open somewhere.
    const least = (deleted.length * FILE_BYTES) / WRITTEN_MOST;
    await until("what was deleted is free", () => promised(mount) >= least);
    const again = promised(mount);
    part(fill(mount, "second").written, again);
  });
});
