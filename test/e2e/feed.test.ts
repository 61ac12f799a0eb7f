// The change feed through the command line: a consumer that keeps a copy by it, over kills of itself and of the daemon.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import type { FeedChangeAnswer } from "../../src/daemon/protocol.js";
import { MAIN, Place, until } from "../daemon-fixture.js";

interface CursorLine {
  cursor: string;
  toldTo: number;
  more: boolean;
}
type Line = FeedChangeAnswer | CursorLine;

/** Applies what it is told, and believes only what stands before a cursor. */
class Consumer {
  readonly files = new Map<string, Buffer>();
  told: FeedChangeAnswer[] = [];
  #pending: FeedChangeAnswer[] = [];
  #step: FeedChangeAnswer[] = [];

  constructor(
    readonly mount: string,
    public cursor: string,
  ) {}

  /** What was told without a cursor behind it may come again. */
  restart(): void {
    this.#pending = [];
  }

  take(line: Line): void {
    if (!("cursor" in line)) {
      this.#pending.push(line);
      return;
    }
    this.cursor = line.cursor;
    this.told.push(...this.#pending);
    for (const change of this.#pending) {
      if (this.#step[0] !== undefined && this.#step[0].seenAt !== change.seenAt) this.#carryOut();
      this.#step.push(change);
    }
    this.#pending = [];
    if (this.#step[0] !== undefined && line.toldTo >= this.#step[0].seenAt) this.#carryOut();
  }

  /** Old names go first, then new ones come, with what their ranges name. */
  #carryOut(): void {
    const step = this.#step.filter(({ type }) => type === "file");
    this.#step = [];
    const before = new Map(this.files);
    for (const { op, path = "", old } of step) {
      if (op === "removed") assert.ok(this.files.delete(path), `${path} goes, but was not there`);
      if (op === "renamed") assert.ok(this.files.delete(old?.path ?? ""), `${old?.path} was not there`);
    }
    for (const change of step) {
      if (change.op === "removed") continue;
      const { path = "", size, seenAt } = change;
      const was = before.get(change.old?.path ?? path) ?? Buffer.alloc(0);
      const content = Buffer.alloc(size);
      was.copy(content);
      const file = openSync(join(this.mount, ".holdfast/at", `lsn:${seenAt}`, path), "r");
      for (const { offset, length } of change.ranges)
        readSync(file, content, offset, Math.max(0, Math.min(length, size - offset)), offset);
      closeSync(file);
      this.files.set(path, content);
    }
  }
}

describe("the change feed", () => {
  const place = new Place();
  let mount = "";
  let turn = 0;

  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2 });
    for (const name of ["a", "b"]) mkdirSync(join(mount, name));
  });
  after(() => place.remove());

  function lines(...args: string[]): Line[] {
    const { code, stdout, stderr } = place.cli("feed", "v", "--json", ...args);
    assert.equal(code, 0, stderr);
    const found = stdout.split("\n").filter((line) => line !== "");
    return found.map((line) => JSON.parse(line) as Line);
  }

  const names = () =>
    ["a", "b"].flatMap((dir) => readdirSync(join(mount, dir)).map((name) => `${dir}/${name}`));

  /** Some changes of every kind, always others. */
  function work(count: number): void {
    for (let change = 0; change < count; change += 1) {
      turn += 1;
      const there = names();
      const some = there[(turn * 7) % there.length];
      const fresh = `${turn % 3 === 0 ? "a" : "b"}/${turn}`;
      if (some === undefined || turn % 2 === 0) writeFileSync(join(mount, fresh), `${turn}`.repeat(2000));
      else if (turn % 5 === 1) appendFileSync(join(mount, some), "more");
      else if (turn % 5 === 2) renameSync(join(mount, some), join(mount, fresh));
      else if (turn % 5 === 3) unlinkSync(join(mount, some));
      else {
        const file = openSync(join(mount, some), "r+");
        writeSync(file, `${turn}`, 4096);
        closeSync(file);
      }
    }
  }

  /** Follows until enough cursors have come, or the daemon ends; then kills the program that follows. */
  async function follow(
    consumer: Consumer,
    cursors: number,
    meanwhile: () => Promise<unknown>,
  ): Promise<void> {
    consumer.restart();
    const args = [MAIN, "--state", place.state, "feed", "v", "--json", "--follow", "--from", consumer.cursor];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "ignore"] });
    const ended = new Promise((resolve) => child.once("close", resolve));
    let seen = 0;
    createInterface({ input: child.stdout }).on("line", (text) => {
      const line = JSON.parse(text) as Line;
      if (seen < cursors) consumer.take(line);
      if ("cursor" in line) seen += 1;
      if (seen >= cursors) child.kill("SIGKILL");
    });
    await meanwhile();
    await ended;
  }

  it("tells each change once, whatever is killed in between", async () => {
    const [begin] = lines();
    assert.ok(begin !== undefined && "cursor" in begin);
    const consumer = new Consumer(mount, begin.cursor);
    work(40);
    // A few lines at a time: most pages end in the middle of a second.
    for (let more = true; more;) {
      const page = lines("--from", consumer.cursor, "--limit", "7");
      page.forEach((line) => consumer.take(line));
      const last = page.at(-1);
      more = last !== undefined && "cursor" in last && (last.more || page.length > 7);
    }
    await follow(consumer, 1, async () => work(60));
    await follow(consumer, 2, async () => {
      const told = consumer.told.length;
      work(30);
      await until("these are told", () => consumer.told.length > told);
      work(30);
    });
    // The daemon goes while somebody waits for it, and just after a change.
    await follow(consumer, 1000, async () => {
      work(30);
      await place.stop("SIGKILL");
    });
    await place.start();
    work(30);
    consumer.restart();
    lines("--from", consumer.cursor).forEach((line) => consumer.take(line));

    const expected = new Map(names().map((name) => [name, readFileSync(join(mount, name))]));
    assert.deepEqual([...consumer.files.keys()].sort(), [...expected.keys()].sort());
    for (const [name, content] of expected) assert.ok(consumer.files.get(name)?.equals(content), name);
    const told = consumer.told.map(({ seenAt, op, path }) => `${seenAt} ${op} ${path}`);
    assert.equal(new Set(told).size, told.length, "something was told twice");
    const lsns = consumer.told.map(({ lsn }) => lsn);
    assert.deepEqual(
      lsns,
      [...lsns].sort((left, right) => left - right),
    );
    assert.ok(told.length > 150, `${told.length} changes`);
    const more = lines("--from", consumer.cursor).filter((line) => "op" in line);
    assert.deepEqual(more, [], "nothing is left");
  });

  it("says what, where in the file, when and who", () => {
    const [begin] = lines();
    assert.ok(begin !== undefined && "cursor" in begin);
    const path = join(mount, "told");
    writeFileSync(path, Buffer.alloc(20_000, 1));
    lines("--from", begin.cursor);
    const second = lines("--from", begin.cursor).at(-1);
    assert.ok(second !== undefined && "cursor" in second);
    const file = openSync(path, "r+");
    writeSync(file, "x", 9000);
    closeSync(file);
    const [change] = lines("--from", second.cursor);
    assert.ok(change !== undefined && "op" in change);
    const { op, type, inode, size, ranges, actor, time } = change;
    assert.deepEqual([op, change.path, type, size], ["changed", "told", "file", 20_000]);
    assert.deepEqual([inode, ranges], [statSync(path).ino, [{ offset: 8192, length: 4096 }]]);
    assert.deepEqual(actor, { uid: 0, pid: process.pid, command: "node" });
    assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000, time);
    const both = lines("--from", begin.cursor, "--coalesce").filter((line) => "op" in line);
    assert.deepEqual(
      both.map((line) => ("op" in line ? line.op : "")),
      ["added"],
    );
    chmodSync(path, 0o600);
    renameSync(path, join(mount, "moved"));
    const text = place.cli("feed", "v", "--from", second.cursor, "--coalesce").stdout;
    assert.match(text, /^\S+Z \d+ > told -> moved {2}by root \(node, pid \d+\)\ncursor: hf1-[0-9a-f]+\n$/);
    const between = place.cli("diff", "v", `lsn:${second.toldTo}`, "--who").stdout;
    assert.match(between, /^> told -> moved {2}by root \(node, pid \d+\)$/m);
    rmSync(join(mount, "moved"));
  });

  it("holds the history that a cursor needs, if it shall", async () => {
    const save = join(place.folder, "cursor");
    lines("--keep", "mine", "--save", save);
    writeFileSync(join(mount, "ticking"), "");
    const [away] = lines();
    assert.ok(away !== undefined && "cursor" in away);
    place.json("volume", "set", "v", "--retention", "1s", "--thin", "none");
    await until("the seconds of before have gone", () => {
      writeFileSync(join(mount, "ticking"), `${performance.now()}`);
      return place.cli("feed", "v", "--from", away.cursor).code === 4;
    });
    const { cursor } = JSON.parse(readFileSync(save, "utf8")) as { cursor: string };
    const told = lines("--from", cursor, "--coalesce", "--keep", "mine", "--save", save);
    assert.ok(told.some((line) => "op" in line && line.path === "ticking"));
    const held = () => place.json<{ name: string }[]>("snapshot", "list", "v").map(({ name }) => name);
    assert.equal(held().length, 2, "that of the cursor before, until this one comes back");
    const second = JSON.parse(readFileSync(save, "utf8")) as { cursor: string; toldTo: number };
    lines("--from", second.cursor, "--keep", "mine");
    assert.equal(held()[0], `mine-${second.toldTo}`);
    for (const name of held()) place.json("snapshot", "delete", "v", name, "--yes");
    place.json("volume", "set", "v", "--retention", "1h", "--thin", "none");
    rmSync(join(mount, "ticking"));
  });

  it("begins where it is told to, and refuses what it cannot tell", () => {
    const all = lines("--from", "beginning", "--coalesce").filter((line) => "op" in line);
    assert.deepEqual(
      all.map((line) => ("op" in line ? line.path : "")).sort(),
      ["a", "b", ...names()].sort(),
    );
    place.json("snapshot", "create", "v", "mark");
    const at = lines("--from", "mark", "--limit", "1").at(-1);
    work(20);
    const within = lines("--from", "mark", "--limit", "1").at(-1);
    assert.ok(at !== undefined && "cursor" in at && within !== undefined && "cursor" in within);
    place.json("snapshot", "delete", "v", "mark", "--yes");
    const gone = place.fails(4, "feed", "v", "--from", within.cursor);
    assert.match(
      gone.message,
      /not kept any more: kept are states from 20.*--from now begins anew, and diff/,
    );
    place.json("volume", "create", "w", "--pool", "p");
    assert.match(place.fails(2, "feed", "w", "--from", at.cursor).message, /of another volume than w/);
    const broken = `${at.cursor.slice(0, -1)}${at.cursor.endsWith("0") ? "1" : "0"}`;
    assert.match(place.fails(2, "feed", "v", "--from", broken).message, /no cursor of a change feed/);
    assert.match(place.fails(2, "feed", "v", "--from", "2999-01-01").message, /in the future/);
    assert.equal(place.fails(4, "feed", "v", "--from", "2001-01-01").code, "NotFound");
    assert.match(place.fails(2, "feed", "v", "--limit", "0").message, /above 0/);
    assert.equal(place.fails(4, "feed", "nothing").code, "NotFound");
    assert.equal(existsSync(join(mount, "a")), true);
  });
});
