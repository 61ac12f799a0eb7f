// The pools of one daemon: opened at start from the list in the state file, created, imported, destroyed.

import { closeSync, constants, fstatSync, fsyncSync, openSync, readdirSync, unlinkSync } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import { HoldfastError, fromSystem } from "../io-path/errors.js";
import { pathToJson, pathToText } from "../io-path/paths.js";
import { Pool } from "../io-path/pool.js";
import type { DriveRequest, EngineOptions, VolumeStatus } from "../io-path/pool.js";
import { toErrorBody } from "./failure.js";
import type { Log } from "./log.js";
import { checkName } from "./names.js";
import type { ErrorBody, PoolAnswer } from "./protocol.js";
import type { KnownPool } from "./state-file.js";

interface Entry {
  known: KnownPool;
  pool: Pool | undefined;
  problem: ErrorBody | null;
  /** Paths of drives that are being emptied, to be removed. */
  leaving: Set<string>;
  /** Number of the newest event that is in the log. */
  logged: number;
}

export class Pools {
  readonly #entries = new Map<string, Entry>();

  constructor(
    readonly options: EngineOptions,
    readonly log: Log,
  ) {}

  known(): KnownPool[] {
    return [...this.#entries.values()].map((entry) => entry.known);
  }

  /** Opens what is known; a pool that does not open is kept with its problem, and tried again by `retry`. */
  async openKnown(known: readonly KnownPool[]): Promise<void> {
    for (const one of known) {
      const entry: Entry = { known: one, pool: undefined, problem: null, leaving: new Set(), logged: 0 };
      this.#entries.set(one.name, entry);
      await this.#open(entry);
    }
  }

  /** True when every known pool is open. */
  async retry(): Promise<boolean> {
    for (const entry of this.#entries.values()) {
      if (entry.pool === undefined) await this.#open(entry);
    }
    return this.problems().length === 0;
  }

  problems(): string[] {
    return [...this.#entries.values()].flatMap(({ known, problem }) =>
      problem === null ? [] : [`pool ${known.name}: ${problem.message}`],
    );
  }

  async #open(entry: Entry): Promise<void> {
    const { known } = entry;
    try {
      const pool = await Pool.open(known.drives, this.options);
      if (pool.identity.uuid !== known.uuid) {
        await pool.close();
        throw new HoldfastError(
          "Conflict",
          `the drives of ${known.name} hold another pool, ${pool.identity.name}`,
        );
      }
      entry.pool = pool;
      entry.problem = null;
      this.log.info({ pool: known.name }, "pool open");
    } catch (error) {
      const problem = toErrorBody(error);
      if (problem.message !== entry.problem?.message)
        this.log.error({ pool: known.name, problem }, "pool does not open");
      entry.problem = problem;
    }
  }

  async create(name: string, drives: readonly DriveRequest[]): Promise<KnownPool> {
    checkName("pool", name);
    if (this.#entries.has(name)) throw new HoldfastError("Conflict", `pool ${name} exists already`);
    const real = await checkNewDrives(drives, this.known());
    const pool = await Pool.create(name, real, this.options);
    return this.#add(
      pool,
      real.map((drive) => drive.path),
    );
  }

  async import(drives: readonly Buffer[]): Promise<KnownPool> {
    const real = await Promise.all(drives.map(realDirectory));
    checkDistinct(real);
    for (const one of this.#entries.values()) {
      const twice = real.find((path) => one.known.drives.some((drive) => drive.equals(path)));
      if (twice === undefined) continue;
      throw new HoldfastError(
        "Conflict",
        `${pathToText(twice)} is a drive of pool ${one.known.name} already`,
      );
    }
    const { name } = await probeDrive(real[0] ?? Buffer.alloc(0));
    if (this.#entries.has(name)) throw new HoldfastError("Conflict", `a pool named ${name} is there already`);
    const pool = await Pool.open(real, this.options);
    return this.#add(pool, real);
  }

  #add(pool: Pool, drives: Buffer[]): KnownPool {
    const known = { ...pool.identity, drives };
    this.#entries.set(known.name, { known, pool, problem: null, leaving: new Set(), logged: 0 });
    this.log.info({ pool: known.name }, "pool open");
    return known;
  }

  /** The engine says what is wrong with a drive; a path of another pool is refused before it is touched. */
  async addDrive(name: string, drive: DriveRequest): Promise<void> {
    const path = await this.#freePath(name, drive.path);
    await this.get(name).addDrive({ ...drive, path });
    this.#remember(name, path);
  }

  async replaceDrive(name: string, old: string, drive: DriveRequest): Promise<void> {
    const path = await this.#freePath(name, drive.path);
    await this.get(name).replaceDrive(old, { ...drive, path });
    this.#remember(name, path);
    this.#entry(name).leaving.add(old);
  }

