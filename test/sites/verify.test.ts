// Two real daemons that prove to each other that they have the same, while writes go on; and what is wrong at the
// replica is found, named and repaired, whichever site asks.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type {
  PeerAnswer,
  ProtectionAnswer,
  VerificationAnswer,
  VolumeAnswer,
} from "../../src/daemon/protocol.js";
import { EXIT_CODES } from "../../src/daemon/protocol.js";
import { Place, metricsOf, run, until } from "../daemon-fixture.js";
import { PAGE, flipBit, forEachPage, makePage } from "../e2e/slab-pages.js";
import type { PageAddress } from "../e2e/slab-pages.js";
import { configOf, startPeers, stayThere } from "./pair.js";

const PAGES = 400;
const MARK = "verified";
/** Small files that are made and removed meanwhile: a count, and a pause between them. */
const WRITER =
  'for i in $(seq 1 300); do echo "$i" > "$0/w$((i % 20))"; rm -f "$0/w$((i * 7 % 20))"; sleep 0.01; done';

describe("verify", () => {
  const [a, b] = [new Place(), new Place()];
  let [mount, seen, drive] = ["", "", ""];

  const verified = (): VerificationAnswer => {
    const [only] = a.json<ProtectionAnswer[]>("protect", "list");
    assert.ok(only?.verified != null, "it was compared");
    return only.verified;
  };
  /** The newest page of the drive that says which it is. */
  const page = (number: number): PageAddress[] => {
    const wanted = makePage(MARK, 1, number);
    const found: PageAddress[] = [];
    forEachPage(drive, (address, bytes) => void (bytes.equals(wanted) && found.push(address)));
    return found;
  };

  before(async () => {
    await startPeers(a, b);
    stayThere(a, b);
    mount = await a.provision({ drives: 2, rf: 2 });
    [drive = "", seen = ""] = b.folders("e1", "seen");
    b.json("pool", "create", "q", "--size", "512MiB", "--drive", drive);
    const pages = Array.from({ length: PAGES }, (_none, number) => makePage(MARK, 1, number));
    writeFileSync(join(mount, "pages"), Buffer.concat(pages));
    run("bash", [
      "-c",
      'mkdir "$0/d" && cp --reflink=auto "$0/pages" "$0/d/copy" && ln "$0/pages" "$0/hard"',
      mount,
    ]);
  });
  after(async () => {
    await a.remove();
    await b.remove();
  });

  it("says what is wrong with a request", () => {
    assert.match(a.fails(2, "verify", "v").message, /--peer/);
    assert.match(a.fails(4, "verify", "v", "--peer", "south").message, /not protected to south/);
    assert.match(a.fails(4, "verify", "v", "--peer", "x").message, /no peer x/);
    a.json("protect", "v", "--to", "south", "--rpo", "500ms", "--rf", "1");
    assert.match(a.fails(4, "verify", "v", "--peer", "south", "--last").message, /never compared/);
  });

  it("finds both equal while writes go on, at either site", async () => {
    await until(
      "the peer has something",
      () => a.json<ProtectionAnswer[]>("protect", "list")[0]?.has != null,
    );
    const writer = spawn("bash", ["-c", WRITER, mount], { stdio: "ignore" });
    const ended = new Promise((resolve) => writer.once("exit", resolve));
    let points = 0;
    for (let last = 0; writer.exitCode === null && points < 6; points += 1) {
      const told = a.json<VerificationAnswer>("verify", "v", "--peer", "south");
      assert.deepEqual([told.state, told.found, told.mismatches], ["equal", 0, []], a.log);
      assert.ok(told.entries > PAGES && told.lsn >= last, JSON.stringify(told));
      last = told.lsn;
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(points > 0, "the writer went on meanwhile");
    await ended;
    const there = b.json<VerificationAnswer>("verify", "v", "--peer", "north");
    assert.deepEqual([there.state, there.group, there.peer], ["equal", "v", "north"], b.log);
    assert.match(b.cli("verify", "v", "--peer", "north", "--last").stdout, /are equal: \d+ entries/);
    await until("the owner has noted it", () => verified().lsn >= there.lsn && verified().state === "equal");
  });

  it("finds what has rotted at the replica, names it, and repairs it from either site", async () => {
    for (const [number, repairs] of [
      [77, a],
      [123, b],
    ] as const) {
      const peer = repairs === a ? "south" : "north";
      await b.stop();
      const hit = page(number);
      assert.ok(hit.length > 0, "the page is on the drive");
      for (const address of hit) flipBit(address, 2000);
      await b.start({ config: configOf(b) });
      await until("it is connected", () => a.json<PeerAnswer[]>("peer", "list")[0]?.connected === true);
      await until("it is known", () => b.cli("verify", "v", "--peer", "north", "--last").code === 0);
      const found = repairs.cli("verify", "v", "--peer", peer, "--json");
      assert.equal(found.code, EXIT_CODES.Different, `${found.stdout}${found.stderr}\n${a.log}\n${b.log}`);
      const told = JSON.parse(found.stdout) as VerificationAnswer;
      const places = told.mismatches.map(({ path, kind, what, range }) => [
        path,
        kind,
        what,
        range?.offset,
        range?.length,
      ]);
      const wrong = (path: string) => [path, "unreadable at the replica", "bytes", number * PAGE, PAGE];
      assert.deepEqual(places.sort(), [wrong("d/copy"), wrong("pages")].slice(2 - told.mismatches.length));
      assert.ok(told.mismatches.length === told.found && told.found >= 1);
      await until("it is noted", () => verified().state === "different");
      assert.match(a.status().warnings.join("\n"), /group v at south is not what is here: \d difference/);
      assert.match(await metricsOf(a.state), /protection_differences\{group="v",peer="south"\} [12]/);
      const repaired = repairs.json<VerificationAnswer>("verify", "v", "--peer", peer, "--repair");
      assert.deepEqual([repaired.state, repaired.left], ["repaired", 0], `${a.log}\n${b.log}`);
      assert.equal(repairs.json<VerificationAnswer>("verify", "v", "--peer", peer).state, "equal");
    }
    const replica = b.json<VolumeAnswer[]>("volume", "list").find(({ name }) => name === "v");
    b.json("mount", "v", seen, "--at", `lsn:${replica?.replicaOf?.localLsn}`);
    assert.ok(readFileSync(join(seen, "pages")).equals(readFileSync(join(mount, "pages"))));
    b.json("umount", seen);
    await until(
      "nothing is wrong any more",
      () => !a.status().warnings.join("\n").includes("not what is here"),
    );
  });

  it("is done by itself, and what was missed is made up for", async () => {
    const before = verified().started;
    await a.stop();
    const listen = b.json<PeerAnswer[]>("peer", "list")[0]?.addresses[0] ?? "";
    writeFileSync(configOf(a), `replication: {site: north, listen: "${listen}", verify: {every: 1s}}\n`);
    await a.start({ config: configOf(a) });
    await until("it was compared again", () => verified().started > before && verified().state === "equal");
    assert.ok(verified().next !== null);
    await a.stop();
    writeFileSync(configOf(a), `replication: {site: north, listen: "${listen}", verify: {every: never}}\n`);
    await a.start({ config: configOf(a) });
    assert.equal(verified().next, null, "what was known is known");
  });
});
