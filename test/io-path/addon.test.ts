// The door to the addon: arguments of a wrong type or range throw, and nothing crashes.

import assert from "node:assert/strict";
import { closeSync, openSync } from "node:fs";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import * as native from "#native";
import { HoldfastError } from "../../src/io-path/errors.js";
import { unwrap } from "../../src/io-path/addon.js";
import { parseMountLine, peerOf } from "../../src/io-path/system.js";

/** Calls a function of the addon as a program without types would. */
function callUntyped(name: keyof typeof native, ...args: unknown[]): unknown {
  const called = native[name] as unknown as (...given: unknown[]) => unknown;
  return called(...args);
}

const options = {
  memtableBytes: 1n << 20n,
  ringBytes: 1n << 20n,
  metadataCacheBytes: 1n << 20n,
  dataCacheBytes: 1n << 20n,
  runtimeDir: Buffer.from("/nowhere"),
  retentionS: 1n,
  thin: [],
  historyLimitPercent: 20,
  healBytesPerS: 32n << 20n,
};

const isArgumentError = (error: unknown) =>
  error instanceof Error && (error as NodeJS.ErrnoException).code === "InvalidArg";

describe("addon arguments", () => {
  for (const bad of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 32]) {
    it(`a handle of ${bad} throws`, () => {
      assert.throws(() => callUntyped("poolStatus", bad), isArgumentError);
      assert.throws(() => callUntyped("mountAlive", bad), isArgumentError);
      assert.throws(() => callUntyped("peerCredentials", bad), isArgumentError);
      assert.throws(() => callUntyped("lockExclusive", bad), isArgumentError);
    });
  }

  it("wrong types throw", () => {
    for (const bad of ["1", null, undefined, {}, [], true, 1n, Symbol("x")]) {
      assert.throws(() => callUntyped("poolStatus", bad), `handle ${typeof bad}`);
    }
    for (const bad of ["/x", 1, null, undefined, {}, []]) {
      assert.throws(() => callUntyped("poolProbe", bad), `path ${typeof bad}`);
      if (!Array.isArray(bad))
        assert.throws(() => callUntyped("poolOpen", bad, options), `drives ${typeof bad}`);
      assert.throws(
        () => callUntyped("poolOpen", [], { ...options, runtimeDir: bad }),
        `runtimeDir ${typeof bad}`,
      );
    }
    assert.throws(() => callUntyped("poolOpen", []));
    assert.throws(() => callUntyped("volumeCreate", 1, { name: 3 }));
  });

  it("numbers out of range throw", () => {
    for (const bad of [-1n, 1n << 64n, 1n << 200n]) {
      assert.throws(
        () => callUntyped("poolOpen", [], { ...options, ringBytes: bad }),
        isArgumentError,
        `${bad}`,
      );
      assert.throws(() => callUntyped("volumeSet", 1, "v", { quotaBytes: bad }), isArgumentError, `${bad}`);
    }
    for (const bad of [-1, 101, 0.5]) {
      assert.throws(
        () => callUntyped("poolOpen", [], { ...options, historyLimitPercent: bad }),
        isArgumentError,
        `${bad}`,
      );
    }
    assert.throws(
      () => callUntyped("volumeCreate", 1, { name: "v", rf: 256, ackWrite: false, quotaBytes: 0n }),
      isArgumentError,
    );
  });

  it("detached buffers and paths that cannot be throw", () => {
    const detached = Buffer.from(new ArrayBuffer(8));
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    for (const bad of [detached, Buffer.alloc(0), Buffer.from("/a\0b"), Buffer.alloc(4096, "a")]) {
      assert.throws(() => callUntyped("poolProbe", bad), isArgumentError);
      assert.throws(() => callUntyped("poolOpen", [bad], options), isArgumentError);
      assert.throws(() => callUntyped("detachStale", bad), isArgumentError);
    }
  });
});

describe("addon failures", () => {
  it("a dead handle is a failure as data, thrown once", async () => {
    const failure = await native.poolStatus(4_000_000);
    assert.deepEqual(failure, { failure: "Closed", message: "the pool is closed" });
    assert.throws(
      () => unwrap(failure),
      (error) => error instanceof HoldfastError && error.code === "Closed",
    );
    assert.equal(native.mountAlive(4_000_000), false);
  });

  it("many calls at once are answered or refused, none is lost", async () => {
    const answers = await Promise.all(Array.from({ length: 500 }, () => native.poolStatus(4_000_000)));
    for (const answer of answers) {
      assert.ok("failure" in answer && ["Closed", "Unavailable"].includes(answer.failure));
    }
  });
});

describe("system calls", () => {
  it("a lock is held by one open file at a time", () => {
    const path = join(tmpdir(), `holdfast-lock-${process.pid}`);
    const first = openSync(path, "w");
    const second = openSync(path, "w");
    assert.equal(native.lockExclusive(first), true);
    assert.equal(native.lockExclusive(second), false);
    closeSync(first);
    assert.equal(native.lockExclusive(second), true);
    closeSync(second);
  });

  it("a descriptor that is no lockable file is a failure, not a fault", () => {
    const failure = native.lockExclusive(1_000_000);
    assert.ok(typeof failure === "object" && failure.message.includes("locking"));
  });

  it("knows who is at the other end of a socket", async () => {
    const path = join(tmpdir(), `holdfast-peer-${process.pid}.sock`);
    const server = createServer();
    await new Promise<void>((done) => server.listen(path, done));
    const accepted = new Promise<number>((done) =>
      server.once("connection", (socket) => done(peerOf(socket).uid)),
    );
    const client = connect(path);
    assert.equal(await accepted, process.geteuid?.());
    client.destroy();
    await new Promise((done) => server.close(done));
    assert.throws(
      () => peerOf(client),
      (error) => error instanceof HoldfastError && error.code === "Denied",
    );
  });

  it("reads mountinfo lines, escapes and all", () => {
    const line =
      "36 35 98:0 / /mnt/a\\040b\\134c rw,noatime shared:1 - fuse.holdfast my\\011volume rw,user_id=0";
    const entry = parseMountLine(line);
    assert.equal(entry?.dir.toString(), "/mnt/a b\\c");
    assert.equal(entry?.source, "my\tvolume");
    assert.equal(entry?.type, "fuse.holdfast");
    assert.equal(parseMountLine("nonsense"), undefined);
  });
});
