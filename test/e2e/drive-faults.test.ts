// Drives that are slow, die, end early, fill up or are exchanged under a mounted volume (rows 1, 3, 14-16):
// reads stay right, what was acknowledged stays, and what can be healed is healed without a command.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { closeSync, constants, openSync, readSync, readdirSync } from "node:fs";
import { existsSync, fstatSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Client } from "../../src/cli/client.js";
import type { PoolAnswer, VolumeAnswer } from "../../src/daemon/protocol.js";
import { Place, ROOT, mountsBelow, run, until, without, withoutRoot } from "../daemon-fixture.js";

const FILES = 12;
const FILE_BYTES = 600_000;
/** Of each writer: 13 MB of the 128 MB that two drives hold, however fast the machine is. */
const KEPT = 100;
/** Every read asks the drives. */
const COLD = "memory: {data_cache: 0}\n";

const skip =
  withoutRoot !== false ? withoutRoot : without("cc", "pkg-config", "fusermount3", "losetup", "dd");

type PoolStatus = NonNullable<PoolAnswer["status"]>;

async function statusOf(place: Place): Promise<PoolStatus> {
  const { status } = await new Client(place.state).get<PoolAnswer>("/v1/pools/p");
  assert.ok(status !== null, place.log);
  return status;
}

async function stateOf(place: Place, drive: string): Promise<string> {
  return (await statusOf(place)).drives.find(({ path }) => path === drive)?.state ?? "gone";
}

function metricsOf(place: Place): Promise<string[]> {
  return new Promise((resolve, reject) => {
    get({ socketPath: join(place.state, "admin.sock"), path: "/metrics" }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => (text += piece));
      response.on("end", () => resolve(text.split("\n")));
    }).on("error", reject);
  });
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
    for (const [path, hash] of this.#hashes) assert.equal(hashOf(path), hash, `${when}: ${path}`);
  }

  /** How many files can be read, all of them right, and why the others cannot. */
  tryAll(): { right: number; failed: Map<string, string> } {
    const failed = new Map<string, string>();
    for (const [path, hash] of this.#hashes) {
      try {
        assert.equal(hashOf(path), hash, path);
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        failed.set(path, (error as NodeJS.ErrnoException).code ?? "");
      }
    }
    return { right: this.#hashes.size - failed.size, failed };
  }
}

