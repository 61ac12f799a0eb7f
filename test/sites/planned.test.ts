// Planned changes of owner between two real daemons over a slow line: under load, given up on the way, and with either
// side killed at the moments that count. handover.test.ts has all the others.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, readSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Interface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type {
  ErrorBody,
  PeerAnswer,
  PeerInviteAnswer,
  PlannedAnswer,
  ProtectionAnswer,
  SnapshotAnswer,
  VolumeAnswer,
} from "../../src/daemon/protocol.js";
import { FREEZE_MS, LEAVE_MS } from "../../src/nearsync-lws/limits.js";
import { MAIN, Place, ROOT, mountsBelow, run, until, without } from "../daemon-fixture.js";
import { configOf, isCutAfter, sameThere } from "./pair.js";
import { SlowLine } from "./slow-line.js";
import { RECORD_BYTES, record } from "./writer.js";
import type { WriterReport } from "./writer.js";

/** One way. A round of copying has to be over in less than `LITTLE_MS`. */
const DELAY_MS = 60;
const GROUPS = ["s", "t", "u", "v", "w", "x", "y", "z"] as const;
const RECORDS_MAX = 20_000;
const WRITER = fileURLToPath(new URL("writer.js", import.meta.url));
const MAPPED_BYTES = 256 * 1024;
const EIO = 5;
const EROFS = 30;