  /** Known until it is empty: a restart in between has to find what still lies there. */
  async removeDrive(name: string, drive: string): Promise<void> {
    const { drives } = await this.get(name).status();
    const found = drives.find(({ path, uuid }) => path === drive || uuid === drive);
    await this.get(name).removeDrive(drive);
    this.#entry(name).leaving.add(found?.path ?? drive);
  }

  /** Writes what happened to drives into the log. */
  async logEvents(): Promise<void> {
    for (const entry of this.#entries.values()) {
      if (entry.pool === undefined) continue;
      const { events } = await entry.pool.status();
      const fresh = events.filter(({ number }) => number > entry.logged);
      for (const { what, number } of fresh) {
        this.log.warn({ pool: entry.known.name }, what);
        entry.logged = number;
      }
    }
  }

  /** Drops the paths of drives that were to be removed and are out of their pools. True when there were any. */
  async forgetRemoved(): Promise<boolean> {
    let changed = false;
    for (const entry of this.#entries.values()) {
      if (entry.pool === undefined || entry.leaving.size === 0) continue;
      const { drives } = await entry.pool.status();
      const gone = [...entry.leaving].filter((path) => drives.every((drive) => drive.path !== path));
      if (gone.length === 0) continue;
      gone.forEach((path) => entry.leaving.delete(path));
      entry.known = {
        ...entry.known,
        drives: entry.known.drives.filter((path) => !gone.includes(pathToText(path))),
      };
      changed = true;
    }
    return changed;
  }

