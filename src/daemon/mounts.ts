// The mounts of one daemon. A mount stays wanted until somebody unmounts it: a restart brings it back, a connection
// that broke is made again.

import { readdir, realpath, stat } from "node:fs/promises";
import { HoldfastError, fromSystem } from "../io-path/errors.js";
import type { Mount } from "../io-path/mount.js";
import { pathToJson, pathToText } from "../io-path/paths.js";
import type { Pool } from "../io-path/pool.js";
import { detachStale, mountTable } from "../io-path/system.js";
import { toErrorBody } from "./failure.js";
import { holdersOf } from "./holders.js";
import type { Log } from "./log.js";
import { parseMountOptions } from "./mount-options.js";
import type { ErrorBody, MountAnswer, UmountResult } from "./protocol.js";
import type { WantedMount } from "./state-file.js";

const FS_TYPE = "fuse.holdfast";
/** What a mount answers whose daemon died; all but the first only for a moment. */
const DEAD: ReadonlySet<string> = new Set(["ENOTCONN", "ECONNABORTED", "ECANCELED"]);
/** Between two tries to unmount a busy mount. */
const BUSY_POLL_MS = 100;

interface Entry {
  wanted: WantedMount;
  mount: Mount | undefined;
  problem: ErrorBody | null;
}

type FindPool = (volume: string) => Promise<Pool>;

export class Mounts {
  /** By volume: a volume is mounted at one place at a time; earlier states of it by their directory. */
  readonly #entries = new Map<string, Entry>();

  constructor(
    readonly findPool: FindPool,
    readonly log: Log,
  ) {}

