// Drives that are slow, die, end early, fill up or are exchanged under a mounted volume (fault matrix, rows 1, 3, 14-16):
// reads stay right, what was acknowledged stays, and what can be healed is healed without a command.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { closeSync, constants, fsyncSync, openSync, readFileSync, readSync, readdirSync } from "node:fs";
import { statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { PoolAnswer } from "../../src/daemon/protocol.js";
import { Place, ROOT, mountsBelow, run, until, without, withoutRoot } from "../daemon-fixture.js";

const FILES = 12;
const FILE_BYTES = 600_000;
/** Every read asks the drives. */
const COLD = "memory: {data_cache: 0}\n";

const skip = withoutRoot !== false ? withoutRoot : without("cc", "pkg-config", "fusermount3", "losetup");

type PoolStatus = NonNullable<PoolAnswer["status"]>;

function statusOf(place: Place): PoolStatus {
  const { status } = place.json<PoolAnswer>("pool", "show", "p");
  assert.ok(status !== null, place.log);
  return status;
}

function stateOf(place: Place, drive: string): string {
  return statusOf(place).drives.find(({ path }) => path === drive)?.state ?? "gone";
}

/** Files with known content; reads go past the page cache. */
class Content {
  readonly #hashes = new Map<string, string>();

  constructor(readonly mount: string) {}

  write(name: string, bytes = FILE_BYTES): void {
    const content = randomBytes(bytes);
    const path = join(this.mount, name);
    writeFileSync(path, content, { flush: true });
    this.#hashes.set(path, createHash("sha256").update(content).digest("hex"));
  }

  /** Files that somebody else wrote. */
  expect(hashes: ReadonlyMap<string, string>): void {
    for (const [path, hash] of hashes) this.#hashes.set(path, hash);
  }

  verify(when: string): void {
    for (const [path, hash] of this.#hashes) {
      const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
      const content = Buffer.alloc(statSync(path).size);
      let done = 0;
      while (done < content.length) done += readSync(fd, content, done, content.length - done, done);
      closeSync(fd);
      assert.equal(createHash("sha256").update(content).digest("hex"), hash, `${when}: ${path}`);
    }
  }
}

/** A directory behind a FUSE server of ours, which can be slow, fail, or die. */
class FaultyDrive {
  readonly path: string;
  readonly #control: string;
  readonly #child: ChildProcess;

  private constructor(place: Place, name: string) {
    const [source = "", path = ""] = place.folders(`${name}-source`, name);
    const program = join(place.folder, "faulty-drive");
    const flags = run("pkg-config", ["--cflags", "--libs", "fuse3"]).trim().split(/\s+/);
    run("cc", ["-O1", "-o", program, join(ROOT, "test/e2e/faulty-drive.c"), ...flags]);
    this.path = path;
    this.#control = join(place.folder, `${name}-control`);
    writeFileSync(this.#control, Buffer.alloc(16));
    this.#child = spawn(program, [this.#control, source, path], { stdio: "inherit" });
  }

  static async start(place: Place, name: string): Promise<FaultyDrive> {
    const drive = new FaultyDrive(place, name);
    await until("the drive is mounted", () => mountsBelow(place.folder).includes(drive.path));
    return drive;
  }

  set({ readMs = 0, writeMs = 0 }: { readMs?: number; writeMs?: number }): void {
    const words = Buffer.alloc(16);
    words.writeUInt32LE(readMs, 0);
    words.writeUInt32LE(writeMs, 4);
    const fd = openSync(this.#control, "r+");
    writeSync(fd, words);
    closeSync(fd);
  }

  async die(): Promise<void> {
    if (this.#child.signalCode !== null) return;
    const ended = new Promise((done) => this.#child.once("close", done));
    this.#child.kill("SIGKILL");
    await ended;
  }
}

async function createPool(place: Place, drives: readonly string[]): Promise<Content> {
  const [mount = ""] = place.folders("mnt");
  const config = join(place.folder, "config.yaml");
  writeFileSync(config, COLD);
  await place.start({ config });
  place.json("pool", "create", "p", "--size", "128MiB", ...drives.flatMap((drive) => ["--drive", drive]));
  place.json("volume", "create", "v", "--pool", "p", "--rf", "2");
  place.json("mount", "v", mount);
  const content = new Content(mount);
  for (let at = 0; at < FILES; at += 1) content.write(`f${at}`);
  // Nothing of it is in memory afterwards.
  await restart(place, "SIGTERM");
  content.verify("fresh");
  return content;
}

async function restart(place: Place, signal: NodeJS.Signals): Promise<void> {
  await place.stop(signal);
  await place.start({ config: join(place.folder, "config.yaml") });
}

function healed(place: Place): Promise<true> {
  return until("everything has its copies again", () => {
    const { healing } = statusOf(place);
    return healing.thingsLeft === 0 && healing.thingsSingle === 0 && healing.stuck.length === 0;
  });
}

function elapsedMs(act: () => void): number {
  const begun = performance.now();
  act();
  return performance.now() - begun;
}

describe("drives that fail in ways of their own", { skip }, () => {
  it("a slow drive is read around, spared within ten seconds, and out when its server dies", async () => {
    const place = new Place();
    let drive: FaultyDrive | undefined;
    try {
      drive = await FaultyDrive.start(place, "slow");
      const content = await createPool(place, [drive.path, ...place.folders("d2", "d3")]);
      assert.equal(stateOf(place, drive.path), "active");
      drive.set({ readMs: 1500 });
      const reading = elapsedMs(() => content.verify("reads take 1.5 s on one drive"));
      const { reads_hedged: hedged = 0, hedges_won: won = 0 } = statusOf(place).counters;
      assert.ok(hedged > 0 && won > 0, `${hedged} reads hedged, ${won} won`);
      assert.ok(reading < FILES * 1500, `${FILES} files in ${reading} ms`);
      drive.set({ readMs: 300, writeMs: 300 });
      const path = drive.path;
      const began = performance.now();
      await until("the drive is spared", () => stateOf(place, path) === "slow", 15_000);
      const spared = performance.now() - began;
      assert.ok(spared < 12_000, `spared after ${spared} ms, with the time that asking takes`);
      const { drives, events, warnings } = statusOf(place);
      const found = drives.find((one) => one.path === path);
      assert.ok(
        found !== undefined && found.sinceSeconds > 0 && found.reason.includes("median"),
        found?.reason,
      );
      assert.ok(events.some(({ what }) => what.includes("is slow")));
      assert.ok(warnings.some((warning) => warning.includes("is slow")));
      await until("the log has left it", () => elapsedMs(() => content.write("probe", 4096)) < 250);
      content.verify("spared");

      await drive.die();
      content.write("after", 100_000);
      content.verify("its server is dead");
      await until("the drive is out", () => stateOf(place, path) === "out", 10_000);
      await healed(place);
      content.verify("healed");
      await until("the log tells both", () => /is slow/.test(place.log) && /is out/.test(place.log));
      const doctor = place.cli("doctor");
      assert.equal(doctor.code, 11);
      assert.match(doctor.stdout, /remove-drive/);
    } finally {
      await drive?.die();
      await place.remove();
    }
  });

  it("a drive on a loop device whose file was cut short: everything reads, and is written again", async () => {
    const place = new Place();
    let loop = "";
    try {
      const [path = "", ...others] = place.folders("loop", "d2", "d3");
      const backing = join(place.folder, "backing");
      writeFileSync(backing, "");
      truncateSync(backing, 200 << 20);
      loop = run("losetup", ["--find", "--show", backing]).trim();
      run("mkfs.ext4", ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", loop]);
      run("mount", [loop, path]);
      const content = await createPool(place, [path, ...others]);
      // Reads and writes of what lies behind the new end are errors.
      truncateSync(backing, 1 << 20);
      for (let round = 0; round < 4; round += 1) content.verify(`cut short, round ${round}`);
      content.write("after", 300_000);
      const { counters } = statusOf(place);
      assert.ok((counters.read_errors ?? 0) > 0, "the drive failed reads");
      await healed(place);
      content.verify("healed");
    } finally {
      if (loop !== "") {
        await place.stop("SIGTERM");
        for (const dir of mountsBelow(place.folder)) spawnSync("umount", ["-l", dir]);
        run("losetup", ["-d", loop]);
      }
      await place.remove();
    }
  });

  it("a drive whose tmpfs is full takes no more, and nothing fails", async () => {
    const place = new Place();
    try {
      const [path = "", ...others] = place.folders("tmpfs", "d2", "d3");
      run("mount", ["-t", "tmpfs", "-o", "size=160m,mode=755", "tmpfs", path]);
      const content = await createPool(place, [path, ...others]);
      const filler = openSync(join(path, "filler"), "w");
      assert.throws(() => {
        for (;;) writeSync(filler, Buffer.alloc(1 << 20, 1));
      }, /ENOSPC/);
      closeSync(filler);
      for (let at = 0; at < 40; at += 1) content.write(`more${at}`, 1 << 20);
      content.verify("full");
      assert.equal(stateOf(place, path), "active", "full is not failed");
    } finally {
      await place.remove();
    }
  });

  for (const what of ["zeroes", "an old image", "another drive's content"]) {
    it(`a drive that is exchanged under load for ${what}: nothing wrong, nothing lost, healed by itself`, async () => {
      const place = new Place();
      let writers: Writer[] = [];
      try {
        const [d1 = "", d2 = "", d3 = ""] = place.folders("d1", "d2", "d3");
        const content = await createPool(place, [d1, d2, d3]);
        const [old = ""] = place.folders("old");
        await newImage(d2, old);
        writers = [0, 1].map((number) => new Writer(content.mount, number));
        const wrote = (count: number): Promise<true> =>
          until("the writers go on", () => writers.every(({ acked }) => acked.size >= count));
        await wrote(10);
        exchange(d2, what, { old, other: d3 });
        const exchanged = performance.now();
        const before = writers.map(({ acked }) => acked.size);
        do content.verify("exchanged");
        while (stateOf(place, d2) === "active" && performance.now() - exchanged < 10_000);
        assert.equal(stateOf(place, d2), "out", "noticed within ten seconds");
        await wrote(Math.max(...before) + 10);
        await Promise.all(writers.map((writer) => writer.end()));
        await healed(place);
        content.verify("healed");
        const lost = statusOf(place).healing.thingsLost;
        assert.equal(lost, 0);
        // What is acknowledged is whole on the two others, and a start finds it there.
        for (const writer of writers) content.expect(writer.acked);
        content.verify("with what was written meanwhile");
        await restart(place, "SIGKILL");
        content.verify("after a kill");
      } finally {
        for (const writer of writers) await writer.end();
        await place.remove();
      }
    });
  }
});

/** Copies a drive, and waits until its superblock has gone on: from then on the copy is old. */
async function newImage(drive: string, copy: string): Promise<void> {
  const superblock = (): string => readFileSync(join(drive, "superblock")).toString("base64");
  run("cp", ["-a", `${drive}/.`, copy]);
  const before = superblock();
  await until("a sign of life", () => superblock() !== before);
}

/** A process that writes files until it is ended; knows what was acknowledged. */
class Writer {
  readonly acked = new Map<string, string>();
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #stop = "";

  constructor(mount: string, number: number) {
    const load = fileURLToPath(new URL("load.js", import.meta.url));
    this.#child = spawn(process.execPath, [load, mount, "w", `${number}`], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#ended = new Promise((done) => this.#child.once("close", done));
    let rest = "";
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const [what, name = "", hash = ""] = line.split(" ");
        if (what === "acked") this.acked.set(join(mount, "load", name), hash);
        else if (what === "stop") this.#stop = name;
      }
    });
  }

  /** Kills the process, not the daemon; nothing of what it did has failed. */
  async end(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
    assert.equal(this.#stop, "", "a writer failed");
  }
}

/** Overwrites a drive's files in place, as `dd` over the disk would. */
function exchange(drive: string, what: string, from: { old: string; other: string }): void {
  for (const name of readdirSync(drive)) {
    if (name === "lock") continue;
    const fd = openSync(join(drive, name), "r+");
    const { size } = statSync(join(drive, name));
    const source =
      what === "zeroes" ? undefined : join(what === "an old image" ? from.old : from.other, name);
    const piece = Buffer.alloc(1 << 20);
    const input = source === undefined ? undefined : openSync(source, "r");
    for (let at = 0; at < size; at += piece.length) {
      const length = Math.min(piece.length, size - at);
      piece.fill(0);
      if (input !== undefined) readSync(input, piece, 0, length, at);
      writeSync(fd, piece, 0, length, at);
    }
    fsyncSync(fd);
    closeSync(fd);
    if (input !== undefined) closeSync(input);
  }
}
