// An open pool and its volumes.

import { native, unwrap, exact } from "./addon.js";
import type { DriveSpec, PoolIdentity, VolumeCreate } from "./addon.js";
import { toCloneBase, toCloneSpace, toPromotion } from "./clones.js";
import type { CloneBase, CloneSpace, Promotion } from "./clones.js";
import { History, fromThin, toRetention } from "./history.js";
import type { Retention, ThinStep } from "./history.js";
import { Replication } from "./replica.js";
import { Mount } from "./mount.js";
import type { MountRequest } from "./mount.js";

export interface EngineOptions {
  memtableBytes: number;
  ringBytes: number;
  metadataCacheBytes: number;
  dataCacheBytes: number;
  /** Folder for the rings of groups, on a tmpfs where there is one. */
  runtimeDir: Buffer;
  /** Every second is kept for so long, and then what `thin` says, where a group was told nothing else. */
  retentionSeconds: number;
  thin: ThinStep[];
  historyLimitPercent: number;
  /** Rebuilding beside other work, and balancing: bytes a second. */
  healBytesPerSecond: number;
}

export interface DriveRequest {
  path: Buffer;
  bytes?: number | undefined;
  domain: string;
}

export interface DriveStatus {
  uuid: string;
  path: string;
  domain: string;
  /** `active`, `slow`, `failing`, `draining`, `out`, `missing` or `stale`. */
  state: string;
  reason: string;
  /** Since when, in seconds since 1970; 0: since before the pool was opened. */
  sinceSeconds: number;
  /** What reads and writes took lately; 0: not measured. */
  readMicroseconds: number;
  writeMicroseconds: number;
  totalBytes: number;
  freeBytes: number;
  buffered: boolean;
}

export interface PoolStatus {
  name: string;
  uuid: string;
  slotBytes: number;
  totalBytes: number;
  freeBytes: number;
  evictableBytes: number;
  reserveBytes: number;
  logBytes: number;
  metadataBytes: number;
  dataBytes: number;
  /** Whose the data is, on drives, all copies: with log, metadata and free room the whole. */
  usage: PoolUsage;
  historyWindowSeconds: number;
  drives: DriveStatus[];
  warnings: string[];
  counters: Record<string, number>;
  /** Rebuilding of copies that were lost with a drive. */
  healing: {
    thingsLeft: number;
    bytesLeft: number;
    bytesDone: number;
    /** Null: nothing to do, or not known yet. */
    etaSeconds: number | null;
    /** Of what lacks copies: pieces with one copy left, and their bytes. */
    thingsSingle: number;
    bytesSingle: number;
    /** Tables and egroups without a copy on any drive that is there. */
    thingsLost: number;
    /** Pieces with copies that should be further apart. */
    thingsMisplaced: number;
    /** To be moved so that drives are filled evenly. */
    bytesUnbalanced: number;
    stuck: string[];
  };
  /** The newest things that happened to drives, oldest first. */
  events: PoolEvent[];
  /** The background's scrub. */
  scrub: ScrubStatus;
}

/** Bytes on drives, all copies. */
export interface PoolUsage {
  /** What the present of volumes that are no clones stores. */
  liveBytes: number;
  /** What the present of clones stores beside what they have of their parents. */
  cloneBytes: number;
  /** What only kept seconds hold. */
  historyBytes: number;
  /** What snapshots hold, and clones of their parents' past; estimated. */
  snapshotBytes: number;
  /** What cleaning will give back: dead pages, footers, gaps. */
  deadBytes: number;
}

/** The same of one group. */
export interface GroupUsage {
  liveBytes: number;
  historyBytes: number;
  snapshotBytes: number;
  logBytes: number;
  metadataBytes: number;
}

/** What `df` says of a volume: bytes of content, once. */
export interface VolumeSpace {
  totalBytes: number;
  freeBytes: number;
  availableBytes: number;
}

export interface PoolEvent {
  /** Counted from 1 since the pool was opened. */
  number: number;
  atSeconds: number;
  what: string;
}

export interface ScrubStatus {
  running: boolean;
  /** 0: none yet. */
  pass: number;
  /** Seconds since 1970. */
  startedSeconds: number;
  badCopies: number;
  repaired: number;
  lost: number;
  /** Until the pass ends; null: none runs. */
  etaSeconds: number | null;
  findings: string[];
}

/** What a scrub on demand looked at and found. */
export interface ScrubReport {
  tables: number;
  pages: number;
  footers: number;
  frames: number;
  /** Read, all copies together. */
  bytes: number;
  badCopies: number;
  repaired: number;
  /** Pieces that no copy has right. */
  lost: number;
  findings: string[];
}

