// What replication costs the owner: fsynced writes of 4 KiB to a volume that is protected, and by turns to one that is
// not, of the same daemon, on the same drives. The peer lies on the same disk, on tmpfs, or is stopped.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Figures } from "../ground.js";
import { mergeHistograms } from "../results.js";
import { runLoad } from "../load.js";
import type { Measure } from "../load.js";
import type { Figure } from "../report.js";
import { quantile } from "../slices.js";
import type { Place } from "../special.js";
import { withSites } from "./ground.js";
import type { Making, Sites, Wishes } from "./ground.js";

const SIDES = ["alone", "protected"] as const;
type Side = (typeof SIDES)[number];
const SHM = "/dev/shm";
const MAKING: Making = { north: "2GiB", south: "1GiB", config: "history: {window: 60s}\n" };

export async function measureCost(place: Place, wishes: Wishes): Promise<Figure[]> {
  const figures = new Figures();
  await withSites(place, MAKING, async (sites) => {
    const mounts = await begin(sites);
    place.say("the peer on the same disk");
    const turns = { place, wishes, mounts, turns: place.pairs };
    const { time, p95 } = await sides(turns);
    figures.note("cost-time", 0, time.ratio, time.notes);
    figures.note("cost-p95", 0, p95);
    await sites.caughtUp("protected");
    place.say(`the peer stopped for ${wishes.stopSeconds} s`);
    const { pid } = await sites.south.status();
    const before = residentMib((await sites.north.status()).pid);
    process.kill(pid, "SIGSTOP");
    try {
      const pairs = Math.max(1, Math.round(wishes.stopSeconds / (2 * wishes.sliceSeconds)));
      const stopped = await sides({ ...turns, turns: pairs });
      figures.note("cost-stopped-time", 0, stopped.time.ratio, stopped.time.notes);
    } finally {
      process.kill(pid, "SIGCONT");
    }
    const after = residentMib((await sites.north.status()).pid);
    figures.note("cost-stopped-memory", 0, Math.max(0, after - before), { before, after });
    await sites.caughtUp("protected");
  });
  const southFolder = mkdtempSync(join(SHM, "holdfast-bench-"));
  try {
    await withSites(place, { ...MAKING, southFolder }, async (sites) => {
      const mounts = await begin(sites);
      place.say("the peer on tmpfs");
      const { time, p99 } = await sides({ place, wishes, mounts, turns: place.pairs });
      figures.note("cost-tmpfs-p99", 0, p99);
      figures.note("cost-tmpfs-time", 0, time.ratio, time.notes);
    });
  } finally {
    rmSync(southFolder, { recursive: true, force: true });
  }
  return figures.all;
}

/** Two volumes, and a first turn of each that does not count: the files are made. */
async function begin(sites: Sites): Promise<Record<Side, string>> {
  const mounts = {
    alone: await sites.north.addVolume("alone", 2),
    protected: await sites.north.addVolume("protected", 2),
  };
  await sites.protect("protected");
  return mounts;
}

interface Turns {
  place: Place;
  wishes: Wishes;
  mounts: Record<Side, string>;
  turns: number;
}

interface Compared {
  /** Time of a write, protected ÷ alone, of all turns together. */
  time: { ratio: number; notes: Record<Side, number> };
  p95: number;
  p99: number;
}

async function sides({ place, wishes, mounts, turns }: Turns): Promise<Compared> {
  const found: Record<Side, Measure[]> = { alone: [], protected: [] };
  const args = ["--mib", "64", "--seconds", String(wishes.sliceSeconds)];
  for (const side of SIDES)
    await runLoad(place.program, { work: "write-fsync", directory: mounts[side], jobs: 1, seed: 1, args });
  for (let turn = 0; turn < turns; turn += 1) {
    for (const side of turn % 2 === 0 ? SIDES : [...SIDES].reverse()) {
      const given = { work: "write-fsync", directory: mounts[side], jobs: 1, seed: turn + 2, args };
      found[side].push(...(await runLoad(place.program, given)));
    }
    const [alone, protectedRate] = SIDES.map((side) =>
      Math.round(found[side].at(-1)?.operationsPerSecond ?? NaN),
    );
    place.say(`turn ${turn + 1}/${turns}: ${alone} alone, ${protectedRate} protected, a second`);
  }
  const at = (side: Side, share: number) =>
    quantile(mergeHistograms(found[side].map(({ histogram }) => histogram)), share);
  const rate = (side: Side) => {
    const [operations, seconds] = found[side].reduce(
      ([sum, time], one) => [sum + one.operations, time + one.seconds] as const,
      [0, 0] as readonly [number, number],
    );
    return operations / seconds;
  };
  const notes = { alone: rate("alone"), protected: rate("protected") };
  const ratio = (share: number) => at("protected", share) / at("alone", share);
  return { time: { ratio: notes.alone / notes.protected, notes }, p95: ratio(0.95), p99: ratio(0.99) };
}

function residentMib(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) / 1024;
}
