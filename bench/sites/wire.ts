// What goes over the wire for what was changed: the sender's own counter of bytes of batches (heartbeats apart), around
// one kind of change at a time.

import { randomBytes } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Figures, shuffled } from "../ground.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { withSites } from "./ground.js";
import type { Sites, Wishes } from "./ground.js";
import { makeFile } from "./writing.js";

const BLOCK = 4096;
const BLOCKS = 4096;
const SMALL_BYTES = 100;
const SMALLS = 2000;

export async function measureWire(place: Place, wishes: Wishes): Promise<Figure[]> {
  const figures = new Figures();
  await withSites(place, { north: "2GiB", south: "2GiB" }, async (sites) => {
    const mount = await sites.north.addVolume("data", 2);
    const path = join(mount, "file");
    const mib = Math.round(wishes.wireGib * 1024);
    makeFile(path, mib);
    await sites.protect("data");
    await sites.caughtUp("data");
    place.say("the first sync is done");
    const order = shuffled((mib * 2 ** 20) / BLOCK, 7);
    const blocks = order.slice(0, BLOCKS);
    const aligned = await sentBy(sites, () => overwrite(path, blocks, BLOCK));
    figures.note("wire-aligned", 0, aligned / (1.05 * blocks.length * BLOCK + 16 * blocks.length), {
      sent: aligned,
    });
    const smalls = order.slice(BLOCKS, BLOCKS + SMALLS);
    const small = await sentBy(sites, () => overwrite(path, smalls, SMALL_BYTES));
    figures.note("wire-small", 0, small / (smalls.length * (SMALL_BYTES + 128)), { sent: small });
    const one = await sentBy(sites, () => overwrite(path, order.slice(-1), BLOCK));
    figures.note("wire-one", 0, one / 1024);
  });
  return figures.all;
}

function overwrite(path: string, blocks: readonly number[], bytes: number): void {
  const file = openSync(path, "r+");
  for (const block of blocks) writeSync(file, randomBytes(bytes), 0, bytes, block * BLOCK);
  closeSync(file);
}

async function sentBy(sites: Sites, change: () => void): Promise<number> {
  const before = (await sites.caughtUp("data")).bytesSent;
  change();
  return (await sites.caughtUp("data")).bytesSent - before;
}
