// What the daemon does: opens pools, remounts, carries out requests one after the other, and stops in order.

import { HoldfastError } from "../io-path/errors.js";
import type { CloneSpace } from "../io-path/clones.js";
import type { History, RetentionChange } from "../io-path/history.js";
import { onMountEnded } from "../io-path/mount.js";
import { pathToJson, pathToText } from "../io-path/paths.js";
import { isoTime } from "../io-path/history.js";
import type { Pool } from "../io-path/pool.js";
import type { DriveRequest, VolumeChange, VolumeRequest, VolumeStatus } from "../io-path/pool.js";
import { addonVersion } from "../io-path/system.js";
import type { Config } from "./config.js";
import type { Log } from "./log.js";
import { Mounts } from "./mounts.js";
import { checkName } from "./names.js";
import { systemClock } from "./policy/clock.js";
import { PolicyRunner } from "./policy/runner.js";
import { policyStateFile } from "./policy/state.js";
import { PoolSnapshots } from "./pool-snapshots.js";
import type { TakeSnapshot } from "./pool-snapshots.js";
import { Pools } from "./pools.js";
import type {
  CloneAnswer,
  MountResult,
  PolicyAnswer,
  PoolAnswer,
  PromoteAnswer,
  ReplicaAnswer,
  StatusAnswer,
  UmountResult,
  VolumeAnswer,
} from "./protocol.js";
import type { RuntimeFolder } from "./runtime-folder.js";
import { readState, writeState } from "./state-file.js";
import type { WantedMount } from "./state-file.js";
import type { StateFolder } from "./state-folder.js";
import { Turns } from "./turns.js";

export interface SupervisorOptions {
  folder: StateFolder;
  runtime: RuntimeFolder;
  config: Config;
  log: Log;
}

/** Between two looks at mounts and at pools that did not open. */
const WATCH_MS = 1000;

export class Supervisor {
  readonly pools: Pools;
  readonly mounts: Mounts;
  readonly policies: PolicyRunner;
  readonly #options: SupervisorOptions;
  readonly #snapshots: PoolSnapshots;
  /** Runs what takes a snapshot of now; whoever has to know of it puts itself here. */
  takeSnapshot: TakeSnapshot = (create) => create();
  readonly #startedAt = performance.now();
  #phase: StatusAnswer["phase"] = "starting";
  /** Requests, remounts and the stop never overlap. */
  readonly #turns = new Turns();
  #watch: NodeJS.Timeout | undefined;

  constructor(options: SupervisorOptions) {
    const { config, runtime, log } = options;
    this.#options = options;
    this.pools = new Pools(
      {
        memtableBytes: config.memory.memtableBytes,
        ringBytes: config.memory.ringBytes,
        metadataCacheBytes: config.memory.metadataCacheBytes,
        dataCacheBytes: config.memory.dataCacheBytes,
        runtimeDir: Buffer.from(runtime.path),
        retentionSeconds: Math.ceil(config.history.windowSeconds),
        thin: config.history.thin,
        historyLimitPercent: config.history.limitPercent,
        healBytesPerSecond: config.rebuild.limitBytes,
      },
      log,
    );
    this.mounts = new Mounts(
      async (volume) => this.pools.get((await this.pools.findVolume(volume)).pool),
      log,
    );
    this.#snapshots = new PoolSnapshots(this.pools, (create) => this.takeSnapshot(create));
    this.policies = new PolicyRunner({
      store: this.#snapshots,
      file: policyStateFile(options.folder),
      clock: systemClock,
      log,
    });
  }

