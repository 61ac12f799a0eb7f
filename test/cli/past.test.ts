// What `versions` and `restore` compute before they look at anything.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { changes, firstWhere } from "../../src/cli/past/changes.js";
import { parseMounts } from "../../src/cli/past/spot.js";

describe("halving", () => {
  it("finds every change, newest first, and asks for about changes × log of the points", () => {
    const points = 100_000;
    const at = [7, 8, 40_000, 99_999];
    let asked = new Set<number>();
    const key = (index: number) => {
      asked.add(index);
      return `${at.filter((change) => change <= index).length}`;
    };
    assert.deepEqual([...changes(0, points, key)], [...at].reverse());
    assert.ok(asked.size <= (at.length + 1) * 18, `${asked.size} keys`);
    asked = new Set();
    assert.equal(changes(0, points, key).next().value, 99_999);
    assert.ok(asked.size <= 20, `${asked.size} keys for the newest`);
    assert.deepEqual([...changes(5, 5, key)], []);
  });

  it("finds the first that is", () => {
    for (const first of [0, 1, 6, 9, 10])
      assert.equal(
        firstWhere(0, 9, (index) => index >= first),
        first,
      );
  });

  it("reads mount points with any byte in them", () => {
    const line = "77 26 0:48 / /a\\040b\\134\\377 rw,nosuid shared:3 - fuse.holdfast v rw,user_id=0\n";
    assert.deepEqual(parseMounts(line), [
      { device: "0:48", root: "/", point: "/a b\\\xff", type: "fuse.holdfast" },
    ]);
  });
});
