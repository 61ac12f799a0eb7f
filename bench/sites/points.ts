// A thousand recovery points at the peer, and how long opening one of them takes, each for the first time.

import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { SnapshotAnswer } from "../../src/daemon/protocol.js";
import { Figures, timed } from "../ground.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { withSites } from "./ground.js";
import type { Wishes } from "./ground.js";
import { percentile } from "./writing.js";

const RPO = "400ms";
const STEP_MS = 100;
const LOOK_STEPS = 50;

export async function measureReplicaPoints(place: Place, wishes: Wishes): Promise<Figure[]> {
  const figures = new Figures();
  await withSites(place, { north: "1GiB", south: "1GiB" }, async (sites) => {
    const { north, south } = sites;
    const mount = await north.addVolume("data", 2);
    for (let file = 0; file < 100; file += 1) writeFileSync(join(mount, `f${file}`), `${file}`);
    await sites.protect("data", { rpo: RPO });
    const list = () =>
      south.client.get<SnapshotAnswer[]>("/v1/snapshots?target=data-copy&limit=10000&seconds=true");
    let points: SnapshotAnswer[] = [];
    for (let step = 0; points.length < wishes.points; step += 1) {
      writeFileSync(join(mount, `f${step % 100}`), `${step}`);
      await delay(STEP_MS);
      if (step % LOOK_STEPS !== 0) continue;
      points = await list().catch(() => []);
      place.say(`${points.length}/${wishes.points} points`);
    }
    await sites.caughtUp("data");
    const seen = join(south.folder, "mnt-then");
    const newest = points.at(-1)?.lsn ?? 0;
    const path = await south.mountAt(seen, "data-copy", [], `lsn:${newest}`);
    const times: number[] = [];
    for (const { lsn } of points.slice(0, wishes.points)) {
      times.push(await timed(() => readdirSync(join(path, ".holdfast", "at", `lsn:${lsn}`))));
    }
    figures.note("replica-open", 0, percentile(times, 0.5));
    figures.note("replica-open-p99", 0, percentile(times, 0.99));
    figures.note("replica-open-max", 0, Math.max(...times));
    await south.umount(seen);
  });
  return figures.all;
}
