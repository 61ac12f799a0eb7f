// What `npm start` promises: one command, a mounted volume, Ctrl-C ends it cleanly, the next one finds the data again.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Place, ROOT, mountsBelow, until } from "../daemon-fixture.js";

/** Generous: the bar of one or two seconds is a benchmark's; this catches a build or an install that ran again. */
const SECOND_START_MS = 10_000;

describe("npm start", () => {
  const place = new Place();
  const children: ChildProcess[] = [];
  after(async () => {
    for (const child of children) if (child.exitCode === null) child.kill("SIGTERM");
    await place.remove();
  });

  async function start(): Promise<{ child: ChildProcess; output: () => string }> {
    const args = [join(ROOT, "src/cli/bootstrap.mjs"), "start", "--dir", place.folder, "--size", "256MiB"];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    children.push(child);
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
    }
    await until("it says where the volume is", () => {
      assert.equal(child.exitCode, null, text);
      return text.includes(join(place.folder, "mnt")) && text.includes("Ctrl-C");
    });
    return { child, output: () => text };
  }

  async function interrupt(child: ChildProcess): Promise<void> {
    const ended = new Promise((done) => child.once("close", done));
    child.kill("SIGINT");
    assert.equal(await ended, 0);
    assert.deepEqual(mountsBelow(place.folder), []);
  }

  it("mounts, and Ctrl-C unmounts", { timeout: 120_000 }, async () => {
    const { child } = await start();
    assert.deepEqual(mountsBelow(place.folder), [join(place.folder, "mnt")]);
    writeFileSync(join(place.folder, "mnt/hello"), "hello");
    await interrupt(child);
  });

  it("finds the data again, soon", { timeout: 120_000 }, async () => {
    const begin = performance.now();
    const { child, output } = await start();
    const took = performance.now() - begin;
    assert.ok(took < SECOND_START_MS, `${took} ms`);
    assert.ok(!/building|compiling|installing/.test(output()), output());
    assert.equal(readFileSync(join(place.folder, "mnt/hello"), "utf8"), "hello");
    await interrupt(child);
  });

  it("says in one line what is missing", () => {
    const empty = { PATH: "/nonexistent", HOME: place.folder };
    const script = `process.geteuid = () => 1000; process.argv.splice(1, 0, ""); process.argv[2] = "start";
      await import(${JSON.stringify(join(ROOT, "src/cli/bootstrap.mjs"))})`;
    const { stderr, status } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
      env: empty,
      encoding: "utf8",
    });
    assert.equal(status, 1);
    assert.match(stderr, /^holdfast: fusermount3 is missing; install fuse3.*\n$/);
  });
});
