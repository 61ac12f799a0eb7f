// Reading at a past time against reading now, by turns: files and trees in which nothing changed since, and such that
// were written anew, all of them, in the same order.

import { execFileSync } from "node:child_process";
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { Figures, shuffled, withDaemons } from "../ground.js";
import type { SnapshotAnswer } from "../../src/daemon/protocol.js";
import type { Daemon } from "../daemon.js";
import { dropCaches } from "../load.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { FULL, driveSize } from "./ground.js";
import type { Wishes } from "./ground.js";

const MIB = 2 ** 20;
const BLOCK_BYTES = 4096;
const RANDOM_READS = 2000;
const FILES_A_DIRECTORY = 100;
/** The daemon keeps no pages of data in its memory: `drop_caches` does not reach them. */
const CONFIG = "log: {level: warn}\nmemory: {data_cache: 0}\nhistory: {window: 1h, limit: 40%}\n";

const COUNTED = ["drive_bytes_read", "keys_stepped", "metadata_cache_misses"] as const;
const KINDS = ["same", "changed"] as const;
type Kind = (typeof KINDS)[number];
const SIDES = ["now", "past"] as const;
type Side = (typeof SIDES)[number];

/** Reads what is there of a kind, below a root; every block must begin with the mark. */
interface Way {
  how: string;
  read: (root: string, kind: Kind, mark: number) => void;
}

/** All of it is on the drives, and nothing in the daemon's memory, when reading begins. */
export async function measureReading(place: Place, wishes: Wishes = FULL): Promise<Figure[]> {
  const making = { config: CONFIG, size: driveSize(wishes, 2) };
  return withDaemons(
    place,
    making,
    async ({ mount, client }) => {
      place.say("writing");
      for (const kind of KINDS) write(mount, kind, 1, wishes);
      const { time } = await client.post<SnapshotAnswer>("/v1/snapshots", { target: "demo", name: "then" });
      write(mount, "changed", 2, wishes);
      return time;
    },
    async (daemon, time) => {
      await daemon.quiet();
      const past = join(daemon.mount, ".holdfast", "at", time);
      return compare(place, wishes, daemon, { now: daemon.mount, past });
    },
  );
}

/** Beside the times stands what came from drives, which no other work of the machine changes. */
async function compare(
  place: Place,
  wishes: Wishes,
  daemon: Daemon,
  roots: Record<Side, string>,
): Promise<Figure[]> {
  const figures = new Figures();
  const ways = waysOf(wishes);
  for (let pair = 0; pair < place.pairs; pair += 1) {
    for (const { how, read } of ways) {
      for (const kind of KINDS) {
        place.say(`pair ${pair + 1}/${place.pairs}  ${how}, ${kind}`);
        const ms: Record<Side, number> = { now: NaN, past: NaN };
        const notes: Record<string, number> = {};
        for (const side of pair % 2 === 0 ? SIDES : [...SIDES].reverse()) {
          dropCaches();
          const before = await daemon.counters();
          const begun = performance.now();
          read(roots[side], kind, kind === "changed" && side === "now" ? 2 : 1);
          ms[side] = performance.now() - begun;
          const after = await daemon.counters();
          notes[`${side}_ms`] = ms[side];
          for (const name of COUNTED) notes[`${side}_${name}`] = (after[name] ?? NaN) - (before[name] ?? NaN);
        }
        figures.note(`past-${how}-${kind}`, pair, ms.past / ms.now, notes);
      }
    }
  }
  return figures.all;
}

/** A file and a tree; again: the same names, every byte anew. */
function write(mount: string, kind: Kind, mark: number, { readMib, treeFiles }: Wishes): void {
  const block = Buffer.alloc(BLOCK_BYTES, mark);
  const chunk = Buffer.alloc(MIB, mark);
  const file = openSync(join(mount, kind), mark === 1 ? "wx" : "r+");
  for (let mib = 0; mib < readMib; mib += 1) writeSync(file, chunk, 0, MIB, mib * MIB);
  fsyncSync(file);
  closeSync(file);
  for (let number = 0; number < treeFiles; number += 1) {
    const directory = join(mount, `${kind}-tree`, `d${Math.floor(number / FILES_A_DIRECTORY)}`);
    if (number % FILES_A_DIRECTORY === 0) mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, `f${number}`), block);
  }
}

function waysOf({ readMib, treeFiles }: Wishes): Way[] {
  const expect = (found: Buffer, bytes: number, mark: number): void => {
    if (bytes !== found.length || found[0] !== mark || found[bytes - 1] !== mark)
      throw new Error(`read ${bytes} bytes of ${found[0]}, wanted ${found.length} of ${mark}`);
  };
  const fileReads =
    (blockBytes: number, blocks: readonly number[]) => (root: string, kind: Kind, mark: number) => {
      const file = openSync(join(root, kind), "r");
      const found = Buffer.alloc(blockBytes);
      for (const block of blocks)
        expect(found, readSync(file, found, 0, blockBytes, block * blockBytes), mark);
      closeSync(file);
    };
  const all = Array.from({ length: readMib }, (_, mib) => mib);
  const some = shuffled((readMib * MIB) / BLOCK_BYTES, 1).slice(0, RANDOM_READS);
  // Whole paths: every name in each is looked up again where the kernel may not keep it.
  const walk = (root: string, kind: Kind, mark: number): void => {
    let files = 0;
    for (const path of readdirSync(join(root, `${kind}-tree`), { recursive: true, encoding: "utf8" })) {
      const whole = join(root, `${kind}-tree`, path);
      if (statSync(whole).isDirectory()) continue;
      expect(readFileSync(whole), BLOCK_BYTES, mark);
      files += 1;
    }
    if (files !== treeFiles) throw new Error(`${files} files in a tree of ${treeFiles}`);
  };
  // Into a pipe: tar reads nothing when its output is /dev/null.
  const tar = (root: string, kind: Kind): void => {
    const words = ["-c", 'tar -cf - -C "$0" . | wc -c', join(root, `${kind}-tree`)];
    const bytes = Number(execFileSync("sh", words, { encoding: "utf8" }));
    if (bytes < treeFiles * BLOCK_BYTES) throw new Error(`tar made ${bytes} bytes of ${treeFiles} files`);
  };
  return [
    { how: "sequential", read: fileReads(MIB, all) },
    { how: "random", read: fileReads(BLOCK_BYTES, some) },
    { how: "tree", read: tar },
    { how: "paths", read: walk },
  ];
}