  wanted(): WantedMount[] {
    return [...this.#entries.values()].map((entry) => entry.wanted);
  }

  problems(): string[] {
    return [...this.#entries.values()].flatMap(({ wanted, problem }) =>
      problem === null ? [] : [`mount of ${wanted.volume} at ${pathToText(wanted.dir)}: ${problem.message}`],
    );
  }

  answers(): MountAnswer[] {
    return [...this.#entries.values()].map(toAnswer);
  }

  of(volume: string): MountAnswer | undefined {
    const entry = this.#entries.get(volume);
    return entry === undefined ? undefined : toAnswer(entry);
  }

  /** Any mount of a volume, or of an earlier state of it. */
  anyOf(volume: string): MountAnswer | undefined {
    const entry = [...this.#entries.values()].find(({ wanted }) => wanted.volume === volume);
    return entry === undefined ? undefined : toAnswer(entry);
  }

  /** Brings back what was mounted before; a failure is kept with the mount, and tried again by `watch`. */
  async restore(wanted: readonly WantedMount[]): Promise<void> {
    for (const one of wanted) {
      const entry: Entry = { wanted: one, mount: undefined, problem: null };
      this.#entries.set(keyOf(one), entry);
      await this.#remount(entry);
    }
  }

  async #remount(entry: Entry): Promise<void> {
    const { volume, dir } = entry.wanted;
    try {
      entry.mount = await this.#start(entry.wanted);
      entry.problem = null;
      this.log.info({ volume, dir: pathToText(dir) }, "mounted again");
    } catch (error) {
      const problem = toErrorBody(error);
      if (problem.message !== entry.problem?.message) {
        this.log.error({ volume, dir: pathToText(dir), problem }, "cannot be mounted again");
      }
      entry.problem = problem;
    }
  }

  /** `already`: it was mounted there before. */
  async mount(wanted: WantedMount): Promise<{ mount: MountAnswer; already: boolean }> {
    parseMountOptions(wanted.options);
    const dir = await realMountPoint(wanted.dir);
    const request = await this.#settled({ ...wanted, dir });
    const there = this.#entries.get(keyOf(request));
    if (there !== undefined) {
      if (isSame(there.wanted, request) && there.mount?.alive === true)
        return { mount: toAnswer(there), already: true };
      if (!there.wanted.dir.equals(dir)) {
        const where = pathToText(there.wanted.dir);
        throw new HoldfastError(
          "Conflict",
          `volume ${wanted.volume} is mounted at ${where}`,
          `holdfast umount ${where}`,
        );
      }
    }
    const entry: Entry = { wanted: request, mount: await this.#start(request), problem: null };
    this.#entries.set(keyOf(request), entry);
    this.log.info({ volume: wanted.volume, dir: pathToText(dir) }, "mounted");
    return { mount: toAnswer(entry), already: false };
  }

  /** Words for a moment mean the same state from now on. */
  async #settled(wanted: WantedMount): Promise<WantedMount> {
    if (wanted.at === undefined) return wanted;
    const pool = await this.findPool(wanted.volume);
    const { group } = (await pool.volumes()).find(({ name }) => name === wanted.volume) ?? { group: "" };
    const { lsn } = await pool.history.find(group, wanted.at);
    return { ...wanted, at: `lsn:${lsn}` };
  }

  async #start({ volume, dir, options, source, at }: WantedMount): Promise<Mount> {
    const pool = await this.findPool(volume);
    await clearMountPoint(dir);
    const request = { ...parseMountOptions(options), dir, source };
    return await pool.mount(volume, at === undefined ? request : { ...request, at });
  }

  /** Has what programs changed through mappings of these volumes written back, within so long. */
  async writeBack(volumes: readonly string[], limitMs: number): Promise<void> {
    const mounted = [...this.#entries.values()].flatMap(({ wanted: { volume, at }, mount }) =>
      at === undefined && mount?.alive === true && volumes.includes(volume) ? [mount] : [],
    );
    const results = await Promise.allSettled(mounted.map((mount) => mount.writeBack(limitMs)));
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async unmount(dir: Buffer, how: { detach: boolean }): Promise<UmountResult> {
    const entry = await this.#at(dir);
    const detached = await this.#stop(entry, how);
    this.#entries.delete(keyOf(entry.wanted));
    this.log.info({ volume: entry.wanted.volume, dir: pathToText(entry.wanted.dir), detached }, "unmounted");
    return { volume: entry.wanted.volume, detached };
  }

  /** Ends every mount of these volumes, and of earlier states of them, busy or not. True when there were any. */
  async end(volumes: readonly string[]): Promise<boolean> {
    const entries = [...this.#entries.values()].filter(({ wanted }) => volumes.includes(wanted.volume));
    for (const entry of entries) {
      const { volume, dir } = entry.wanted;
      const detached = await this.#stop(entry, { detach: true });
      this.#entries.delete(keyOf(entry.wanted));
      this.log.warn({ volume, dir: pathToText(dir), detached }, "unmounted: it is not owned here any more");
    }
    return entries.length > 0;
  }

  async #at(dir: Buffer): Promise<Entry> {
    const entries = [...this.#entries.values()];
    const exact = entries.find((entry) => entry.wanted.dir.equals(dir));
    if (exact !== undefined) return exact;
    const real = await realpath(dir, "buffer").catch(() => dir);
    const found = entries.find((entry) => entry.wanted.dir.equals(real));
    if (found !== undefined) return found;
    const dirs = entries.map((entry) => pathToText(entry.wanted.dir)).join(", ");
    throw new HoldfastError(
      "NotFound",
      `nothing of this daemon is mounted at ${pathToText(dir)}`,
      dirs === "" ? "" : `mounted: ${dirs}`,
    );
  }

  /** Returns whether it was busy and therefore detached. */
  async #stop(entry: Entry, how: { detach: boolean }): Promise<boolean> {
    if (entry.mount === undefined) return false;
    try {
      await entry.mount.stop({ detach: false });
      return false;
    } catch (error) {
      if (!(error instanceof HoldfastError) || error.code !== "Conflict") throw error;
      const named = await nameHolders(entry.wanted.dir);
      if (!how.detach) {
        const where = pathToText(entry.wanted.dir);
        throw new HoldfastError(
          "Conflict",
          `${where} is busy${named}`,
          `end them, or: holdfast umount --detach ${where}`,
        );
      }
      this.log.warn({ volume: entry.wanted.volume }, `detaching a busy mount${named}`);
      await entry.mount.stop({ detach: true });
      return true;
    }
  }

  /** Looks after mounts that ended by themselves. True when something is wanted no longer. */
  async watch(): Promise<boolean> {
    let changed = false;
    for (const entry of [...this.#entries.values()]) {
      if (entry.mount?.alive === true) continue;
      const { volume, dir } = entry.wanted;
      if (entry.mount !== undefined) {
        const stillThere = await isOurs(dir);
        await entry.mount.stop({ detach: true }).catch((error: unknown) => {
          this.log.debug(
            { volume, error: toErrorBody(error) },
            "a mount that had ended did not stop cleanly",
          );
        });
        entry.mount = undefined;
        if (!stillThere) {
          this.log.info({ volume, dir: pathToText(dir) }, "unmounted by somebody else: wanted no longer");
          this.#entries.delete(keyOf(entry.wanted));
          changed = true;
          continue;
        }
        this.log.warn({ volume, dir: pathToText(dir) }, "the kernel ended the mount's connection");
      }
      await this.#remount(entry);
    }
    return changed;
  }

  /** Unmounts all and keeps them wanted. Busy ones get `graceMs`; then holders are named and mounts detached. */
  async stopAll(graceMs: number): Promise<void> {
    const deadline = performance.now() + graceMs;
    const results = await Promise.allSettled(
      [...this.#entries.values()].map((entry) => this.#stopBy(entry, deadline)),
    );
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async #stopBy(entry: Entry, deadline: number): Promise<void> {
    for (;;) {
      try {
        await this.#stop(entry, { detach: performance.now() >= deadline });
        entry.mount = undefined;
        return;
      } catch (error) {
        if (!(error instanceof HoldfastError) || error.code !== "Conflict") throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, BUSY_POLL_MS));
    }
  }
}

function keyOf({ volume, dir, at }: WantedMount): string {
  // No volume's name has a slash.
  return at === undefined ? volume : `/${dir.toString("latin1")}`;
}

function isSame(left: WantedMount, right: WantedMount): boolean {
  return left.dir.equals(right.dir) && left.volume === right.volume && left.at === right.at;
}

function toAnswer({ wanted, mount, problem }: Entry): MountAnswer {
  const mounted = mount?.alive === true;
  return {
    volume: wanted.volume,
    at: wanted.at ?? null,
    ...pathToJson(wanted.dir),
    options: wanted.options,
    state: mounted ? "mounted" : "failed",
    transport: mounted ? mount.transport : "",
    transportReason: mounted ? mount.transportReason : "",
    problem: mounted
      ? null
      : (problem ?? toErrorBody(new HoldfastError("Unavailable", "the mount has ended"))),
  };
}

async function nameHolders(dir: Buffer): Promise<string> {
  const holders = await holdersOf(dir);
  if (holders.length === 0) return "";
  return `: held by ${holders.map(({ pid, command, what }) => `${command} (${pid}, ${what})`).join(", ")}`;
}

/** Symbolic links resolved; a mount point whose daemon died still has a name. */
async function realMountPoint(dir: Buffer): Promise<Buffer> {
  try {
    return await realpath(dir, "buffer");
  } catch (error) {
    if (DEAD.has((error as NodeJS.ErrnoException).code ?? "")) return dir;
    throw fromSystem(error, `mount point ${pathToText(dir)}`, "make it first: mkdir");
  }
}

/** The topmost mount on `dir`, if there is one. */
async function topMount(dir: Buffer): Promise<{ type: string; source: string } | undefined> {
  return (await mountTable()).findLast((entry) => entry.dir.equals(dir));
}

async function isOurs(dir: Buffer): Promise<boolean> {
  return (await topMount(dir))?.type === FS_TYPE;
}

/** Makes sure that `dir` can be mounted on: detaches what a dead daemon left, refuses what is in use. */
async function clearMountPoint(dir: Buffer): Promise<void> {
  const what = `mount point ${pathToText(dir)}`;
  await detachStale(dir);
  const top = await topMount(dir);
  if (top !== undefined) {
    const there = `${top.source} (${top.type}) is mounted there`;
    throw new HoldfastError("Conflict", `${what}: ${there}`, "take another directory");
  }
  try {
    if (!(await stat(dir)).isDirectory()) throw new HoldfastError("Invalid", `${what} is not a directory`);
    if ((await readdir(dir)).length > 0) {
      throw new HoldfastError("Conflict", `${what} is not empty`, "mounting would hide what is in it");
    }
  } catch (error) {
    throw fromSystem(error, what, "make it first: mkdir");
  }
}
