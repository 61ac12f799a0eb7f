// Two sites as the tests begin with them.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type {
  PeerAnswer,
  PeerInviteAnswer,
  ProtectionAnswer,
  VolumeAnswer,
} from "../../src/daemon/protocol.js";
import { run, until } from "../daemon-fixture.js";
import type { Place } from "../daemon-fixture.js";

export const configOf = (place: Place): string => join(place.folder, "config.yaml");

/** Two daemons, `north` and `south`, each of which listens somewhere. */
export async function startSites(north: Place, south: Place): Promise<void> {
  for (const [place, site] of [
    [north, "north"],
    [south, "south"],
  ] as const) {
    writeFileSync(configOf(place), `replication: {site: ${site}, listen: "127.0.0.1:0"}\n`);
    await place.start({ config: configOf(place) });
  }
}

export function pair(host: Place, guest: Place): void {
  const made = host.json<PeerInviteAnswer>("peer", "pair", "--invite", "--listen", "127.0.0.1:0");
  guest.json("peer", "pair", made.invite);
}

export async function connected(place: Place, count: number): Promise<void> {
  await until("the peers are connected", () => {
    return place.json<PeerAnswer[]>("peer", "list").filter((peer) => peer.connected).length === count;
  });
}

/** Two such sites as peers, which are connected when it returns. */
export async function startPeers(north: Place, south: Place): Promise<void> {
  await startSites(north, south);
  pair(north, south);
  await until("they are connected", () => north.json<PeerAnswer[]>("peer", "list")[0]?.connected === true);
}

/** From the next start on each listens where the other looks for it; `more`: YAML for a site beside that. */
export function stayThere(north: Place, south: Place, more: { north?: string } = {}): void {
  for (const [place, other, site] of [
    [north, south, "north"],
    [south, north, "south"],
  ] as const) {
    const [listen] = other.json<PeerAnswer[]>("peer", "list")[0]?.addresses ?? [];
    const beside = place === north ? (more.north ?? "") : "";
    writeFileSync(configOf(place), `replication: {site: ${site}, listen: "${listen}"}\n${beside}`);
  }
}

/** Whether what the peer has of a group was cut after that moment, as `protect list` says that was asked at `asked`. */
export function isCutAfter(since: number, asked: number, told: ProtectionAnswer | undefined): boolean {
  return told?.link === "up" && told.lag.rpoMs !== null && asked - told.lag.rpoMs > since;
}

/** What the peer has of a group was cut after now: all that is written is there. On failure `others` tell, too. */
export async function caughtUp(
  owner: Place,
  { group = "v", others = [], deadlineMs }: { group?: string; others?: Place[]; deadlineMs?: number } = {},
): Promise<void> {
  const since = performance.now();
  let told: ProtectionAnswer | undefined;
  const look = () => {
    const asked = performance.now();
    told = owner.json<ProtectionAnswer[]>("protect", "list").find((one) => one.group === group);
    assert.ok(told !== undefined, `${group} is not protected`);
    return isCutAfter(since, asked, told);
  };
  await until("the peer has everything", look, deadlineMs).catch((error: unknown) => {
    const logs = [owner, ...others].map(({ log }) => log).join("\n");
    throw new Error(`${String(error)}\n${JSON.stringify(told)}\n${logs}`, { cause: error });
  });
}

/** The newest recovery point of the replica is what its owner's mount shows. */
export function sameThere(follower: Place, mounted: string, group = "v"): void {
  const [seen = ""] = follower.folders("seen");
  const { localLsn = 0 } = follower.json<VolumeAnswer>("volume", "show", group).replicaOf ?? {};
  follower.json("mount", group, seen, "--at", `lsn:${localLsn}`);
  try {
    run("diff", ["-r", mounted, seen]);
  } finally {
    follower.json("umount", seen);
  }
}