/** Of what the drives say: past the page cache. */
function hashOf(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  try {
    const content = Buffer.alloc(fstatSync(fd).size);
    for (let done = 0; done < content.length;) {
      const got = readSync(fd, content, done, content.length - done, done);
      assert.ok(got > 0, `${path} ends at ${done}`);
      done += got;
    }
    return createHash("sha256").update(content).digest("hex");
  } finally {
    closeSync(fd);
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
    if (!existsSync(program))
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

async function healed(place: Place): Promise<void> {
  let last: PoolStatus | undefined;
  try {
    await until("everything has its copies again", async () => {
      last = await statusOf(place);
      const { healing } = last;
      return healing.thingsLeft === 0 && healing.thingsSingle === 0 && healing.stuck.length === 0;
    });
  } catch (error) {
    assert.fail(`${String(error)}\n${JSON.stringify(last, null, 1)}\n${place.log}`);
  }
}

function wallSeconds(): number {
  return Math.floor(Date.now() / 1000);
}

/** Within ten seconds; and status, log and metrics tell so, with the reason and what is at risk. */
async function becomes(
  place: Place,
  path: string,
  state: string,
  fromSeconds: number,
  reason: RegExp,
): Promise<void> {
  await until(`${path} is ${state}`, async () => (await stateOf(place, path)) === state, 30_000);
  const { drives, events, warnings, counters } = await statusOf(place);
  const found = drives.find((one) => one.path === path);
  assert.ok(found !== undefined);
  assert.match(found.reason, reason);
  const took = found.sinceSeconds - fromSeconds;
  assert.ok(took <= 10, `${state} after ${took} seconds`);
  const says = (text: string): boolean => text.includes(path) && text.includes(`is ${state}`);
  assert.ok(
    events.some(({ what, atSeconds }) => says(what) && atSeconds === found.sinceSeconds),
    JSON.stringify(events),
  );
  assert.ok(warnings.some(says), warnings.join("; "));
  assert.ok((counters.drives_out ?? 0) + (counters.drives_demoted ?? 0) > 0);
  await until("the log tells it", () => place.log.split("\n").some(says));
  const metrics = await metricsOf(place);
  const line = metrics.find((one) => one.includes("drive_active") && one.includes(`drive="${path}"`));
  assert.ok(line?.includes(`state="${state}"`) === true && line.endsWith(" 0"), line);
  assert.ok(metrics.some((one) => one.includes("pool_short_bytes") && one.includes('copies="one"')));
}

function elapsedMs(act: () => void): number {
  const begun = performance.now();
  act();
  return performance.now() - begun;
}

describe("drives that fail in ways of their own", { skip }, () => {
  it("rows 1, 16: a slow drive is read around, spared within ten seconds, out when its server dies", async () => {
    const place = new Place();
    let drive: FaultyDrive | undefined;
    try {
      drive = await FaultyDrive.start(place, "slow");
      const content = await createPool(place, [drive.path, ...place.folders("d2", "d3")]);
      assert.equal(await stateOf(place, drive.path), "active");
      drive.set({ readMs: 1500 });
      const reading = elapsedMs(() => content.verify("reads take 1.5 s on one drive"));
      const { reads_hedged: hedged = 0, hedges_won: won = 0 } = (await statusOf(place)).counters;
      assert.ok(hedged > 0 && won > 0, `${hedged} reads hedged, ${won} won`);
      assert.ok(reading < FILES * 1500, `${FILES} files in ${reading} ms`);
      const path = drive.path;
      const slow = wallSeconds();
      drive.set({ readMs: 300, writeMs: 300 });
      await becomes(place, path, "slow", slow, /median/u);
      await until("the log has left it", () => elapsedMs(() => content.write("probe", 4096)) < 250);
      content.verify("spared");

      const dead = wallSeconds();
      await drive.die();
      content.write("after", 100_000);
      content.verify("its server is dead");
      await becomes(place, path, "out", dead, /not connected|connection abort/u);
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

  it("rows 1, 15: a loop device whose file was cut short: everything reads, and is written again", async () => {
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
      const cut = wallSeconds();
      truncateSync(backing, 1 << 20);
      for (let round = 0; round < 2; round += 1) content.verify(`cut short, round ${round}`);
      content.write("after", 300_000);
      const { counters } = await statusOf(place);
      assert.ok((counters.read_errors ?? 0) > 0, "the drive failed reads");
      await becomes(place, path, "out", cut, /writing|flush|superblock/u);
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

  it("row 2: two drives die: errors where both copies were only; they return, nothing is lost", async () => {
    const place = new Place();
    const drives: FaultyDrive[] = [];
    try {
      drives.push(await FaultyDrive.start(place, "a"), await FaultyDrive.start(place, "b"));
      const [a = "", b = ""] = drives.map(({ path }) => path);
      const [last = ""] = place.folders("d3");
      const content = await createPool(place, [a, b, last]);
      const [e1 = "", e2 = "", mount = ""] = place.folders("e1", "e2", "elsewhere");
      place.json("pool", "create", "q", "--size", "64MiB", "--drive", e1, "--drive", e2);
      place.json("volume", "create", "w", "--pool", "q", "--rf", "2");
      place.json("mount", "w", mount);
      const elsewhere = new Content(mount);
      const dead = wallSeconds();
      for (const drive of drives) await drive.die();
      const { right, failed } = content.tryAll();
      assert.deepEqual([...failed.values()], [...failed.values()].fill("EIO"));
      // How many depends on where the metadata lies, too; all of RF 2 that was on the last drive may be whole.
      assert.ok(failed.size > 0, `${right} files are whole`);
      for (const path of [a, b]) await becomes(place, path, "out", dead, /not connected|connection abort/u);
      const { healing } = await statusOf(place);
      assert.ok(healing.thingsLost > 0);
      // Another pool of the daemon does not notice.
      elsewhere.write("there", 100_000);
      elsewhere.verify("another pool");
      const { trouble } = place.json<VolumeAnswer[]>("volume", "list").find(({ name }) => name === "v") ?? {};
      assert.match(trouble ?? "", /1 of 2 copies/u);
      assert.match(place.cli("doctor").stdout, /attach the drives that are away and restart the daemon/u);

      await place.stop("SIGTERM");
      for (const dir of [a, b]) run("umount", ["-l", dir]);
      for (const name of ["a", "b"]) drives.push(await FaultyDrive.start(place, name));
      await place.start({ config: join(place.folder, "config.yaml") });
      content.verify("both are back");
      await healed(place);
      await until("they are used again", async () =>
        (await statusOf(place)).drives.every(({ state }) => state === "active"),
      );
      content.verify("healed");
      assert.equal((await statusOf(place)).healing.thingsLost, 0);
    } finally {
      await place.stop("SIGTERM").catch(() => undefined);
      for (const drive of drives) await drive.die();
      await place.remove();
    }
  });

  it("row 14: a drive whose tmpfs is full takes no more, and nothing fails", async () => {
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
      assert.equal(await stateOf(place, path), "active", "full is not failed");
    } finally {
      await place.remove();
    }
  });

  for (const what of ["zeroes", "an old image", "another drive's content"]) {
    it(`row 3: a drive exchanged under load for ${what}: nothing wrong, nothing lost, healed by itself`, async () => {
      const place = new Place();
      let writers: Writer[] = [];
      try {
        const [d1 = "", d2 = "", d3 = ""] = place.folders("d1", "d2", "d3");
        const content = await createPool(place, [d1, d2, d3]);
        const [old = ""] = place.folders("old");
        await newImage(d2, old);
        writers = [0, 1].map((number) => new Writer(content.mount, number));
        const wrote = (count: number): Promise<true> =>
          until("the writers go on", () => writers.every((writer) => writer.count >= count));
        await wrote(10);
        exchange(d2, what, { old, other: d3 });
        const [exchanged, exchangedAt] = [performance.now(), wallSeconds()];
        const before = writers.map((writer) => writer.count);
        do content.verify("exchanged");
        while ((await stateOf(place, d2)) === "active" && performance.now() - exchanged < 30_000);
        await becomes(place, d2, "out", exchangedAt, /superblock|exchanged/u);
        await wrote(Math.max(...before) + 10);
        assert.deepEqual(await Promise.all(writers.map((writer) => writer.end())), ["", ""]);
        await healed(place);
        content.verify("healed");
        assert.equal((await statusOf(place)).healing.thingsLost, 0);
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
  const written = (): number => statSync(join(drive, "superblock")).mtimeMs;
  for (const name of filesOf(drive))
    copyBehindTheCache(join(drive, name), join(copy, name), statSync(join(drive, name)).size);
  const before = written();
  await until("a sign of life", () => written() !== before);
}

/** A process that writes files until it is ended, and keeps the newest; knows what was acknowledged. */
class Writer {
  readonly acked = new Map<string, string>();
  count = 0;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #stop = "";

  constructor(mount: string, number: number) {
    const load = fileURLToPath(new URL("load.js", import.meta.url));
    this.#child = spawn(process.execPath, [load, mount, "w", `${number}`, `${KEPT}`], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#ended = new Promise((done) => this.#child.once("close", done));
    let rest = "";
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const [what, name = "", hash = ""] = line.split(" ");
        if (what === "acked") {
          this.acked.set(join(mount, "load", name), hash);
          this.count += 1;
        } else if (what === "goes") this.acked.delete(join(mount, "load", name));
        else if (what === "stop") this.#stop = name;
      }
    });
  }

  /** Kills the process, not the daemon; how it had failed before, if it had. */
  async end(): Promise<string> {
    this.#child.kill("SIGKILL");
    await this.#ended;
    return this.#stop;
  }
}

/** Overwrites a drive's files in place. */
function exchange(drive: string, what: string, from: { old: string; other: string }): void {
  for (const name of filesOf(drive)) {
    const { size } = statSync(join(drive, name));
    const source = join(what === "an old image" ? from.old : from.other, name);
    copyBehindTheCache(what === "zeroes" ? undefined : source, join(drive, name), size);
  }
}

function filesOf(drive: string): string[] {
  return readdirSync(drive).filter((name) => name !== "lock");
}

/**
 * `undefined`: zeroes. The host's page cache must know nothing of it: dirty pages of somebody else in the way of the
 * daemon's direct writes are a failed flush to the kernel, which is another fault than the one that is meant.
 */
function copyBehindTheCache(source: string | undefined, target: string, bytes: number): void {
  const piece = Math.min(bytes, 1 << 20);
  const direct = source === undefined ? [] : ["iflag=direct"];
  const blocks = [
    `bs=${piece}`,
    `count=${bytes / piece}`,
    "oflag=direct",
    "conv=notrunc,fsync",
    "status=none",
  ];
  run("dd", [`if=${source ?? "/dev/zero"}`, `of=${target}`, ...blocks, ...direct]);
}
