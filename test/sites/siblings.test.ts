// Three real daemons: the owner sends to two, and dies. One of them goes on, and the other, which has more of it,
// follows that by itself once the two are peers; what it had more is a fork. The former owner comes back and follows,
// too. Then the group goes on in turns, as planned, and nobody has to be told.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type {
  FailoverAnswer,
  ForkAnswer,
  PeerAnswer,
  ProtectionAnswer,
  VolumeAnswer,
} from "../../src/daemon/protocol.js";
import { Place, until } from "../daemon-fixture.js";
import { configOf, connected, isCutAfter, pair, sameThere } from "./pair.js";

const RPO_MS = 400;

describe("two replicas of one owner", () => {
  const places = { north: new Place(), east: new Place(), west: new Place() };
  const { north, east, west } = places;
  const mounts = new Map<Place, string>();

  const start = (place: Place) => place.start({ config: configOf(place) });
  const sentFrom = (place: Place) => place.json<ProtectionAnswer[]>("protect", "list");
  const follows = (place: Place) => place.json<VolumeAnswer>("volume", "show", "v").replicaOf !== null;
  const forks = (place: Place) => place.json<ForkAnswer[]>("fork", "list");
  const told = (): string =>
    Object.values(places)
      .map(({ log }) => log)
      .join("\n");
  const caughtUp = async (owner: Place, peers: string[]): Promise<void> => {
    const since = performance.now();
    await until(`${peers.join(" and ")} have everything`, () => {
      const asked = performance.now();
      const sent = sentFrom(owner).filter(({ peer }) => peers.includes(peer));
      return sent.length === peers.length && sent.every((one) => isCutAfter(since, asked, one));
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${JSON.stringify(sentFrom(owner))}\n${told()}`, { cause: error });
    });
  };
  const mounted = (place: Place): string => mounts.get(place) ?? "";
  const mount = (place: Place) => {
    place.json("mount", "v", mounted(place));
  };

  before(async () => {
    for (const [site, place] of Object.entries(places)) {
      writeFileSync(configOf(place), `replication: {site: ${site}, listen: "127.0.0.1:0"}\n`);
      await start(place);
      const [dir = "", drive = ""] = place.folders("mnt", "d1");
      mounts.set(place, dir);
      place.json("pool", "create", "p", "--size", "512MiB", "--drive", drive);
    }
    pair(east, north);
    pair(west, north);
    await connected(north, 2);
    // From the next start on each listens where the others look for it.
    for (const [site, place] of Object.entries(places)) {
      const other = place === north ? east : north;
      const [listen] =
        other.json<PeerAnswer[]>("peer", "list").find(({ name }) => name === site)?.addresses ?? [];
      writeFileSync(configOf(place), `replication: {site: ${site}, listen: "${listen}"}\n`);
    }
    north.json("volume", "create", "v", "--pool", "p", "--rf", "1");
    mount(north);
    writeFileSync(join(mounted(north), "both"), "of north");
    for (const peer of ["east", "west"]) north.json("protect", "v", "--to", peer, "--rpo", `${RPO_MS}ms`);
    await caughtUp(north, ["east", "west"]);
  });
  after(async () => {
    for (const place of Object.values(places)) await place.remove();
  });

  it("says, at the one that goes on, what to type for the other", async () => {
    await east.stop("SIGKILL");
    writeFileSync(join(mounted(north), "ahead"), "of north, for west alone");
    await caughtUp(north, ["west"]);
    await north.stop("SIGKILL");
    await start(east);
    const { others } = east.json<FailoverAnswer>("failover", "v", "--unplanned", "--yes");
    assert.deepEqual(others, [{ site: "west", peer: null, isSent: false }]);
    const text = east.cli("failover", "v", "--unplanned", "--yes").stdout;
    assert.match(text, /here: holdfast peer pair --invite .*at west: holdfast peer pair INVITE/s);
    const warned = () => east.status().warnings.join("\n");
    assert.match(
      warned(),
      /group v: west has a replica, too, and is no peer of this site: holdfast peer pair/,
    );
    mount(east);
    writeFileSync(join(mounted(east), "new"), "of east");
    // Who knows better says so; that changes nothing for the other.
    east.json("unprotect", "v", "--to", "west");
    assert.equal(east.fails(4, "unprotect", "v", "--to", "west").code, "NotFound");
    assert.ok(!warned().includes("holdfast peer pair"));
    pair(east, west);
  });

  it("makes a fork of what the other has more, which follows then", async () => {
    await caughtUp(east, ["west"]);
    assert.equal(follows(west), true);
    sameThere(west, mounted(east));
    const [fork, ...more] = forks(west);
    assert.deepEqual([fork?.of, more], ["v", []]);
    west.json("mount", fork?.name ?? "", mounted(west));
    assert.equal(readFileSync(join(mounted(west), "ahead"), "utf8"), "of north, for west alone");
    west.json("umount", mounted(west));
    assert.deepEqual(
      sentFrom(east).map(({ peer, rpoMs }) => [peer, rpoMs]),
      [["west", RPO_MS]],
    );
  });

  it("is joined by the former owner, and everybody has the same", async () => {
    await start(north);
    await until("the former owner follows", () => follows(north)).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${north.status().warnings.join("\n")}\n${told()}`, { cause: error });
    });
    writeFileSync(join(mounted(east), "later"), "of east");
    await caughtUp(east, ["north", "west"]);
    for (const place of [north, west]) sameThere(place, mounted(east));
    assert.deepEqual([forks(north).length, forks(west).length], [1, 1]);
  });

  it("goes on as planned at one after the other, and nobody is told", async () => {
    const names = new Map(Object.entries(places).map(([name, place]) => [place, name]));
    for (const [from, to, third] of [
      [east, west, north],
      [west, north, east],
      [north, east, west],
    ] as const) {
      await until(`${names.get(to)} can be asked`, () => {
        const link = sentFrom(from).find(({ peer }) => peer === names.get(to))?.link;
        return link === "up";
      });
      writeFileSync(join(mounted(from), `at ${names.get(from)}`), "");
      to.json("failover", "v", "--planned");
      mount(to);
      writeFileSync(join(mounted(to), `then at ${names.get(to)}`), "");
      await until("both follow", () => follows(from) && follows(third)).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${told()}`, { cause: error });
      });
      await caughtUp(
        to,
        [from, third].map((place) => names.get(place) ?? ""),
      );
      for (const place of [from, third]) sameThere(place, mounted(to));
      assert.deepEqual([forks(north).length, forks(east).length, forks(west).length], [1, 0, 1]);
    }
  });
});