/** A program that is talked to in lines. */
class Talking {
  /** All of them: one that a failed test has left keeps this process from ending. */
  static readonly children = new Set<ChildProcess>();
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(program: string, args: string[]) {
    this.#child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    Talking.children.add(this.#child);
    const reader: Interface = createInterface({ input: this.#child.stdout as NodeJS.ReadableStream });
    this.#lines = reader[Symbol.asyncIterator]();
  }

  async hear(): Promise<string> {
    const next = await this.#lines.next();
    assert.ok(next.done !== true, "it has ended");
    return next.value;
  }

  async say(line: string): Promise<string> {
    this.#child.stdin?.write(`${line}\n`);
    return await this.hear();
  }

  end(): void {
    this.#child.stdin?.end();
  }
}

/** What a command said: all of it, and what of that it complained of. */
interface Said {
  code: number;
  text: string;
  complaint: string;
}

describe("a planned change of owner", { skip: without("cc") }, () => {
  const [a, b] = [new Place(), new Place()];
  let line: SlowLine | undefined;
  let program = "";

  const at = (place: Place, group: string) => join(place.folder, `m-${group}`);
  const lineNow = (): SlowLine => {
    assert.ok(line !== undefined);
    return line;
  };
  /** Not `json`: the line runs in this process, and must not stand still. */
  const command = async (place: Place, ...args: string[]): Promise<Said> => {
    const child = spawn(process.execPath, [MAIN, ...args, "--json"], {
      env: { ...process.env, HOLDFAST_STATE: place.state },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const said: Said = { code: 0, text: "", complaint: "" };
    child.stdout.setEncoding("utf8").on("data", (part: string) => (said.text += part));
    child.stderr.setEncoding("utf8").on("data", (part: string) => {
      said.text += part;
      said.complaint += part;
    });
    const [code] = (await once(child, "close")) as [number];
    return { ...said, code };
  };
  const fails = async (place: Place, code: number, ...args: string[]): Promise<ErrorBody> => {
    const result = await command(place, ...args);
    assert.equal(result.code, code, `${args.join(" ")}: ${result.text}`);
    return JSON.parse(result.complaint) as ErrorBody;
  };
  const planned = async (place: Place, ...args: string[]): Promise<PlannedAnswer> => {
    const { code, text } = await command(place, "failover", ...args, "--planned");
    assert.equal(code, 0, `${text}\n${a.log}\n${b.log}`);
    return JSON.parse(text) as PlannedAnswer;
  };
  const logged = (place: Place, group: string, words: string) =>
    until(`${group}: ${words}`, () =>
      place.log.split("\n").some((text) => text.includes(`"group":"${group}"`) && text.includes(words)),
    );
  /** The peer has everything that was written before. */
  const caughtUp = async (group: string, owner = a): Promise<void> => {
    const since = performance.now();
    await until(`${group} is there`, async () => {
      const asked = performance.now();
      const { text } = await command(owner, "protect", "list");
      const told = (JSON.parse(text) as ProtectionAnswer[]).find((one) => one.group === group);
      return isCutAfter(since, asked, told);
    });
  };
  /** Nobody told it to: it is sent what the owner of now does. */
  const follows = async (follower: Place, group: string, owner: Place): Promise<void> => {
    await until(`${group} is followed`, async () => {
      const shown = await command(follower, "volume", "show", group);
      if (shown.code !== 0 || (JSON.parse(shown.text) as VolumeAnswer).replicaOf === null) return false;
      const { text } = await command(owner, "protect", "list");
      return (JSON.parse(text) as ProtectionAnswer[]).some((one) => one.group === group);
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${a.log}\n${b.log}`, { cause: error });
    });
    await caughtUp(group, owner);
  };
  /** At the former owner: read-only as long as somebody uses the mount, then it ends. */
  const takesNothing = (group: string): void => {
    const file = join(at(a, group), "too late");
    try {
      writeFileSync(file, "");
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "EROFS");
      return;
    }
    assert.ok(!mountsBelow(a.folder).includes(at(a, group)), "it was written to");
    rmSync(file);
  };
  /** It is the owner: it can be mounted and written to. */
  const owns = (place: Place, group: string): string => {
    const [dir = ""] = place.folders(`m-${group}`);
    place.json("mount", group, dir);
    writeFileSync(join(dir, "of the new owner"), group);
    return dir;
  };

  before(async () => {
    // Only north calls, and only over the line.
    writeFileSync(configOf(a), "replication: {site: north}\n");
    writeFileSync(configOf(b), 'replication: {site: south, listen: "127.0.0.1:0"}\n');
    await a.start({ config: configOf(a) });
    await b.start({ config: configOf(b) });
    const made = a.json<PeerInviteAnswer>("peer", "pair", "--invite", "--listen", "127.0.0.1:0");
    b.json("peer", "pair", made.invite);
    const [listen = ""] = a.json<PeerAnswer[]>("peer", "list")[0]?.addresses ?? [];
    writeFileSync(configOf(b), `replication: {site: south, listen: "${listen}"}\n`);
    line = await SlowLine.open(listen, DELAY_MS);
    a.json("peer", "set", "south", "--address", line.address);
    assert.equal(await a.stop(), 0);
    await a.start({ config: configOf(a) });
    for (const [place, pool] of [
      [a, "p"],
      [b, "q"],
    ] as const) {
      const [drive = ""] = place.folders("d");
      place.json("pool", "create", pool, "--size", "256MiB", "--drive", drive);
    }
    for (const group of GROUPS) {
      a.json("volume", "create", group, "--pool", "p", "--rf", "1");
      const [dir = ""] = a.folders(`m-${group}`);
      // Requests are parked at either door.
      a.json("mount", group, dir, "--transport", group === "w" ? "dev" : "auto");
      writeFileSync(join(dir, "file"), `of ${group}`);
      assert.equal((await command(a, "protect", group, "--to", "south", "--rpo", "400ms")).code, 0);
    }
    program = join(a.folder, "mapped");
    run("cc", ["-O1", "-Wall", "-Werror", "-o", program, join(ROOT, "test/sites/mapped.c")]);
  });
  after(async () => {
    line?.close();
    for (const child of Talking.children) child.kill("SIGKILL");
    await a.remove();
    await b.remove();
  });

  it("says what is wrong with a request", async () => {
    await caughtUp("v");
    const bad: [Place, number, string, ...string[]][] = [
      [a, 2, "--planned --to south", "failover", "v", "--planned"],
      [a, 4, "no peer east", "failover", "v", "--planned", "--to", "east"],
      [a, 2, "add --planned", "failover", "v", "--to", "south"],
      [a, 2, "different things", "failover", "v", "--planned", "--unplanned"],
    ];
    for (const [place, code, words, ...args] of bad) {
      const error = await fails(place, code, ...args);
      assert.ok(`${error.message} ${error.hint}`.includes(words), `${args.join(" ")}: ${error.message}`);
    }
    assert.deepEqual((await planned(b, "v", "--to", "north")).owner, "north");
    await command(a, "volume", "create", "alone", "--pool", "p", "--rf", "1");
    const alone = await fails(a, 4, "failover", "alone", "--planned", "--to", "south");
    assert.match(alone.hint, /protect alone --to south/);
    await command(a, "peer", "set", "south", "--role", "read");
    assert.match((await fails(b, 9, "failover", "v", "--planned")).message, /role may-own/);
    await command(
      a,
      "peer",
      "set",
      "south",
      "--role",
      "may-own",
      "--role",
      "replica-write",
      "--role",
      "read",
    );
    writeFileSync(join(at(a, "v"), "file"), "an owner's still");
  });

  it("loses nothing that was acknowledged under load, nor what was changed through a mapping", async () => {
    const mapped = new Talking(program, [join(at(a, "v"), "mapped")]);
    const writer = new Talking(process.execPath, [WRITER, join(at(a, "v"), "log"), `${RECORDS_MAX}`]);
    assert.equal(await writer.hear(), "writing");
    assert.equal(await mapped.say("store a"), "stored");
    await caughtUp("v");
    assert.equal(await mapped.say("store b"), "stored");
    const done = await planned(b, "v");
    assert.deepEqual([done.group, done.already, done.owner], ["v", false, null]);
    const { acknowledged, error } = JSON.parse(await writer.hear()) as WriterReport;
    assert.equal(error, "EROFS");
    assert.ok(acknowledged > 0 && acknowledged < RECORDS_MAX);
    const there = owns(b, "v");
    const log = readFileSync(join(there, "log"));
    assert.equal(log.length, acknowledged * RECORD_BYTES);
    for (let number = 0; number < acknowledged; number += 1) {
      const found = log.subarray(number * RECORD_BYTES, (number + 1) * RECORD_BYTES);
      assert.ok(found.equals(record(number)), `record ${number}`);
    }
    assert.ok(readFileSync(join(there, "mapped")).equals(Buffer.alloc(MAPPED_BYTES, "b")));
    // What comes later is refused, and who asks is told.
    assert.equal(await mapped.say("store c"), "stored");
    const errno = Number(await mapped.say("sync"));
    assert.ok([EIO, EROFS].includes(errno), `msync: ${errno}`);
    // Who has it open reads on; when nobody has, the mount ends.
    assert.ok(readFileSync(join(at(a, "v"), "mapped")).length === MAPPED_BYTES);
    mapped.end();
    await until("the mount ends", () => !mountsBelow(a.folder).includes(at(a, "v")));
    takesNothing("v");
    const [again, here] = [await planned(b, "v"), await planned(a, "v", "--to", "south")];
    assert.deepEqual([again.already, again.owner, again.lsn], [true, null, done.lsn]);
    assert.deepEqual([here.already, here.owner], [true, "south"]);
    await follows(a, "v", b);
    sameThere(a, there);
    assert.deepEqual(a.json("fork", "list"), []);
  });

  it("stays done when the former owner is killed", async () => {
    await a.stop("SIGKILL");
    await a.start({ config: configOf(a) });
    takesNothing("v");
    assert.equal((await fails(a, 8, "mount", "v", a.folders("again")[0] ?? "")).code, "Fenced");
    assert.equal((await planned(a, "v", "--to", "south")).already, true);
    writeFileSync(join(at(b, "v"), "later"), "goes on");
    await follows(a, "v", b);
    sameThere(a, at(b, "v"));
  });

  it("goes back and there again, and nobody gives another command", async () => {
    const before = record(0);
    writeFileSync(join(at(b, "v"), "kept"), before);
    await command(b, "snapshot", "create", "v", "kept");
    writeFileSync(join(at(b, "v"), "kept"), "changed since");
    for (const [from, to, round] of [
      [b, a, 1],
      [a, b, 2],
      [b, a, 3],
    ] as const) {
      const name = `round-${round}`;
      const writer = new Talking(process.execPath, [WRITER, join(at(from, "v"), name), `${RECORDS_MAX}`]);
      assert.equal(await writer.hear(), "writing");
      await caughtUp("v", from);
      assert.equal((await planned(to, "v")).already, false);
      const { acknowledged, error } = JSON.parse(await writer.hear()) as WriterReport;
      assert.equal(error, "EROFS");
      const there = owns(to, "v");
      const log = readFileSync(join(there, name));
      assert.equal(log.length, acknowledged * RECORD_BYTES);
      for (let number = 0; number < acknowledged; number += 1) {
        const found = log.subarray(number * RECORD_BYTES, (number + 1) * RECORD_BYTES);
        assert.ok(found.equals(record(number)), `${name}, record ${number}`);
      }
      await follows(from, "v", to);
      sameThere(from, there);
      assert.deepEqual([...from.json<[]>("fork", "list"), ...to.json<[]>("fork", "list")], []);
      // The past stays where it is, whoever the owner is.
      for (const place of [a, b]) {
        const names = place.json<SnapshotAnswer[]>("snapshot", "list", "v").map(({ name }) => name);
        assert.deepEqual(names, ["kept"]);
      }
      assert.ok(readFileSync(join(there, ".holdfast/snapshots/kept/kept")).equals(before));
    }
  });

  it("ends a mount that somebody uses after a while, and can be told to do so at once", async () => {
    await caughtUp("t");
    const [held, yielded] = ["t", "s"].map((group) => openSync(join(at(a, group), "file"), "r"));
    assert.ok(held !== undefined && yielded !== undefined);
    await planned(a, "t", "--to", "south");
    const given = performance.now();
    const file = Buffer.alloc(4);
    assert.equal(readSync(held, file, 0, 4, 0), 4);
    await follows(a, "t", b);
    assert.ok(performance.now() - given >= LEAVE_MS);
    assert.ok(!mountsBelow(a.folder).includes(at(a, "t")));
    await caughtUp("s");
    await planned(a, "s", "--to", "south");
    const asked = performance.now();
    assert.match(
      (await fails(a, 10, "failover", "s", "--yield")).message,
      /gives s up to south: its mounts end/,
    );
    const { code, text } = await command(a, "failover", "s", "--yield", "--yes");
    assert.equal(code, 0, text);
    await follows(a, "s", b);
    assert.ok(performance.now() - asked < LEAVE_MS);
    for (const fd of [held, yielded]) closeSync(fd);
    const notes = () =>
      JSON.parse(readFileSync(join(a.state, "handovers.json"), "utf8")) as { list: unknown[] };
    await until("nothing is noted any more", () => notes().list.length === 0);
  });

  it("is given up when the peer stops answering, and writers saw a pause only", async () => {
    await caughtUp("w");
    const writer = new Talking(process.execPath, [WRITER, join(at(a, "w"), "log"), `${RECORDS_MAX}`]);
    assert.equal(await writer.hear(), "writing");
    const given = command(a, "failover", "w", "--planned", "--to", "south");
    await logged(a, "w", '"phase":"shipping"');
    lineNow().hold();
    const asked = performance.now();
    assert.throws(() => statSync(join(at(a, "w"), "nothing")), { code: "ENOENT" });
    assert.equal(readFileSync(join(at(a, "w"), "file"), "utf8"), "of w");
    assert.ok(performance.now() - asked < FREEZE_MS / 2, "who only looks waits, too");
    const { code, text } = await given;
    lineNow().letGo();
    assert.equal(code, 3, text);
    assert.match(text, /writers go on here, nothing has changed/);
    writeFileSync(join(at(a, "w"), "file"), "an owner's still");
    await caughtUp("w");
    writer.end();
    const { acknowledged, error, longestMs } = JSON.parse(await writer.hear()) as WriterReport;
    assert.equal(error, "");
    assert.ok(longestMs >= FREEZE_MS / 2, `nobody waited: ${longestMs} ms`);
    assert.equal(statSync(join(at(a, "w"), "log")).size, acknowledged * RECORD_BYTES);
    const done = await planned(a, "w", "--to", "south");
    assert.deepEqual([done.already, done.owner], [false, "south"]);
    assert.ok(done.waitedMs !== null);
    const there = owns(b, "w");
    assert.equal(readFileSync(join(there, "file"), "utf8"), "an owner's still");
    assert.equal(statSync(join(there, "log")).size, acknowledged * RECORD_BYTES);
  });

  it("goes on when the owner was killed after it gave the group away", async () => {
    await caughtUp("x");
    const given = command(a, "failover", "x", "--planned", "--to", "south");
    await logged(a, "x", '"phase":"granting"');
    lineNow().cut();
    await a.stop("SIGKILL");
    assert.notEqual((await given).code, 0);
    await a.start({ config: configOf(a) });
    takesNothing("x");
    assert.match(a.cli("status").stdout, /x was given to south and is read-only here/);
    assert.equal(b.fails(8, "mount", "x", b.folders("m-x")[0] ?? "").code, "Fenced");
    lineNow().mend();
    await logged(b, "x", "taken over");
    assert.equal(readFileSync(join(owns(b, "x"), "file"), "utf8"), "of x");
    assert.equal((await planned(a, "x", "--to", "south")).owner, "south");
  });

  it("goes on when the peer was killed before it heard of its grant, and after it took it", async () => {
    for (const [group, place, words] of [
      ["y", a, '"phase":"granting"'],
      ["z", b, "taken over"],
    ] as const) {
      await caughtUp(group);
      const given = command(a, "failover", group, "--planned", "--to", "south");
      await logged(place, group, words);
      lineNow().cut();
      await b.stop("SIGKILL");
      await b.start({ config: configOf(b) });
      assert.match(a.cli("status").stdout, new RegExp(`${group} was given to south`));
      lineNow().mend();
      const { code, text } = await given;
      assert.ok(code === 0 || code === 3, text);
      assert.equal((await planned(a, group, "--to", "south")).owner, "south");
      assert.equal(readFileSync(join(owns(b, group), "file"), "utf8"), `of ${group}`);
      takesNothing(group);
    }
  });

  it("can be taken back when the peer never took it", async () => {
    await caughtUp("u");
    const given = command(a, "failover", "u", "--planned", "--to", "south");
    await logged(a, "u", '"phase":"granting"');
    lineNow().cut();
    const asked = await fails(a, 10, "failover", "u", "--unplanned");
    assert.match(asked.message, /given to another site.* two owners/);
    const done = await command(a, "failover", "u", "--unplanned", "--yes");
    assert.equal(done.code, 0, done.text);
    assert.equal((await given).code, 5);
    lineNow().mend();
    writeFileSync(join(at(a, "u"), "file"), "taken back");
    assert.equal(readFileSync(join(at(a, "u"), "file"), "utf8"), "taken back");
    // It is another epoch, which the peer takes up by itself.
    await follows(b, "u", a);
    sameThere(b, at(a, "u"), "u");
    assert.deepEqual([...a.json<[]>("fork", "list"), ...b.json<[]>("fork", "list")], []);
  });
});