export interface VolumeStatus {
  name: string;
  group: string;
  /** Its number in the group, the same at all sites; 0: not known. */
  branch: number;
  rf: number;
  /** Copies that a write needs to count. */
  minWriteCopies: number;
  /** What it does with fewer. */
  below: "block" | "fail";
  /** What no two copies share. */
  domain: string;
  /** What of its promises cannot be kept now; empty: all are. */
  trouble: string;
  ack: "fsync" | "write";
  /** 0: none. */
  quotaBytes: number;
  /** Who may look at its past in a mount. */
  past: PastAccess;
  /** What its group is a clone of; null: of nothing. */
  base: CloneBase | null;
  /** It is to stand alone, and does not yet; null: nobody asked for that, or it does. */
  promotion: Promotion | null;
  createdSeconds: number;
  newestLsn: number;
  durableLsn: number;
  drainedLsn: number;
  /** What its group keeps of the past by itself. */
  retention: Retention;
  /** Of its group, on drives. */
  usage: GroupUsage;
  space: VolumeSpace;
  /** Why it cannot be used: its group is damaged. Empty: it can. */
  problem: string;
}

export interface VolumeRequest {
  name: string;
  rf: number;
  group?: string | undefined;
  ack: "fsync" | "write";
  quotaBytes: number;
  /** Absent: RF - 1, at least 1. */
  minWriteCopies?: number | undefined;
  below: "block" | "fail";
  domain: DomainLevel;
}

/** Everybody with the rights that they had then, the owner of the volume's root, or nobody. */
export type PastAccess = "all" | "owner" | "off";

export type DomainLevel = "drive" | "node" | "block" | "rack";

/** What to change of a volume; absent: nothing. */
export interface VolumeChange {
  rf?: number | undefined;
  minWriteCopies?: number | undefined;
  below?: "block" | "fail" | undefined;
  domain?: DomainLevel | undefined;
  /** 0: none. */
  quotaBytes?: number | undefined;
  past?: PastAccess | undefined;
}

export class Pool {
  readonly #handle: number;
  readonly history: History;
  readonly replication: Replication;

  private constructor(
    readonly identity: PoolIdentity,
    handle: number,
  ) {
    this.#handle = handle;
    this.history = new History(handle);
    this.replication = new Replication(handle);
  }

