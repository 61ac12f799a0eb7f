// Snapshots, clones, looks at the past, a restore and a difference: at a hundred files and at a million, by turns, so
// that what the machine does meanwhile hits both alike.

import { execFile } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmdirSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { Figures, fill, list, timed, withDaemon } from "../ground.js";
import { fromText } from "../../src/cli/bytes.js";
import { restore } from "../../src/cli/past/restore.js";
import { Points } from "../../src/cli/past/points.js";
import { findSpot } from "../../src/cli/past/spot.js";
import type { DifferenceAnswer, SnapshotAnswer } from "../../src/daemon/protocol.js";
import type { Daemon } from "../daemon.js";
import { dropCaches } from "../load.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { POINT_WORKS } from "./bars.js";
import { driveSize } from "./ground.js";
import type { Wishes } from "./ground.js";
import { fileOf } from "./layout.js";

const SMALL_FILES = 100;
/** Kept states are seconds: changes in one second are one. */
const SECOND_MS = 1050;
const CONFIG = "log: {level: warn}\nhistory: {window: 1h, limit: 40%}\n";
const MIB = 2 ** 20;

export const MOMENT_PARTS = ["open", "restore", "diff"] as const;
export type MomentPart = (typeof MOMENT_PARTS)[number];

interface Volume {
  name: string;
  size: "small" | "large";
  mount: string;
}

interface Stage {
  place: Place;
  wishes: Wishes;
  daemon: Daemon;
  figures: Figures;
  small: Volume;
  large: Volume;
}

/** Drives of 3 GiB: a million files of 200 B with their records take about 1.5 KB each on two of three of them. */
export async function measureMoments(
  place: Place,
  wishes: Wishes,
  parts: ReadonlySet<MomentPart>,
): Promise<Figure[]> {
  return withDaemon(place, { config: CONFIG, size: driveSize(wishes, 3) }, async (daemon) => {
    const [small, large] = await Promise.all(
      (["small", "large"] as const).map(async (size) => ({
        name: size,
        size,
        mount: await daemon.addVolume(size, 2),
      })),
    );
    if (small === undefined || large === undefined) throw new Error("two volumes are wanted");
    const stage: Stage = { place, wishes, daemon, figures: new Figures(), small, large };
    await fill(small.mount, SMALL_FILES, place.say);
    const seconds = await fill(large.mount, wishes.files, place.say);
    stage.figures.note("files-made-seconds", 0, seconds);
    stage.figures.note("files-made-per-second", 0, wishes.files / seconds);
    place.say(`${wishes.files} files were made in ${seconds.toFixed(1)} s`);
    await daemon.quiet();
    dropCaches();
    if (parts.has("open")) await openings(stage);
    if (parts.has("diff")) await differences(stage);
    if (parts.has("restore")) await restores(stage);
    return stage.figures.all;
  });
}

// --- snapshots, clones, openings ------------------------------------------------------------------------------------

/** What was timed at each size in one turn. */
type Turn = Record<Volume["size"], number>;

async function openings({ place, wishes, daemon, figures, small, large }: Stage): Promise<void> {
  const note = (what: string, pair: number, { small, large }: Turn): void => {
    figures.note(`${what}-small`, pair, small);
    figures.note(`${what}-large`, pair, large);
    figures.note(`${what}-ratio`, pair, large / small);
  };
  for (let turn = 0; turn < wishes.turns; turn += 1) {
    place.say(`turn ${turn + 1}/${wishes.turns}: snapshots, clones, openings`);
    const times = new Map<string, Turn>();
    for (const volume of turn % 2 === 0 ? [small, large] : [large, small]) {
      for (const [what, ms] of await oneTurn(daemon, volume, turn)) {
        const both = times.get(what) ?? { small: NaN, large: NaN };
        times.set(what, { ...both, [volume.size]: ms });
      }
    }
    for (const [what, both] of times) note(what, turn, both);
    await delay(SECOND_MS);
  }
  const seconds = {
    small: await secondsOf(daemon, small, wishes.turns),
    large: await secondsOf(daemon, large, wishes.turns),
  };
  for (let turn = 0; turn < wishes.turns; turn += 1) {
    const both: Turn = { small: NaN, large: NaN };
    for (const size of turn % 2 === 0 ? (["small", "large"] as const) : (["large", "small"] as const)) {
      const path = seconds[size][turn] ?? "";
      both[size] = await timed(() => list(path));
    }
    note("open-at", turn, both);
  }
  const without = POINT_WORKS.filter(
    ([what]) => !figures.all.some(({ measure }) => measure === `${what}-ratio`),
  );
  if (without.length > 0) throw new Error(`nothing was timed of ${without.join("; ")}`);
}

