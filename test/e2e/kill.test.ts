// kill -9 of the daemon under load, again and again. Two manifests, acknowledged and flushed, are whole afterwards.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Place, until } from "../daemon-fixture.js";

const CYCLES = Number(process.env.HOLDFAST_KILL_CYCLES ?? 20);
const WORKERS = 2;
/** Files of earlier cycles that are kept and checked again; older ones are removed, so that the pool does not fill. */
const FILES_KEPT = 400;
/** How a worker ends when the daemon under it is killed; ECANCELED is io_uring's word for it. */
const CUT_OFF = /^(?:ENOTCONN|ECONNABORTED|ECANCELED|EIO|EINTR)$/;

const LOAD = fileURLToPath(new URL("load.js", import.meta.url));

interface Worker {
  child: ChildProcess;
  acked: Map<string, string>;
  synced: Map<string, string>;
  stop: string | undefined;
}

function startWorker(mount: string, prefix: string, number: number): Worker {
  const child = spawn(process.execPath, [LOAD, mount, prefix, `${number}`], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const worker: Worker = { child, acked: new Map(), synced: new Map(), stop: undefined };
  let rest = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) note(worker, line);
  });
  return worker;
}

function note(worker: Worker, line: string): void {
  const [what, name = "", hash = ""] = line.split(" ");
  if (what === "stop") worker.stop = name;
  else (what === "acked" ? worker.acked : worker.synced).set(name, hash);
}

describe("kill -9 under load", () => {
  const place = new Place();
  after(() => place.remove());

  it(`${CYCLES} times: nothing acknowledged is lost`, { timeout: 20 * 60_000 }, async () => {
    const mount = await place.provision({ drives: 3, rf: 2, size: "1GiB" });
    const acked = new Map<string, string>();
    const synced = new Map<string, string>();
    let cutOff = 0;
    for (let cycle = 0; cycle < CYCLES; cycle += 1) {
      const workers = Array.from({ length: WORKERS }, (_none, number) =>
        startWorker(mount, `c${cycle}`, number),
      );
      const ended = workers.map(({ child }) => new Promise((done) => child.once("close", done)));
      // Another moment each time, never before something was acknowledged and flushed.
      const enough = 5 + ((cycle * 37) % 60);
      await until("every worker wrote", () =>
        workers.every((worker) => worker.acked.size >= enough && worker.synced.size > 0),
      );
      await place.stop("SIGKILL");
      await Promise.all(ended);
      for (const worker of workers) {
        assert.match(worker.stop ?? "", CUT_OFF, "the kill cut the worker off in the middle of its work");
        cutOff += 1;
        for (const [name, hash] of worker.acked) acked.set(name, hash);
        for (const [name, hash] of worker.synced) synced.set(name, hash);
      }
      await place.start();
      check(mount, "acknowledged", acked);
      check(mount, "flushed", synced);
      forgetOldest(mount, acked, synced);
    }
    assert.equal(cutOff, CYCLES * WORKERS, "something was in flight at every kill");
  });
});

/** Every file of a manifest is there, whole; no half-written file shows under its final name. */
function check(mount: string, what: string, manifest: ReadonlyMap<string, string>): void {
  const there = new Set(readdirSync(join(mount, "load")));
  for (const [name, hash] of manifest) {
    assert.ok(there.has(name), `${what} file ${name} is gone`);
    const found = createHash("sha256").update(readFileSync(join(mount, "load", name)));
    assert.equal(found.digest("hex"), hash, `${what} file ${name} has other content`);
  }
}

function forgetOldest(mount: string, acked: Map<string, string>, synced: Map<string, string>): void {
  for (const name of [...acked.keys()].slice(0, Math.max(0, acked.size - FILES_KEPT))) {
    rmSync(join(mount, "load", name));
    acked.delete(name);
    synced.delete(name);
  }
  for (const name of readdirSync(join(mount, "load")))
    if (!acked.has(name)) rmSync(join(mount, "load", name));
}
