// What the benches of two sites are asked for, and the two daemons that they begin with.

import { rmSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { PeerAnswer, PeerInviteAnswer, ProtectionAnswer } from "../../src/daemon/protocol.js";
import { Daemon, detachBelow, until } from "../daemon.js";
import { ending } from "../ground.js";
import type { Place } from "../special.js";

export interface Wishes {
  /** Of writing while the lag is looked at. */
  minutes: number;
  /** MiB/s that are changed meanwhile. */
  rate: number;
  /** A slice of fsynced writes. */
  sliceSeconds: number;
  /** The peer is stopped for so long. */
  stopSeconds: number;
  /** A narrow line carries less than is changed for so long. */
  lineSeconds: number;
  /** GiB of the file of which one block is changed. */
  wireGib: number;
  /** Of the large group that fails over. */
  files: number;
  /** Recovery points at the peer. */
  points: number;
}

export const FULL: Wishes = {
  minutes: 10,
  rate: 50,
  sliceSeconds: 5,
  stopSeconds: 60,
  lineSeconds: 60,
  wireGib: 1,
  files: 1_000_000,
  points: 1000,
};

/** Whether everything works; the figures mean nothing. */
export const QUICK: Wishes = {
  minutes: 0.25,
  rate: 20,
  sliceSeconds: 1,
  stopSeconds: 5,
  lineSeconds: 8,
  wireGib: 0.0625,
  files: 5000,
  points: 30,
};

const CONNECT_MS = 15_000;
const CATCH_UP_MS = 10 * 60_000;
const LOOK_MS = 20;

export interface Making {
  /** Of each of the three drives, here and there. */
  north: string;
  south: string;
  /** Where the peer lies, if not beside the owner. */
  southFolder?: string;
  /** YAML besides who the sites are. */
  config?: string;
  /** What the peer is reached by instead of its own port; given that port. */
  line?: (port: number) => Promise<number>;
}

/** Two daemons that are peers, each as `npm start` makes it. Bulk and heartbeats go over one session, north calls. */
export class Sites {
  constructor(
    readonly north: Daemon,
    readonly south: Daemon,
  ) {}

  /** With an RPO of 1 s and one copy there, if nothing else is asked for. */
  async protect(target: string, request: object = {}): Promise<void> {
    const [peer] = await this.north.client.get<PeerAnswer[]>("/v1/peers");
    const usual = { target, peer: peer?.name, rpo: "1s", rf: 1, name: `${target}-copy` };
    await this.north.client.post("/v1/protections", { ...usual, ...request });
  }

  async protection(group: string): Promise<ProtectionAnswer> {
    const all = await this.north.client.get<ProtectionAnswer[]>("/v1/protections");
    const found = all.find((one) => one.group === group);
    if (found === undefined) throw new Error(`${group} is not protected`);
    return found;
  }

  /** The peer has everything that was written before; how it stands then. */
  async caughtUp(group: string): Promise<ProtectionAnswer> {
    const begun = performance.now();
    await until(
      CATCH_UP_MS,
      `the peer does not catch up with ${group}`,
      async () => {
        // Its newest point was cut after this began. Operations of the owner's own housekeeping are no sign: nobody sends them.
        const { link, lag } = await this.protection(group);
        return link === "up" && lag.rpoMs !== null && lag.rpoMs < performance.now() - begun;
      },
      LOOK_MS,
    );
    return await this.protection(group);
  }
}

/** Both end, and their folders go, whatever happens. */
export async function withSites<T>(
  place: Place,
  making: Making,
  act: (sites: Sites) => Promise<T>,
): Promise<T> {
  const { root, folder } = place;
  const there = making.southFolder ?? join(folder, "south");
  try {
    const port = await freePort();
    const reached = (await making.line?.(port)) ?? port;
    const listen = `listen: "127.0.0.1:${port}", advertise: "127.0.0.1:${reached}"`;
    const base = `log: {level: error}\n${making.config ?? ""}`;
    const configs = {
      north: `${base}replication: {site: north}\n`,
      south: `${base}replication: {site: south, ${listen}}\n`,
    };
    const start = (at: string, site: "north" | "south") =>
      Daemon.start(root, at, { config: configs[site], size: making[site] });
    return await ending(await start(join(folder, "north"), "north"), async (north) =>
      ending(await start(there, "south"), async (south) => {
        await pair(north, south);
        return act(new Sites(north, south));
      }),
    );
  } finally {
    for (const at of [folder, there]) {
      detachBelow(at);
      rmSync(at, { recursive: true, force: true });
    }
  }
}

async function pair(north: Daemon, south: Daemon): Promise<void> {
  const invite = { listen: "127.0.0.1:0" };
  const made = await south.client.post<PeerInviteAnswer>("/v1/peers/invite", invite);
  await north.client.post("/v1/peers/join", { invite: made.invite });
  await until(CONNECT_MS, "the sites do not connect", async () => {
    const [peer] = await north.client.get<PeerAnswer[]>("/v1/peers");
    return peer?.connected === true;
  });
}

/** A port on which nothing listened just now. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done, fail) => server.on("error", fail).listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((done) => server.close(() => done()));
  return port;
}