/** The newest kept seconds of a volume, as paths. A listing in the mount would make them known to the kernel. */
async function secondsOf({ client }: Daemon, { name, mount }: Volume, count: number): Promise<string[]> {
  const found = await client.get<SnapshotAnswer[]>(`/v1/snapshots?target=${name}&limit=10000&seconds=true`);
  const times = found.filter((point) => point.name === "").map(({ time }) => time);
  if (times.length < count) throw new Error(`${times.length} seconds are kept of ${name}, not ${count}`);
  return times.slice(-count).map((time) => join(mount, ".holdfast", "at", time));
}

/** Milliseconds of each; a name is opened for the first time. What was made is destroyed again. */
async function oneTurn(
  { client }: Daemon,
  { name, mount }: Volume,
  turn: number,
): Promise<[string, number][]> {
  const snapshot = `s${turn}`;
  const clones = [`${name}-s${turn}`, `${name}-n${turn}`] as const;
  const root = join(mount, ".holdfast", "snapshots", snapshot);
  writeFileSync(join(mount, "touched"), String(turn));
  const acts: [string, () => unknown][] = [
    ["snapshot", () => client.post("/v1/snapshots", { target: name, name: snapshot })],
    ["clone", () => client.post("/v1/clones", { source: name, name: clones[0], at: snapshot })],
    ["clone-now", () => client.post("/v1/clones", { source: name, name: clones[1] })],
    ["open-snapshot", () => list(root)],
    ["first-stat", () => statSync(fileOf(root, (turn * 37) % SMALL_FILES))],
    ["clone-destroy", () => client.delete(`/v1/volumes/${clones[0]}`)],
    ["clone-now-destroy", () => client.delete(`/v1/volumes/${clones[1]}`)],
    ["snapshot-delete", () => client.delete(`/v1/snapshots/${name}/${snapshot}`)],
  ];
  const times: [string, number][] = [];
  for (const [what, act] of acts) times.push([what, await timed(act)]);
  return times;
}

// --- difference -----------------------------------------------------------------------------------------------------

/** By kind, as many as `tenChanges` makes. */
const CHANGES = { changed: 4, added: 2, removed: 2, renamed: 2 } as const;

/** Far from each other, at places that no other turn touches. */
function tenChanges(mount: string, turn: number, files: number): void {
  const place = (change: number): string =>
    fileOf(mount, (change * Math.floor(files / 10) + 3 * turn + 1) % files);
  for (const change of [0, 1, 2, 3]) writeFileSync(place(change), `changed in turn ${turn}`);
  for (const change of [4, 5]) writeFileSync(`${place(change)}-new-${turn}`, "added");
  for (const change of [6, 7]) unlinkSync(place(change));
  for (const change of [8, 9]) renameSync(place(change), `${place(change)}-renamed`);
}

async function differences({ place, wishes, daemon, figures, large }: Stage): Promise<void> {
  const { client } = daemon;
  const { name, mount } = large;
  const snapshot = (at: string) => client.post("/v1/snapshots", { target: name, name: at });
  await snapshot("d0");
  for (let turn = 0; turn < wishes.turns; turn += 1) {
    place.say(`turn ${turn + 1}/${wishes.turns}: a difference of 10 changes`);
    tenChanges(mount, turn, wishes.files);
    await snapshot(`d${turn + 1}`);
    await daemon.quiet();
    const url = `/v1/volumes/${name}/difference?from=d${turn}&to=d${turn + 1}`;
    const before = await daemon.counters();
    const begun = performance.now();
    const { changes } = await client.get<DifferenceAnswer>(url);
    const took = performance.now() - begun;
    const after = await daemon.counters();
    for (const [kind, wanted] of Object.entries(CHANGES)) {
      const found = changes.filter((change) => change.kind === kind && change.type === "file").length;
      if (found !== wanted) throw new Error(`a difference tells ${found} files ${kind}, not ${wanted}`);
    }
    const grown = (counter: string): number => (after[counter] ?? NaN) - (before[counter] ?? NaN);
    figures.note("diff", turn, took);
    figures.note("diff-pages", turn, grown("data_cache_hits") + grown("data_cache_misses"));
    figures.note("diff-read-kib", turn, grown("drive_bytes_read") / 1024);
  }
}