  async #freePath(name: string, drive: Buffer): Promise<Buffer> {
    const path = await realDirectory(drive);
    const owner = this.known().find(
      (pool) => pool.name !== name && pool.drives.some((one) => one.equals(path)),
    );
    if (owner === undefined) return path;
    throw new HoldfastError("Conflict", `drive ${pathToText(path)} belongs to pool ${owner.name} already`);
  }

  #remember(name: string, path: Buffer): void {
    const entry = this.#entry(name);
    if (entry.known.drives.some((drive) => drive.equals(path))) return;
    entry.known = { ...entry.known, drives: [...entry.known.drives, path] };
  }

  /** Closes the pool and empties its drives. Which volumes it has must not matter to anybody any more. */
  async destroy(name: string): Promise<void> {
    const entry = this.#entry(name);
    await entry.pool?.close();
    entry.pool = undefined;
    for (const drive of entry.known.drives) await eraseDrive(drive, entry.known);
    this.#entries.delete(name);
    this.log.info({ pool: name }, "pool destroyed");
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw new HoldfastError("NotFound", `there is no pool ${name}`, this.#which());
    return entry;
  }

  #which(): string {
    const names = [...this.#entries.keys()];
    return names.length === 0
      ? "there are no pools; see: holdfast pool create --help"
      : `pools: ${names.join(", ")}`;
  }

  get(name: string): Pool {
    const { pool, problem } = this.#entry(name);
    if (pool !== undefined) return pool;
    throw new HoldfastError(
      "Unavailable",
      `pool ${name} is not open: ${problem?.message ?? ""}`,
      problem?.hint,
    );
  }

  async answer(name: string): Promise<PoolAnswer> {
    const { known, pool, problem } = this.#entry(name);
    return {
      name: known.name,
      uuid: known.uuid,
      state: pool === undefined ? "failed" : "open",
      problem,
      drives: known.drives.map(pathToJson),
      status: pool === undefined ? null : await pool.status(),
    };
  }

  answers(): Promise<PoolAnswer[]> {
    return Promise.all([...this.#entries.keys()].map((name) => this.answer(name)));
  }

  /** Volumes of all open pools, each with its pool. */
  async volumes(): Promise<{ pool: string; volume: VolumeStatus }[]> {
    const open = [...this.#entries.values()].flatMap((entry) =>
      entry.pool === undefined ? [] : [entry.pool],
    );
    const lists = await Promise.all(
      open.map(async (pool) =>
        (await pool.volumes()).map((volume) => ({ pool: pool.identity.name, volume })),
      ),
    );
    return lists.flat();
  }

  async findVolume(name: string): Promise<{ pool: string; volume: VolumeStatus }> {
    const volumes = await this.volumes();
    const found = volumes.find(({ volume }) => volume.name === name);
    if (found !== undefined) return found;
    const closed = this.problems();
    if (closed.length > 0) {
      throw new HoldfastError("Unavailable", `no open pool has a volume ${name}`, closed.join("; "));
    }
    const names = volumes.map(({ volume }) => volume.name).join(", ");
    throw new HoldfastError(
      "NotFound",
      `there is no volume ${name}`,
      names === "" ? "" : `volumes: ${names}`,
    );
  }

  /** Groups of all open pools that can be used. */
  async groups(): Promise<{ pool: Pool; name: string }[]> {
    const volumes = (await this.volumes()).filter(({ volume }) => volume.problem === "");
    const found = new Map(
      volumes.map(({ pool, volume }) => [`${pool} ${volume.group}`, [pool, volume.group] as const]),
    );
    return [...found.values()].map(([pool, name]) => ({ pool: this.get(pool), name }));
  }

  /** The pool that has a volume or a group of this name. */
  async findTarget(name: string): Promise<Pool> {
    const found = (await this.volumes()).find(({ volume }) => volume.name === name || volume.group === name);
    return this.get(found?.pool ?? (await this.findVolume(name)).pool);
  }

  async flush(): Promise<void> {
    for (const { pool } of this.#entries.values()) await pool?.flush();
  }

  /** Closes all, each whatever happens to the others; fails with the first failure. */
  async close(): Promise<void> {
    const open = [...this.#entries.values()].flatMap((entry) =>
      entry.pool === undefined ? [] : [entry.pool],
    );
    const results = await Promise.allSettled(open.map((pool) => pool.close()));
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }
}

/** Whose drive it is; a failure names the drive. */
async function probeDrive(path: Buffer): Promise<{ name: string; uuid: string }> {
  try {
    return await Pool.probe(path);
  } catch (error) {
    const { code, message } = toErrorBody(error);
    throw new HoldfastError(code, `drive ${pathToText(path)}: ${message}`, "nothing was written to it");
  }
}

async function realDirectory(path: Buffer): Promise<Buffer> {
  const what = `drive ${pathToText(path)}`;
  try {
    const real = await realpath(path, "buffer");
    if (!(await stat(real)).isDirectory()) {
      throw new HoldfastError(
        "Invalid",
        `${what} is not a directory`,
        "a drive is a directory on a mounted disk",
      );
    }
    return real;
  } catch (error) {
    throw fromSystem(error, what, "make it first: mkdir");
  }
}

function checkDistinct(paths: readonly Buffer[]): void {
  const twice = paths.find((path, index) => paths.findIndex((other) => other.equals(path)) < index);
  if (twice !== undefined) throw new HoldfastError("Invalid", `drive ${pathToText(twice)} is named twice`);
}

async function checkNewDrives(
  drives: readonly DriveRequest[],
  known: readonly KnownPool[],
): Promise<DriveRequest[]> {
  const real = await Promise.all(
    drives.map(async (drive) => ({ ...drive, path: await realDirectory(drive.path) })),
  );
  checkDistinct(real.map((drive) => drive.path));
  for (const { path } of real) {
    const what = `drive ${pathToText(path)}`;
    const owner = known.find((pool) => pool.drives.some((drive) => drive.equals(path)));
    if (owner !== undefined)
      throw new HoldfastError("Conflict", `${what} belongs to pool ${owner.name} already`);
    const names = (await readdir(path)).filter((name) => name !== "lost+found");
    if (names.includes("superblock")) {
      const pool = await Pool.probe(path).catch(() => undefined);
      const whose = pool === undefined ? "has a superblock" : `belongs to pool ${pool.name} (${pool.uuid})`;
      throw new HoldfastError(
        "Conflict",
        `${what} ${whose} already`,
        "to bring a pool back: holdfast pool import",
      );
    }
    if (names.length > 0) {
      throw new HoldfastError(
        "Conflict",
        `${what} is not empty (${names.length} entries)`,
        "give it an empty directory",
      );
    }
  }
  return real;
}

/** What a drive holds; everything else in the directory is left alone. */
const DRIVE_FILE = /^(?:superblock|manifest|lock|slab-\d{6})$/;

/** Removes a drive's files, superblock first and durably, so that a half-erased drive is no drive. */
async function eraseDrive(path: Buffer, known: KnownPool): Promise<void> {
  const identity = await Pool.probe(path).catch(() => undefined);
  if (identity !== undefined && identity.uuid !== known.uuid) {
    throw new HoldfastError(
      "Conflict",
      `${pathToText(path)} holds pool ${identity.name} now; nothing was removed`,
    );
  }
  let fd: number | undefined;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    const folder = `/proc/self/fd/${fd}`;
    if (fstatSync(fd).uid !== process.geteuid?.() && process.geteuid?.() !== 0) {
      throw new HoldfastError("Denied", `${pathToText(path)} belongs to somebody else`);
    }
    const names = readdirSync(folder).filter((name) => DRIVE_FILE.test(name));
    if (names.includes("superblock")) unlinkSync(`${folder}/superblock`);
    fsyncSync(fd);
    for (const name of names) if (name !== "superblock") unlinkSync(`${folder}/${name}`);
  } catch (error) {
    // A drive that is gone has nothing to erase.
    if ((error as NodeJS.ErrnoException).code !== "ENOENT")
      throw fromSystem(error, `erasing ${pathToText(path)}`);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
