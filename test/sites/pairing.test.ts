// Two daemons become peers through the command line, scripted at both ends.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { PeerAnswer, PeerInviteAnswer } from "../../src/daemon/protocol.js";
import { MAIN, Place, until } from "../daemon-fixture.js";
import { startSites } from "./pair.js";

/** A verb that runs until it ends by itself; its lines of JSON so far. */
function background(place: Place, ...args: string[]) {
  const child = spawn(process.execPath, [MAIN, ...args, "--json"], {
    env: { ...process.env, HOLDFAST_STATE: place.state },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  const ended = new Promise<number | null>((done) => child.once("close", done));
  return { ended, lines: () => text.split("\n").filter((line) => line !== "") };
}

describe("pairing of two daemons", () => {
  const [a, b] = [new Place(), new Place()];
  before(async () => {
    await startSites(a, b);
  });
  after(async () => {
    await a.remove();
    await b.remove();
  });

  it("begins without peers", () => {
    assert.deepEqual(a.json("peer", "list"), []);
    assert.match(a.cli("peer", "list").stdout, /holdfast peer pair --invite/);
  });

  it("pairs: one waits, the other brings the invite", async () => {
    const waiting = background(a, "peer", "pair", "--invite", "--listen", "127.0.0.1:0", "--wait");
    const line = await until("the invite is printed", () => waiting.lines()[0]);
    const { invite, fingerprint, address } = JSON.parse(line) as PeerInviteAnswer;
    assert.match(address, /^127\.0\.0\.1:\d+$/);
    const atB = b.json<PeerAnswer>("peer", "pair", invite, "--name", "first", "--role", "read");
    assert.equal(atB.fingerprint, fingerprint);
    assert.deepEqual([atB.name, atB.roles], ["first", ["read"]]);
    assert.match(atB.addresses.join(" "), /^127\.0\.0\.1:[1-9]\d*$/);
    assert.equal(await waiting.ended, 0);
    const atA = JSON.parse(waiting.lines()[1] ?? "") as PeerAnswer;
    assert.deepEqual([atA.name, atA.roles], ["south", ["replica-write", "read", "may-own"]]);
    const connected = await until("they are connected", () => {
      const [[there], [here]] = [a.json<PeerAnswer[]>("peer", "list"), b.json<PeerAnswer[]>("peer", "list")];
      return there?.connected === true && here?.connected === true && there;
    });
    assert.deepEqual(connected, { ...atA, connected: true, problem: "" });
    for (const place of [a, b]) await until("noted", () => place.log.includes('"event":"peer paired"'));
    assert.equal(b.fails(3, "peer", "pair", invite).code, "Unavailable");
  });

  it("keeps the private key to itself", async () => {
    const file = join(a.state, "identity.json");
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const { privateKey } = JSON.parse(readFileSync(file, "utf8")) as { privateKey: string };
    const secret = privateKey.split("\n")[1] ?? "";
    assert.ok(secret.length === 64 && !a.log.includes(secret));
    assert.ok(!readFileSync(`/proc/${a.pid}/cmdline`, "utf8").includes(secret));
  });

  it("knows its peers after a restart; a key that others could read is refused", async () => {
    const known = () =>
      b.json<PeerAnswer[]>("peer", "list").map(({ name, fingerprint }) => [name, fingerprint]);
    const before = known();
    assert.equal(await b.stop(), 0);
    const atA = () => a.json<PeerAnswer[]>("peer", "list")[0];
    await until("the other side says so", () => atA()?.connected === false);
    await b.start();
    assert.deepEqual(known(), before);
    await until("they are connected", () => b.json<PeerAnswer[]>("peer", "list")[0]?.connected === true);
    chmodSync(join(b.state, "identity.json"), 0o644);
    const refused = b.fails(9, "peer", "pair", "--invite", "--listen", "127.0.0.1:0");
    assert.match(refused.message, /identity\.json can be read by others/);
    chmodSync(join(b.state, "identity.json"), 0o600);
  });

  it("renames, sets and removes them, with an audit line each", async () => {
    assert.equal(b.json<PeerAnswer>("peer", "rename", "first", "north").name, "north");
    const set = b.json<PeerAnswer>("peer", "set", "north", "--role", "admin", "--address", "[::1]:1");
    assert.deepEqual([set.roles, set.addresses], [["admin"], ["[::1]:1"]]);
    assert.equal(b.fails(10, "peer", "remove", "north").code, "NeedsYes");
    b.json("peer", "remove", "north", "--yes");
    await until(
      "the other side is let go",
      () => a.json<PeerAnswer[]>("peer", "list")[0]?.connected === false,
    );
    assert.deepEqual(b.json("peer", "list"), []);
    for (const event of ["peer removed", "peer changed"]) {
      await until(event, () => b.log.includes(`"event":"${event}"`));
    }
  });

  it("says what is wrong with a request, and changes nothing", () => {
    const known = () =>
      a.json<PeerAnswer[]>("peer", "list").map(({ name, roles, addresses }) => [name, roles, addresses]);
    const before = known();
    const bad: [number, string, ...string[]][] = [
      [2, "either", "peer", "pair"],
      [2, "either", "peer", "pair", "hf1.x", "--invite"],
      [2, "whole invite", "peer", "pair", "hf1.x"],
      [2, "HOST:PORT", "peer", "pair", "--invite", "--listen", "here"],
      [2, "role", "peer", "pair", "--invite", "--listen", "127.0.0.1:0", "--role", "king"],
      [2, "not a name", "peer", "rename", "south", "a/b"],
      [2, "nothing to set", "peer", "set", "south"],
      [2, "HOST:PORT", "peer", "set", "south", "--address", "x"],
      [4, "no peer x", "peer", "remove", "x", "--yes"],
      [4, "no peer x", "peer", "rename", "x", "y"],
    ];
    for (const [code, words, ...args] of bad) {
      const error = a.fails(code, ...args);
      assert.ok(`${error.message} ${error.hint}`.includes(words), `${args.join(" ")}: ${error.message}`);
    }
    assert.deepEqual(known(), before);
  });
});