// --- restore --------------------------------------------------------------------------------------------------------

/** Content of a MiB. */
const content = (mark: number): Buffer => Buffer.alloc(MIB, `${mark};`);

/**
 * One file out of many: something in it is written, then all of it comes back. Three ways by turns: what must be done
 * (copy_file_range into a file beside it, rename), as the command's own code does it in this process (it runs cp and rm),
 * and the whole command, Node's start included.
 */
async function restores({ place, wishes, daemon, figures, large }: Stage): Promise<void> {
  const { mount } = large;
  const path = join(mount, "big");
  const file = openSync(path, "wx");
  for (let mib = 0; mib < wishes.restoreMib; mib += 1) writeSync(file, content(mib));
  fsyncSync(file);
  closeSync(file);
  await daemon.client.post("/v1/snapshots", { target: large.name, name: "whole" });
  await daemon.quiet();
  const turns = Math.ceil(wishes.turns / 2);
  const ways: [string, () => unknown][] = [
    ["restore-by-hand", () => byHand(mount)],
    ["restore-function", () => byFunction(path)],
    ["restore-command", () => byCommand(place.root, path)],
  ];
  for (let turn = 0; turn < turns; turn += 1) {
    for (const [measure, act] of ways) {
      place.say(`turn ${turn + 1}/${turns}: ${measure}`);
      const at = (turn * 31) % wishes.restoreMib;
      spoil(path, at);
      await daemon.quiet();
      const before = await daemon.counters();
      figures.note(measure, turn, await timed(act));
      const after = await daemon.counters();
      const grown = (counter: string): number => (after[counter] ?? NaN) - (before[counter] ?? NaN);
      // The command notes in a small file of its own who restores.
      if (measure === "restore-by-hand") {
        figures.note("restore-payload", turn, grown("payload_bytes") / MIB);
        figures.note("restore-read-kib", turn, grown("drive_bytes_read") / 1024);
      }
      if (statSync(path).size !== wishes.restoreMib * MIB) throw new Error(`${measure}: the size is wrong`);
      expectMib(path, at, measure);
    }
  }
}

function spoil(path: string, mib: number): void {
  const file = openSync(path, "r+");
  writeSync(file, Buffer.alloc(MIB, "spoilt"), 0, MIB, mib * MIB);
  closeSync(file);
}

function expectMib(path: string, mib: number, measure: string): void {
  const file = openSync(path, "r");
  const found = Buffer.alloc(MIB);
  readSync(file, found, 0, MIB, mib * MIB);
  closeSync(file);
  if (!found.equals(content(mib))) throw new Error(`${measure}: the file is not as it was`);
}

/** libuv's copy asks for copy_file_range first. */
function byHand(mount: string): void {
  const staging = join(mount, "staging");
  mkdirSync(staging);
  copyFileSync(join(mount, ".holdfast", "snapshots", "whole", "big"), join(staging, "new"));
  renameSync(join(staging, "new"), join(mount, "big"));
  rmdirSync(staging);
}

async function byFunction(path: string): Promise<void> {
  const umask = process.umask();
  const spot = findSpot(fromText(path));
  const root = new Points(spot.mount).openWords("whole");
  try {
    await restore({ root, spot, yes: false, replace: true, when: "whole" });
  } finally {
    closeSync(root);
    process.umask(umask);
  }
}

async function byCommand(root: string, path: string): Promise<void> {
  const main = join(root, "dist", "src", "cli", "main.js");
  await promisify(execFile)(process.execPath, [main, "restore", path, "--at", "whole"]);
}