  /** Creates a pool on empty directories and opens it. */
  static async create(name: string, drives: readonly DriveRequest[], options: EngineOptions): Promise<Pool> {
    return Pool.#opened(
      unwrap(await native.poolCreate(name, drives.map(toDriveSpec), toPoolOptions(options))),
    );
  }

  /** Opens a pool from its drives, replaying what is needed. */
  static async open(drives: readonly Buffer[], options: EngineOptions): Promise<Pool> {
    return Pool.#opened(unwrap(await native.poolOpen([...drives], toPoolOptions(options))));
  }

  /** What lies on a path; fails when it is no drive of a pool. */
  static async probe(path: Buffer): Promise<PoolIdentity> {
    return unwrap(await native.poolProbe(path));
  }

  static async #opened(handle: number): Promise<Pool> {
    try {
      const { name, uuid } = unwrap(await native.poolStatus(handle));
      return new Pool({ name, uuid }, handle);
    } catch (error) {
      await native.poolClose(handle);
      throw error;
    }
  }

  async status(): Promise<PoolStatus> {
    return toPoolStatus(unwrap(await native.poolStatus(this.#handle)));
  }

  /** Everything acknowledged is durable when it fulfils. */
  async flush(): Promise<void> {
    unwrap(await native.poolFlush(this.#handle));
  }

  /** Drains and compacts until nothing is left to do. */
  async settle(): Promise<void> {
    unwrap(await native.poolSettle(this.#handle));
  }

  async addDrive(drive: DriveRequest): Promise<void> {
    unwrap(await native.poolAddDrive(this.#handle, toDriveSpec(drive)));
  }

  /** Empties a drive (path or uuid) in the background; it leaves the status when it is out of the pool. */
  async removeDrive(drive: string): Promise<void> {
    unwrap(await native.poolRemoveDrive(this.#handle, drive));
  }

  /** Gives a drive (path or uuid) another label `rack/block/node/drive`. */
  async labelDrive(drive: string, label: string): Promise<void> {
    unwrap(await native.poolLabelDrive(this.#handle, drive, label));
  }

  async replaceDrive(old: string, drive: DriveRequest): Promise<void> {
    unwrap(await native.poolReplaceDrive(this.#handle, old, toDriveSpec(drive)));
  }

  /** Verifies every copy of everything, or of one volume, and repairs what is wrong. */
  async scrub(volume?: string): Promise<ScrubReport> {
    const report = unwrap(await native.poolScrub(this.#handle, volume));
    return {
      tables: exact(report.tables),
      pages: exact(report.pages),
      footers: exact(report.footers),
      frames: exact(report.frames),
      bytes: exact(report.bytes),
      badCopies: exact(report.badCopies),
      repaired: exact(report.repaired),
      lost: exact(report.lost),
      findings: report.findings,
    };
  }

  /** The pool cannot be used afterwards, also when this fails. */
  async close(): Promise<void> {
    unwrap(await native.poolClose(this.#handle));
  }

  async volumes(): Promise<VolumeStatus[]> {
    return unwrap(await native.volumeList(this.#handle)).map(toVolumeStatus);
  }

  async createVolume(request: VolumeRequest): Promise<VolumeStatus> {
    const create: VolumeCreate = {
      name: request.name,
      rf: request.rf,
      ackWrite: request.ack === "write",
      quotaBytes: BigInt(request.quotaBytes),
      failBelow: request.below === "fail",
      domain: request.domain,
      ...(request.minWriteCopies === undefined ? {} : { minWriteCopies: request.minWriteCopies }),
      ...(request.group === undefined ? {} : { group: request.group }),
    };
    return toVolumeStatus(unwrap(await native.volumeCreate(this.#handle, create)));
  }

  async renameVolume(name: string, newName: string): Promise<void> {
    unwrap(await native.volumeRename(this.#handle, name, newName));
  }

  /** Changes a volume, mounted or not; what lies on the drives follows in the background. */
  async setVolume(name: string, change: VolumeChange): Promise<void> {
    const { rf, minWriteCopies, below, domain, quotaBytes, past } = change;
    const set = {
      ...(rf === undefined ? {} : { rf }),
      ...(minWriteCopies === undefined ? {} : { minWriteCopies }),
      ...(below === undefined ? {} : { failBelow: below === "fail" }),
      ...(domain === undefined ? {} : { domain }),
      ...(quotaBytes === undefined ? {} : { quotaBytes: BigInt(quotaBytes) }),
      ...(past === undefined ? {} : { past }),
    };
    unwrap(await native.volumeSet(this.#handle, name, set));
  }

  /** A writable copy of a volume, or of every volume of a group, as it is or was. */
  async clone(source: string, name: string, at?: string): Promise<VolumeStatus[]> {
    return unwrap(await native.cloneCreate(this.#handle, source, name, at)).map(toVolumeStatus);
  }

  /** Lets a clone (a group, or a volume alone in its) have everything of its own, in the background. False: it has. */
  async promote(target: string): Promise<boolean> {
    return unwrap(await native.clonePromote(this.#handle, target));
  }

  /** What a clone holds; `Unavailable` when that would read more than so many bytes of tables. */
  async cloneSpace(volume: string, tableBytesMax: number): Promise<CloneSpace> {
    return toCloneSpace(unwrap(await native.cloneSpace(this.#handle, volume, BigInt(tableBytesMax))));
  }

  async destroyVolume(name: string): Promise<void> {
    unwrap(await native.volumeDestroy(this.#handle, name));
  }

  /** Mounts a volume; fulfils when the mount answers. */
  async mount(volume: string, request: MountRequest): Promise<Mount> {
    return new Mount(unwrap(await native.mountStart(this.#handle, volume, { ...request })));
  }
}

function toDriveSpec(drive: DriveRequest): DriveSpec {
  const spec: DriveSpec = { path: drive.path, domain: drive.domain };
  return drive.bytes === undefined ? spec : { ...spec, bytes: BigInt(drive.bytes) };
}

function toPoolOptions(options: EngineOptions): Parameters<typeof native.poolOpen>[1] {
  return {
    memtableBytes: BigInt(options.memtableBytes),
    ringBytes: BigInt(options.ringBytes),
    metadataCacheBytes: BigInt(options.metadataCacheBytes),
    dataCacheBytes: BigInt(options.dataCacheBytes),
    runtimeDir: options.runtimeDir,
    retentionS: BigInt(options.retentionSeconds),
    thin: fromThin(options.thin),
    historyLimitPercent: options.historyLimitPercent,
    healBytesPerS: BigInt(options.healBytesPerSecond),
  };
}

type NativePoolStatus = Exclude<Awaited<ReturnType<typeof native.poolStatus>>, { failure: unknown }>;
type NativeVolume = Exclude<Awaited<ReturnType<typeof native.volumeList>>, { failure: unknown }>[number];

function toDriveStatus(drive: NativePoolStatus["drives"][number]): DriveStatus {
  const { uuid, path, domain, state, reason, buffered } = drive;
  return {
    uuid,
    path,
    domain,
    state,
    reason,
    buffered,
    sinceSeconds: drive.sinceS,
    readMicroseconds: Math.round(exact(drive.readNs) / 1000),
    writeMicroseconds: Math.round(exact(drive.writeNs) / 1000),
    totalBytes: exact(drive.totalBytes),
    freeBytes: exact(drive.freeBytes),
  };
}

function toPoolStatus(status: NativePoolStatus): PoolStatus {
  return {
    name: status.name,
    uuid: status.uuid,
    slotBytes: status.slotBytes,
    totalBytes: exact(status.totalBytes),
    freeBytes: exact(status.freeBytes),
    evictableBytes: exact(status.evictableBytes),
    reserveBytes: exact(status.reserveBytes),
    logBytes: exact(status.logBytes),
    metadataBytes: exact(status.metadataBytes),
    dataBytes: exact(status.dataBytes),
    usage: {
      liveBytes: exact(status.usage.liveBytes),
      cloneBytes: exact(status.usage.cloneBytes),
      historyBytes: exact(status.usage.historyBytes),
      snapshotBytes: exact(status.usage.snapshotBytes),
      deadBytes: exact(status.usage.deadBytes),
    },
    historyWindowSeconds: exact(status.historyWindowS),
    drives: status.drives.map(toDriveStatus),
    warnings: status.warnings,
    counters: Object.fromEntries(status.counters.map(({ name, value }) => [name, exact(value)])),
    healing: {
      thingsLeft: exact(status.healing.thingsLeft),
      bytesLeft: exact(status.healing.bytesLeft),
      bytesDone: exact(status.healing.bytesDone),
      etaSeconds: status.healing.etaS === undefined ? null : exact(status.healing.etaS),
      thingsSingle: exact(status.healing.thingsSingle),
      bytesSingle: exact(status.healing.bytesSingle),
      thingsLost: exact(status.healing.thingsLost),
      thingsMisplaced: exact(status.healing.thingsMisplaced),
      bytesUnbalanced: exact(status.healing.bytesUnbalanced),
      stuck: status.healing.stuck,
    },
    events: status.events.map(({ number, atS, what }) => ({ number, atSeconds: atS, what })),
    scrub: {
      running: status.scrub.running,
      pass: exact(status.scrub.pass),
      startedSeconds: exact(status.scrub.startedS),
      badCopies: exact(status.scrub.badCopies),
      repaired: exact(status.scrub.repaired),
      lost: exact(status.scrub.lost),
      etaSeconds: status.scrub.etaS === undefined ? null : exact(status.scrub.etaS),
      findings: status.scrub.findings,
    },
  };
}

function toVolumeStatus(volume: NativeVolume): VolumeStatus {
  return {
    name: volume.name,
    group: volume.group,
    branch: volume.branch,
    rf: volume.rf,
    minWriteCopies: volume.minWriteCopies,
    below: volume.failBelow ? "fail" : "block",
    domain: volume.domain,
    trouble: volume.trouble,
    ack: volume.ackWrite ? "write" : "fsync",
    quotaBytes: exact(volume.quotaBytes),
    past: volume.past as PastAccess,
    base: volume.base === undefined ? null : toCloneBase(volume.base),
    promotion: volume.promotion === undefined ? null : toPromotion(volume.promotion),
    createdSeconds: volume.createdS,
    newestLsn: exact(volume.newestLsn),
    durableLsn: exact(volume.durableLsn),
    drainedLsn: exact(volume.drainedLsn),
    retention: toRetention(volume.retention),
    usage: {
      liveBytes: exact(volume.usage.liveBytes),
      historyBytes: exact(volume.usage.historyBytes),
      snapshotBytes: exact(volume.usage.snapshotBytes),
      logBytes: exact(volume.usage.logBytes),
      metadataBytes: exact(volume.usage.metadataBytes),
    },
    space: {
      totalBytes: exact(volume.space.totalBytes),
      freeBytes: exact(volume.space.freeBytes),
      availableBytes: exact(volume.space.availableBytes),
    },
    problem: volume.problem,
  };
}
