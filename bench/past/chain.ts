// A hundred clones, each of the one before: what look-ups cost at the end, against a volume that is no clone.

import { cpSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Figures, shuffled, withDaemon } from "../ground.js";
import type { CloneAnswer, PromoteAnswer, VolumeAnswer } from "../../src/daemon/protocol.js";
import { until } from "../daemon.js";
import type { Daemon } from "../daemon.js";
import { dropCaches } from "../load.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { FULL, driveSize } from "./ground.js";
import type { Wishes } from "./ground.js";

const FILES = 2000;
const FILES_A_DIRECTORY = 100;
/** Each generation changes so many files, and makes as many. */
const CHANGES = 10;
/** The daemon shortens chains by itself, to at most so many generations below; that it does is waited for. */
const DEPTH_MAX = 4;
const SHORTEN_MS_MAX = 120_000;
const PROMOTE_MS_MAX = 60_000;
const LOOK_MS = 100;

const SIDES = ["alone", "chain"] as const;
type Side = (typeof SIDES)[number];

export async function measureChain(place: Place, wishes: Wishes = FULL): Promise<Figure[]> {
  const making = { config: "log: {level: warn}\n", size: driveSize(wishes, 2) };
  return withDaemon(place, making, async (daemon) => {
    const figures = new Figures();
    const { client } = daemon;
    const last = wishes.generations;
    const first = await daemon.addVolume("c0", 2);
    for (let number = 0; number < FILES; number += 1) {
      if (number % FILES_A_DIRECTORY === 0) mkdirSync(join(first, directoryOf(number)));
      writeFileSync(fileOf(first, number), `${number} in 0`);
    }
    const begun = performance.now();
    for (let generation = 1; generation <= last; generation += 1)
      await addGeneration(place, daemon, generation, last);
    figures.note("chain-made-seconds", 0, (performance.now() - begun) / 1000);
    const chain = await daemon.mountAt(join(daemon.folder, "mnt-end"), `c${last}`);
    const alone = await daemon.addVolume("alone", 2);
    cpSync(chain, alone, { recursive: true });
    const stage: Stage = { place, daemon, figures, chain, alone };
    await compare(stage, "chain-fresh");
    place.say("waiting until the chain has become short");
    const shortening = performance.now();
    await until(
      SHORTEN_MS_MAX,
      "the chain does not become short",
      async () => (await depthOf(daemon)) <= DEPTH_MAX,
      LOOK_MS,
    );
    figures.note("chain-shortened-seconds", 0, (performance.now() - shortening) / 1000);
    await compare(stage, "chain-shortened");
    place.say("promoting the last clone");
    const promoting = performance.now();
    await until(
      PROMOTE_MS_MAX,
      "the last clone is not promoted",
      () => promoted(daemon, `c${last}`),
      LOOK_MS,
    );
    figures.note("chain-promote-seconds", 0, (performance.now() - promoting) / 1000);
    await compare(stage, "chain-flat");
    await client.delete(`/v1/volumes/c${Math.floor(last / 2)}`);
    dropCaches();
    for (let number = 0; number < FILES; number += 1) {
      const [found, wanted] = [chain, alone].map((mount) => readFileSync(fileOf(mount, number), "utf8"));
      if (found !== wanted)
        throw new Error(`after one in the middle went: file ${number} is ${found}, not ${wanted}`);
    }
    return figures.all;
  });
}

interface Stage {
  place: Place;
  daemon: Daemon;
  figures: Figures;
  chain: string;
  alone: string;
}

const directoryOf = (number: number): string => `d${Math.floor(number / FILES_A_DIRECTORY)}`;
const fileOf = (mount: string, number: number): string => join(mount, directoryOf(number), `f${number}`);

/** A clone of the newest one, with changes of its own. */
async function addGeneration(place: Place, daemon: Daemon, generation: number, last: number): Promise<void> {
  if (generation % 10 === 0) place.say(`${generation}/${last} generations`);
  const name = `c${generation}`;
  await daemon.client.post("/v1/clones", { source: `c${generation - 1}`, name });
  const path = await daemon.mountAt(join(daemon.folder, "mnt-next"), name);
  for (let change = 0; change < CHANGES; change += 1) {
    const number = (generation * 631 + change * 197) % FILES;
    writeFileSync(fileOf(path, number), `${number} in ${generation}`);
    writeFileSync(join(path, directoryOf(number), `g${generation}-${change}`), "new");
  }
  await daemon.umount(path);
}

async function depthOf({ client }: Daemon): Promise<number> {
  const clones = await client.get<CloneAnswer[]>("/v1/clones");
  return Math.max(0, ...clones.map(({ base }) => base.depth));
}

async function promoted({ client }: Daemon, name: string): Promise<boolean> {
  const { already } = await client.post<PromoteAnswer>(`/v1/clones/${name}/promote`, {});
  const { base, promotion } = await client.get<VolumeAnswer>(`/v1/volumes/${name}`);
  if (promotion !== null && promotion.problem !== "")
    throw new Error(`promoting ${name}: ${promotion.problem}`);
  return already || base === null;
}

/** Time of looking every name up, cold, at the end of the chain ÷ in the other volume. */
async function compare({ place, daemon, figures, chain, alone }: Stage, measure: string): Promise<void> {
  await daemon.quiet();
  const depth = await depthOf(daemon);
  const names = namesIn(alone);
  if (namesIn(chain).length !== names.length) throw new Error("the end of the chain has other names");
  for (let pair = 0; pair < place.pairs; pair += 1) {
    place.say(`pair ${pair + 1}/${place.pairs}  ${measure}: ${names.length} names, depth ${depth} at most`);
    const seconds: Record<Side, number> = { alone: NaN, chain: NaN };
    for (const side of pair % 2 === 0 ? SIDES : [...SIDES].reverse()) {
      const mount = side === "chain" ? chain : alone;
      const order = shuffled(names.length, pair).map((at) => join(mount, names[at] ?? ""));
      dropCaches();
      const begun = performance.now();
      for (const path of order) statSync(path);
      seconds[side] = (performance.now() - begun) / 1000;
    }
    const lookups = (side: Side): number => Math.round(names.length / seconds[side]);
    const notes = { depth, chain_per_second: lookups("chain"), alone_per_second: lookups("alone") };
    figures.note(measure, pair, seconds.chain / seconds.alone, notes);
  }
}

function namesIn(mount: string): string[] {
  return readdirSync(mount, { recursive: true, encoding: "utf8" }).sort();
}
