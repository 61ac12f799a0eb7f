// How far a peer is behind while 50 MB/s are changed: what `protect list` says, ten times a second; beside it, what
// a plain write of 1 MiB with a flush takes on the same disk.

import { open } from "node:fs/promises";
import { join } from "node:path";
import { Figures } from "../ground.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { withSites } from "./ground.js";
import type { Wishes } from "./ground.js";
import { makeFile, percentile, watching, writeSteadily } from "./writing.js";

const LOOK_MS = 100;
const SAY_EVERY = 100;
const PROBE_BYTES = 2 ** 20;
const FILE_MIB = 512;
const FILE_MIB_SMALL = 64;

export async function measureRpo(place: Place, wishes: Wishes): Promise<Figure[]> {
  const figures = new Figures();
  const mib = wishes.minutes < 1 ? FILE_MIB_SMALL : FILE_MIB;
  const making = { north: "4GiB", south: "3GiB", config: "history: {window: 60s}\n" };
  await withSites(place, making, async (sites) => {
    const mount = await sites.north.addVolume("data", 2);
    const path = join(mount, "file");
    makeFile(path, mib);
    await sites.protect("data");
    await sites.caughtUp("data");
    const seconds = wishes.minutes * 60;
    const written = writeSteadily(path, { mib, rate: wishes.rate, seconds, seed: 1 });
    const lags: number[] = [];
    const parts = {
      cutMs: [] as number[],
      shipMs: [] as number[],
      applyMs: [] as number[],
      flushMs: [] as number[],
    };
    const probes: number[] = [];
    const plain = await open(join(place.folder, "probe"), "w");
    const piece = Buffer.alloc(PROBE_BYTES, 7);
    const { bytes, longestMs, ...rest } = await watching(written, LOOK_MS, async () => {
      const { lag } = await sites.protection("data");
      lags.push((lag.rpoMs ?? NaN) / 1000);
      for (const name of ["cutMs", "shipMs", "applyMs", "flushMs"] as const) parts[name].push(lag[name]);
      if (lags.length % 10 === 0) {
        const begun = performance.now();
        await plain.write(piece, 0, piece.length, 0);
        await plain.datasync();
        probes.push(performance.now() - begun);
      }
      if (lags.length % SAY_EVERY === 0) {
        const recent = lags.slice(-SAY_EVERY);
        place.say(
          `${(lags.length * LOOK_MS) / 1000} s: p50 ${percentile(recent, 0.5).toFixed(2)}, max ${Math.max(...recent).toFixed(2)} s`,
        );
      }
    });
    await plain.close();
    const { bytesSent } = await sites.caughtUp("data");
    const notes = { looks: lags.length, writes: rest.writes, longestMs };
    figures.note("rpo-p50", 0, percentile(lags, 0.5));
    figures.note("rpo-p95", 0, percentile(lags, 0.95), notes);
    figures.note("rpo-p99", 0, percentile(lags, 0.99));
    figures.note("rpo-max", 0, Math.max(...lags));
    for (const [name, values] of Object.entries(parts))
      figures.note(`rpo-${name}-p95`, 0, percentile(values, 0.95));
    figures.note("rpo-written-mib-per-second", 0, bytes / rest.seconds / 2 ** 20);
    figures.note("rpo-sent-mib", 0, bytesSent / 2 ** 20);
    figures.note("rpo-probe-p50-ms", 0, percentile(probes, 0.5));
    figures.note("rpo-probe-p99-ms", 0, percentile(probes, 0.99));
    figures.note("rpo-probe-max-ms", 0, Math.max(...probes));
  });
  return figures.all;
}