  /** Replays and remounts. Requests are refused until it is done; what fails is shown in `status` and tried again. */
  start(): Promise<void> {
    const state = readState(this.#options.folder);
    return this.#turns.take(async () => {
      await this.pools.openKnown(state.pools);
      await this.mounts.restore(state.mounts);
      if (this.#phase !== "starting") return;
      this.#phase = "running";
      onMountEnded(() => this.#watchNow());
      this.policies.start();
      this.#watchSoon();
    });
  }

  #watchSoon(): void {
    clearTimeout(this.#watch);
    if (this.#phase === "running") this.#watch = setTimeout(() => this.#watchNow(), WATCH_MS);
  }

  /** Tries again what failed, and looks after mounts that ended. An event calls it at once, a timer now and then. */
  #watchNow(): void {
    const round = this.#turns.take(async () => {
      if (this.#phase !== "running") return;
      await this.pools.retry();
      await this.pools.logEvents();
      if (await this.pools.forgetRemoved()) this.#save();
      if (await this.mounts.watch()) this.#save();
    });
    round
      .catch((error: unknown) => this.#options.log.error(error, "looking after mounts failed"))
      .finally(() => this.#watchSoon());
  }

  #change<T>(run: () => Promise<T>): Promise<T> {
    this.#requireRunning();
    return this.#turns.take(() => {
      this.#requireRunning();
      return run();
    });
  }

  /** In its turn, like every other change of what there is. */
  exclusively<T>(run: () => Promise<T>): Promise<T> {
    return this.#change(run);
  }

  /** The group that a name stands for: its own, or that of a volume alone in it. */
  async resolve(target: string): Promise<{ group: string; pool: Pool }> {
    this.#requireRunning();
    const { group } = await this.#snapshots.resolve(target);
    return { group, pool: await this.pools.findTarget(group) };
  }

  #requireRunning(): void {
    if (this.#phase === "running") return;
    throw new HoldfastError("Unavailable", `the daemon is ${this.#phase}`, "see: holdfast status");
  }

  #save(): void {
    writeState(this.#options.folder, { pools: this.pools.known(), mounts: this.mounts.wanted() });
  }

  createPool(name: string, drives: readonly DriveRequest[]): Promise<PoolAnswer> {
    return this.#change(async () => {
      await this.pools.create(name, drives);
      this.#save();
      return await this.pools.answer(name);
    });
  }

  importPool(drives: readonly Buffer[]): Promise<PoolAnswer> {
    return this.#change(async () => {
      const { name } = await this.pools.import(drives);
      this.#save();
      return await this.pools.answer(name);
    });
  }

  addDrive(name: string, drive: DriveRequest): Promise<PoolAnswer> {
    return this.#changeDrives(name, () => this.pools.addDrive(name, drive));
  }

  removeDrive(name: string, drive: string): Promise<PoolAnswer> {
    return this.#changeDrives(name, () => this.pools.removeDrive(name, drive));
  }

  replaceDrive(name: string, old: string, drive: DriveRequest): Promise<PoolAnswer> {
    return this.#changeDrives(name, () => this.pools.replaceDrive(name, old, drive));
  }

  labelDrive(name: string, drive: string, label: string): Promise<PoolAnswer> {
    return this.#changeDrives(name, () => this.pools.get(name).labelDrive(drive, label));
  }

  #changeDrives(name: string, change: () => Promise<void>): Promise<PoolAnswer> {
    return this.#change(async () => {
      await change();
      this.#save();
      return await this.pools.answer(name);
    });
  }

  destroyPool(name: string): Promise<void> {
    return this.#change(async () => {
      const volumes = (await this.pools.volumes()).filter(({ pool }) => pool === name);
      const mounted = volumes.flatMap(({ volume }) => this.mounts.anyOf(volume.name) ?? []);
      if (mounted.length > 0) {
        const names = mounted.map(({ volume }) => volume).join(", ");
        throw new HoldfastError(
          "Conflict",
          `pool ${name} has mounted volumes: ${names}`,
          "unmount them first",
        );
      }
      await this.pools.destroy(name);
      this.#save();
    });
  }

  createVolume(pool: string, request: VolumeRequest): Promise<VolumeAnswer> {
    return this.#change(async () => {
      checkName("volume", request.name);
      if (request.group !== undefined) checkName("group", request.group);
      const there = (await this.pools.volumes()).find(({ volume }) => volume.name === request.name);
      if (there !== undefined) {
        throw new HoldfastError("Conflict", `volume ${request.name} exists already, in pool ${there.pool}`);
      }
      const target = this.pools.get(pool);
      return await this.#volumeAnswer(pool, await target.createVolume(request));
    });
  }

  setVolume(name: string, change: VolumeChange): Promise<VolumeAnswer> {
    return this.#change(async () => {
      const { pool } = await this.pools.findVolume(name);
      await this.pools.get(pool).setVolume(name, change);
      return await this.volume(name);
    });
  }

  /** What a group, or the group of a volume that is alone in it, keeps by itself. Answers with its volumes. */
  setRetention(target: string, change: RetentionChange, how: { yes: boolean }): Promise<VolumeAnswer[]> {
    return this.#change(async () => {
      const { history } = await this.pools.findTarget(target);
      const members = async () =>
        (await this.volumes()).filter(({ name, group }) => name === target || group === target);
      const [{ retention } = { retention: undefined }] = await members();
      const window = change.windowSeconds ?? retention?.windowSeconds;
      const steps = change.thin ?? retention?.thin.filter(({ forSeconds }) => forSeconds > (window ?? 0));
      if (window === 0 && steps?.length === 0 && !how.yes) {
        throw new HoldfastError(
          "NeedsYes",
          `${target} would keep nothing of the past by itself: ${retention?.ticks ?? 0} points go`,
          "add --yes to do it; snapshots stay in any case",
        );
      }
      await history.setRetention(target, change);
      return await members();
    });
  }

  renameVolume(name: string, newName: string): Promise<VolumeAnswer> {
    return this.#change(async () => {
      checkName("volume", newName);
      const { pool } = await this.pools.findVolume(name);
      this.#requireUnmounted(name);
      if ((await this.pools.volumes()).some(({ volume }) => volume.name === newName)) {
        throw new HoldfastError("Conflict", `volume ${newName} exists already`);
      }
      await this.pools.get(pool).renameVolume(name, newName);
      return await this.volume(newName);
    });
  }

  destroyVolume(name: string): Promise<void> {
    return this.#change(async () => {
      // A damaged group is given up as a whole, by its own name.
      const damaged = (await this.pools.volumes()).filter(
        ({ volume }) => volume.group === name && volume.problem !== "",
      );
      for (const { volume } of damaged) this.#requireUnmounted(volume.name);
      const { pool } = damaged[0] ?? (await this.pools.findVolume(name));
      this.#requireUnmounted(name);
      await this.pools.get(pool).destroyVolume(name);
    });
  }

  #requireUnmounted(volume: string): void {
    const mount = this.mounts.anyOf(volume);
    if (mount === undefined) return;
    const dir = mount.path ?? "its mount point";
    throw new HoldfastError(
      "Conflict",
      `volume ${volume} is mounted at ${dir}`,
      `first: holdfast umount ${dir}`,
    );
  }

  /** Snapshots wait for nothing else that the daemon does. */
  async history(target: string): Promise<History> {
    this.#requireRunning();
    return (await this.pools.findTarget(target)).history;
  }

  clone(source: string, name: string, at?: string): Promise<VolumeAnswer[]> {
    return this.#change(async () => {
      checkName("volume", name);
      const pool = await this.pools.findTarget(source);
      const there = (await this.pools.volumes()).find(({ volume }) => volume.name === name);
      if (there !== undefined) {
        throw new HoldfastError("Conflict", `volume ${name} exists already, in pool ${there.pool}`);
      }
      const made = await pool.clone(source, name, at);
      return await Promise.all(made.map((volume) => this.#volumeAnswer(pool.identity.name, volume)));
    });
  }

  /** Clones of a volume or group, or all; `tableBytesMax`: with what each holds, where that reads no more of tables. */
  async clones(origin: string | undefined, tableBytesMax: number): Promise<CloneAnswer[]> {
    const volumes = await this.volumes();
    const groups = origin === undefined ? undefined : await this.#groupsOf(volumes, origin);
    const found = volumes.flatMap((volume) =>
      volume.base === null || groups?.has(volume.base.group) === false
        ? []
        : [{ ...volume, base: volume.base }],
    );
    if (tableBytesMax === 0) return found;
    return await Promise.all(
      found.map(async (clone) => ({ ...clone, holds: await this.#holds(clone, tableBytesMax) })),
    );
  }

  async #holds({ pool, name }: CloneAnswer, tableBytesMax: number): Promise<CloneSpace | null> {
    try {
      return await this.pools.get(pool).cloneSpace(name, tableBytesMax);
    } catch (error) {
      // It would take long; or it was promoted or destroyed just now.
      if (error instanceof HoldfastError && ["Unavailable", "Invalid", "NotFound"].includes(error.code))
        return null;
      throw error;
    }
  }

  /** What is left of a parent whose volumes were destroyed has only its clones' word. */
  async #groupsOf(volumes: readonly VolumeAnswer[], origin: string): Promise<Set<string>> {
    const named = volumes.filter(({ name, group }) => name === origin || group === origin);
    const groups = new Set(named.map(({ group }) => group));
    if (volumes.some(({ base }) => base?.group === origin)) groups.add(origin);
    if (groups.size === 0) await this.pools.findVolume(origin);
    return groups;
  }

  /** Goes on in the background, also after a restart; `promotion` of the volumes tells how far it is. */
  promote(target: string): Promise<PromoteAnswer> {
    return this.#change(async () => {
      const pool = await this.pools.findTarget(target);
      const begun = await pool.promote(target);
      const members = (await this.volumes()).filter(({ name, group }) => name === target || group === target);
      return { already: !begun, volumes: members };
    });
  }

  mount(wanted: WantedMount): Promise<MountResult> {
    return this.#change(async () => {
      checkName("volume", wanted.volume);
      const result = await this.mounts.mount(wanted);
      this.#save();
      return result;
    });
  }

  unmount(dir: Buffer, how: { detach: boolean }): Promise<UmountResult> {
    return this.#change(async () => {
      const result = await this.mounts.unmount(dir, how);
      this.#save();
      return result;
    });
  }

  /** Ends every mount of these volumes, busy or not; nobody wants them back. */
  endMounts(volumes: readonly string[]): Promise<void> {
    return this.#change(async () => {
      if (await this.mounts.end(volumes)) this.#save();
    });
  }

  applyPolicies(file: string, text: string, how: { yes: boolean }): Promise<PolicyAnswer> {
    return this.#change(async () => {
      await this.policies.apply(file, text, how);
      return this.policies.answer();
    });
  }

  async volumes(pool?: string): Promise<VolumeAnswer[]> {
    const found = await this.pools.volumes();
    const all = await Promise.all(found.map((one) => this.#volumeAnswer(one.pool, one.volume)));
    return pool === undefined ? all : all.filter((volume) => volume.pool === pool);
  }

  async volume(name: string): Promise<VolumeAnswer> {
    const { pool, volume } = await this.pools.findVolume(name);
    return await this.#volumeAnswer(pool, volume);
  }

  async #volumeAnswer(pool: string, volume: VolumeStatus): Promise<VolumeAnswer> {
    const replicaOf = volume.problem === "" ? await this.#replicaOf(pool, volume.group) : null;
    return { ...volume, pool, replicaOf, mount: this.mounts.of(volume.name) ?? null };
  }

  async #replicaOf(pool: string, group: string): Promise<ReplicaAnswer | null> {
    try {
      const state = await this.pools.get(pool).replication.state(group);
      if (state?.isReplica !== true) return null;
      const { source, lsn, localLsn, wallSeconds, wallNanoseconds } = state;
      const time = lsn === 0n ? null : isoTime(wallSeconds, wallNanoseconds);
      return { group: source, lsn: Number(lsn), localLsn: Number(localLsn), time };
    } catch (error) {
      // It was destroyed just now.
      if (error instanceof HoldfastError && error.code === "NotFound") return null;
      throw error;
    }
  }

  async status(): Promise<StatusAnswer> {
    const { folder, runtime } = this.#options;
    const problems = [...this.pools.problems(), ...this.mounts.problems()];
    const serving = this.#phase === "running";
    const pools = serving ? await this.pools.answers() : [];
    const slow = `rings lie on ${runtime.path}, which is no tmpfs: acknowledged writes cost a buffered write`;
    return {
      ready: serving && problems.length === 0,
      phase: this.#phase,
      version: addonVersion(),
      pid: process.pid,
      uptimeSeconds: Math.round((performance.now() - this.#startedAt) / 1000),
      state: pathToJson(Buffer.from(folder.path)),
      pools,
      volumes: serving ? await this.volumes() : [],
      mounts: this.mounts.answers(),
      policies: this.policies.answers(),
      protections: [],
      failovers: [],
      warnings: [
        ...problems,
        ...pools.flatMap(poolWarnings),
        ...this.policies.warnings(),
        ...(runtime.tmpfs ? [] : [slow]),
      ],
    };
  }

  /** Flushes, unmounts, closes. What is mounted stays wanted. */
  stop(): Promise<void> {
    this.#phase = "stopping";
    clearTimeout(this.#watch);
    return this.#turns.take(async () => {
      const { config, log } = this.#options;
      try {
        await this.policies.stop();
        await this.pools.flush();
        await this.mounts.stopAll(config.stop.graceSeconds * 1000);
      } finally {
        await this.pools.close();
      }
      log.info({ state: pathToText(Buffer.from(this.#options.folder.path)) }, "stopped");
    });
  }
}

function poolWarnings({ name, status }: PoolAnswer): string[] {
  return (status?.warnings ?? []).map((warning) => `pool ${name}: ${warning}`);
}
