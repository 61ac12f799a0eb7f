// From the command at the peer to a group that is mounted there and takes a write, the owner killed before: with a
// thousand files, and with a million.

import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Figures, fill, timed } from "../ground.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { withSites } from "./ground.js";
import type { Wishes } from "./ground.js";

const SMALL_FILES = 1000;

export async function measureFailover(place: Place, wishes: Wishes): Promise<Figure[]> {
  const figures = new Figures();
  await withSites(place, { north: "3GiB", south: "2GiB" }, async (sites) => {
    const { north, south } = sites;
    const sizes = { small: SMALL_FILES, large: wishes.files };
    for (const [name, files] of Object.entries(sizes)) {
      await fill(await north.addVolume(name, 2), files, place.say);
      await sites.protect(name);
      const seconds = (await timed(() => sites.caughtUp(name))) / 1000;
      place.say(`${name}: the first sync took ${seconds.toFixed(1)} s`);
      figures.note(`failover-first-sync-${name}`, 0, seconds);
    }
    await north.kill();
    const took = { small: NaN, large: NaN };
    for (const name of ["large", "small"] as const) {
      took[name] =
        (await timed(async () => {
          const target = `${name}-copy`;
          await south.client.post("/v1/failovers", { target, mode: "unplanned", yes: true });
          const mount = await south.mountAt(join(south.folder, `mnt-${name}`), target);
          const file = openSync(join(mount, "written"), "w");
          writeSync(file, "here");
          fsyncSync(file);
          closeSync(file);
        })) / 1000;
      figures.note(`failover-${name}`, 0, took[name]);
    }
    figures.note("failover-ratio", 0, took.large / took.small);
  });
  return figures.all;
}
