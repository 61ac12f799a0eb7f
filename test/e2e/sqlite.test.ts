// SQLite with a write-ahead log on the mount; kill -9 of the daemon in the middle: every reported commit is there.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Place, run, until, without } from "../daemon-fixture.js";

const CYCLES = 3;
const COMMITS_BEFORE_KILL = 200;

/** Inserts row after row, each a transaction; says which one is committed after COMMIT returned. */
function inserts(from: number): string {
  const rows = Array.from({ length: 100_000 }, (_none, index) => {
    const id = from + index;
    return `BEGIN IMMEDIATE; INSERT INTO t VALUES (${id}, hex(randomblob(200))); COMMIT; SELECT ${id};`;
  });
  return `PRAGMA synchronous=FULL;\n${rows.join("\n")}\n`;
}

describe("SQLite", { skip: without("sqlite3") }, () => {
  const place = new Place();
  after(() => place.remove());

  it("keeps every reported commit over kill -9", { timeout: 600_000 }, async () => {
    const mount = await place.provision({ size: "1GiB" });
    const file = join(mount, "test.db");
    const setup = "PRAGMA journal_mode=WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, data TEXT);";
    assert.match(run("sqlite3", [file, setup]), /wal/);
    let newest = 0;
    for (let cycle = 0; cycle < CYCLES; cycle += 1) {
      const begin = newest;
      const writer = spawn("sqlite3", ["-bail", file], { stdio: ["pipe", "pipe", "ignore"] });
      const ended = new Promise((done) => writer.once("close", done));
      writer.stdin.on("error", () => undefined);
      writer.stdin.end(inserts(newest + 1));
      let rest = "";
      writer.stdout.setEncoding("utf8").on("data", (text: string) => {
        const lines = (rest + text).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) newest = Math.max(newest, Number(line));
      });
      await until("enough is committed", () => newest >= begin + COMMITS_BEFORE_KILL, 120_000);
      assert.equal(writer.exitCode, null, "the writer was still writing");
      await place.stop("SIGKILL");
      writer.kill("SIGKILL");
      await ended;
      await place.start();
      assert.equal(run("sqlite3", [file, "PRAGMA integrity_check"]).trim(), "ok");
      const [count = 0, highest = 0] = run("sqlite3", [file, "SELECT count(*), max(id) FROM t"])
        .trim()
        .split("|")
        .map(Number);
      assert.ok(highest >= newest, `row ${newest} was committed, the newest one there is ${highest}`);
      assert.equal(count, highest, "no row is missing in between");
      newest = highest;
    }
  });
});
