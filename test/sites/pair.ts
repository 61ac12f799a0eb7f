// Two sites as the tests begin with them.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { PeerAnswer, PeerInviteAnswer } from "../../src/daemon/protocol.js";
import { until } from "../daemon-fixture.js";
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

/** The same as peers, which are connected when it returns. */
export async function startPeers(north: Place, south: Place): Promise<void> {
  await startSites(north, south);
  const made = north.json<PeerInviteAnswer>("peer", "pair", "--invite", "--listen", "127.0.0.1:0");
  south.json("peer", "pair", made.invite);
  await until("they are connected", () => north.json<PeerAnswer[]>("peer", "list")[0]?.connected === true);
}
