// The daemon's HTTP API on STATE/admin.sock: every path, request and answer. Shared with the command line, which
// imports nothing else of the daemon. Paths are versioned; a field may be added, none changes its meaning.
//
//   GET    /v1/status                      StatusAnswer; 503 until replay and remounts are done
//   GET    /v1/pools                       PoolAnswer[]
//   POST   /v1/pools                       PoolCreateRequest → PoolAnswer
//   POST   /v1/pools/import                PoolImportRequest → PoolAnswer
//   GET    /v1/pools/NAME                  PoolAnswer
//   DELETE /v1/pools/NAME                  {} ; destroys every volume in it
//   POST   /v1/pools/NAME/drives           DriveRequest → PoolAnswer
//   DELETE /v1/pools/NAME/drives/DRIVE     PoolAnswer ; empties it first
//   POST   /v1/pools/NAME/replace-drive    DriveRequest with `old` → PoolAnswer
//   POST   /v1/pools/NAME/label            DriveLabelRequest → PoolAnswer
//   POST   /v1/pools/NAME/scrub            ScrubReport, when it is done
//   POST   /v1/volumes/NAME/scrub          ScrubReport, when it is done
//   GET    /v1/volumes[?pool=NAME]         VolumeAnswer[]
//   POST   /v1/volumes                     VolumeCreateRequest → VolumeAnswer
//   GET    /v1/volumes/NAME                VolumeAnswer
//   PATCH  /v1/volumes/NAME                VolumeSetRequest → VolumeAnswer
//   PATCH  /v1/retention/TARGET            RetentionSetRequest → VolumeAnswer[] ; TARGET as for snapshots
//   POST   /v1/volumes/NAME/rename         VolumeRenameRequest → VolumeAnswer
//   DELETE /v1/volumes/NAME                {}
//   GET    /v1/snapshots?target=T          SnapshotAnswer[] ; after=LSN, limit=N, seconds=true, space=quick|whole
//   POST   /v1/would-free                  WouldFreeRequest → WouldFreeAnswer ; nothing is deleted
//   POST   /v1/snapshots                   SnapshotCreateRequest → SnapshotAnswer
//   DELETE /v1/snapshots/TARGET/NAME       {}
//   POST   /v1/snapshots/TARGET/NAME/rename  { name } → {}
//   POST   /v1/snapshots/TARGET/NAME/hold  { held } → {}
//   GET    /v1/point?target=T&at=WORDS     SnapshotAnswer ; the kept point that is meant
//   GET    /v1/volumes/NAME/difference?from=WORDS  DifferenceAnswer ; to=WORDS, first=INODE, limit=N: next page
//   GET    /v1/clones?origin=T             CloneAnswer[] ; space=quick|whole
//   POST   /v1/clones                      CloneRequest → VolumeAnswer[]
//   POST   /v1/clones/TARGET/promote       {} → PromoteAnswer ; in the background, see `promotion`
//   GET    /v1/mounts                      MountAnswer[]
//   POST   /v1/mounts                      MountRequest → MountResult
//   POST   /v1/umount                      UmountRequest → UmountResult
//   GET    /v1/policy                      PolicyAnswer
//   POST   /v1/policy                      PolicyApplyRequest → PolicyAnswer
//   POST   /v1/policy/test                 PolicyTestRequest → PolicyForecast[] ; nothing is changed
//   GET    /v1/peers                       PeerAnswer[]
//   PATCH  /v1/peers/NAME                  PeerSetRequest → PeerAnswer
//   DELETE /v1/peers/NAME                  {} ; its connections end at once
//   POST   /v1/peers/invite                PeerInviteRequest → PeerInviteAnswer ; ends an invite that is open
//   GET    /v1/peers/invite/ID[?wait=S]    PeerInviteStatus ; waits up to S seconds for its end
//   DELETE /v1/peers/invite/ID             {}
//   POST   /v1/peers/join                  PeerJoinRequest → PeerAnswer
//   GET    /v1/protections                 ProtectionAnswer[]
//   POST   /v1/protections                 ProtectRequest → ProtectionAnswer
//   DELETE /v1/protections/TARGET/PEER     {} ; the replica stays as it is
//   POST   /v1/failovers                   FailoverRequest → FailoverAnswer
//   POST   /v1/failovers/planned           PlannedRequest → PlannedAnswer
//   GET    /v1/failovers/:target/statement LossStatement
//   GET    /v1/failovers/tests             TestFailoverAnswer[]
//   POST   /v1/failovers/tests             TestFailoverRequest → TestFailoverAnswer
//   DELETE /v1/failovers/tests/TARGET      TestFailoverDropAnswer ; its clone goes with it
//   POST   /v1/yields                      YieldRequest → YieldAnswer
//   GET    /v1/forks                       ForkAnswer[]
//   GET    /v1/forks/NAME                  ForkAnswer ; with `changes`
//   DELETE /v1/forks/NAME?yes=true         {} ; for good
//   POST   /v1/verifications               VerifyRequest → VerificationAnswer ; it goes on in the background
//   GET    /v1/verifications/TARGET/PEER   VerificationAnswer ; how it fares, or how the last one ended
//   DELETE /v1/verifications/TARGET/PEER   VerificationAnswer ; it ends before its next step
//   POST   /v1/flush                       {} ; everything acknowledged is durable
//   GET    /metrics                        Prometheus text
//
// Sizes are bytes, or text with a unit (`64MiB`). A failure is an ErrorBody with a fitting HTTP status.

import type { ErrorCode } from "../io-path/errors.js";
import type {
  DifferencePage,
  FeedPage,
  FileChange,
  Snapshot,
  SnapshotSpace,
  WouldFree,
} from "../io-path/history.js";
import type { CloneBase, CloneSpace } from "../io-path/clones.js";
import type { PathJson } from "../io-path/paths.js";
import type { InviteState } from "../nearsync-lws/pairing/host.js";
import type { Role } from "../nearsync-lws/peers.js";
import type { FailoverLoss, ProtectionAnswer, ReplicaAnswer } from "./protocol-sites.js";
import type {
  DomainLevel,
  DriveStatus,
  PastAccess,
  PoolStatus,
  ScrubReport,
  VolumeStatus,
} from "../io-path/pool.js";

export type {
  DomainLevel,
  DriveStatus,
  ErrorCode,
  InviteState,
  PastAccess,
  PathJson,
  PoolStatus,
  Role,
  ScrubReport,
  VolumeStatus,
};
export type {
  FailoverAnswer,
  LossAnswer,
  LossStatement,
  OtherReplica,
  FailoverRequest,
  ForkAnswer,
  ForkChanges,
  PeerAnswer,
  PeerInviteAnswer,
  PeerInviteRequest,
  PeerInviteStatus,
  PeerJoinRequest,
  PeerPairRequest,
  PeerSetRequest,
  PlannedAnswer,
  PlannedRequest,
  ProtectRequest,
  ProtectionAnswer,
  ReconciledLoss,
  ReplicaAnswer,
  TestFailoverAnswer,
  TestFailoverDropAnswer,
  TestFailoverRequest,
  YieldAnswer,
  YieldRequest,
} from "./protocol-sites.js";
export type { Mismatch, VerificationAnswer, VerifyRequest } from "./protocol-verify.js";

export const ADMIN_SOCKET = "admin.sock";

export interface ErrorBody {
  code: ErrorCode;
  message: string;
  hint: string;
}

/** Exit codes of the command line: a stable contract. */
export const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  Internal: 1,
  Invalid: 2,
  Unavailable: 3,
  Closed: 3,
  NotFound: 4,
  Conflict: 5,
  NoSpace: 6,
  Corrupt: 7,
  Fenced: 8,
  Denied: 9,
  NeedsYes: 10,
  Damage: 11,
  Different: 12,
};

/** Bytes, or text with a unit. */
export type Size = number | string;

export interface DriveRequest extends PathJson {
  size?: Size | undefined;
  domain?: string | undefined;
}

export interface PoolCreateRequest {
  name: string;
  drives: DriveRequest[];
}

export interface PoolImportRequest {
  drives: PathJson[];
}

export interface VolumeCreateRequest {
  name: string;
  pool: string;
  rf?: number | undefined;
  group?: string | undefined;
  ack?: "fsync" | "write" | undefined;
  quota?: Size | undefined;
  /** Copies that a write needs to count; default: rf - 1, at least 1. */
  minWriteCopies?: number | undefined;
  /** What it does with fewer: wait (default) or fail. */
  below?: "block" | "fail" | undefined;
  /** What no two copies share; default: a drive. */
  domain?: DomainLevel | undefined;
}

/** At least one field. */
export interface VolumeSetRequest {
  rf?: number | undefined;
  /** 0: the default. */
  minWriteCopies?: number | undefined;
  below?: "block" | "fail" | undefined;
  domain?: DomainLevel | undefined;
  /** 0 takes the quota off. */
  quota?: Size | undefined;
  /** Who may look at its past in a mount. */
  past?: PastAccess | undefined;
}

/** What a group keeps by itself. At least one field; what is not given stays. */
export interface RetentionSetRequest {
  /** Every second is kept for so long: `1h`. */
  retention?: string | undefined;
  /** And then these: `1m:24h,1h:7d`, or `none`. */
  thin?: string | undefined;
  /** Bytes on drives, or a share of the pool (`10%`), or `none`: only the pool's limit. */
  historyLimit?: Size | undefined;
  /** Also when nothing is kept then. */
  yes?: boolean | undefined;
}

export interface DriveLabelRequest {
  /** Path or uuid. */
  drive: string;
  label: string;
}

export interface VolumeRenameRequest {
  name: string;
}

/** A snapshot belongs to a group; a target is a group, or a volume that is alone in its group. */
export interface SnapshotAnswer extends Snapshot {
  /** Where it was asked for, and did not take too long; null otherwise, and of a kept second. */
  space?: SnapshotSpace | null;
}

/** Snapshots that somebody thinks of deleting. */
export interface WouldFreeRequest {
  target: string;
  names: string[];
}

export type WouldFreeAnswer = WouldFree;

export interface SnapshotCreateRequest {
  target: string;
  name: string;
  /** Of an earlier moment that is kept still; absent: of now. */
  at?: string | undefined;
}

/** What became of one name or file between two points; the path is from the volume's root. */
export interface FileChangeAnswer extends Omit<FileChange, "path" | "oldPath">, PathJson {
  /** Where it was; null: it was not renamed. */
  old: PathJson | null;
}

export interface DifferenceAnswer extends Omit<DifferencePage, "changes"> {
  changes: FileChangeAnswer[];
}

export interface FeedChangeAnswer extends Omit<FileChangeAnswer, "kind"> {
  op: FileChange["kind"];
  /** LSN of the kept state that shows it first. All changes with one make a step: a set that leads to that state. */
  seenAt: number;
}

export interface FeedAnswer extends Omit<FeedPage, "changes"> {
  changes: FeedChangeAnswer[];
}

export interface CloneRequest {
  /** A volume, or a group with all its volumes. */
  source: string;
  name: string;
  /** A snapshot's name, a time, an LSN; absent: now. */
  at?: string | undefined;
}

/** A volume that is a clone. */
export interface CloneAnswer extends VolumeAnswer {
  base: CloneBase;
  /** Where it was asked for, and did not take too long; null otherwise. */
  holds?: CloneSpace | null;
}

export interface PromoteAnswer {
  /** It has everything of its own already. */
  already: boolean;
  /** Of the target. */
  volumes: VolumeAnswer[];
}

export interface MountRequest extends PathJson {
  volume: string;
  /** What was there then, for reading: a snapshot's name, a time, an LSN. */
  at?: string | undefined;
  /** As in mount(8): `ro`, `allow_other`, … */
  options: string[];
  /** Shown as the mount's source; the volume's name where it is not given. */
  source?: string | undefined;
}

export interface UmountRequest extends PathJson {
  /** Busy: detach; the file system goes when its last user does. */
  detach: boolean;
}

export interface PoolAnswer {
  name: string;
  uuid: string;
  /** `open`, or `failed` with the reason in `problem`. */
  state: "open" | "failed";
  problem: ErrorBody | null;
  drives: PathJson[];
  status: PoolStatus | null;
}

export interface VolumeAnswer extends VolumeStatus {
  pool: string;
  /** Another site's group that it is a replica of; null: it is none. */
  replicaOf: ReplicaAnswer | null;
  mount: MountAnswer | null;
}

export interface MountAnswer extends PathJson {
  volume: string;
  /** The LSN of an earlier state; null: the volume itself. */
  at: string | null;
  options: string[];
  /** `mounted`, or `failed` with the reason in `problem`: it is tried again. */
  state: "mounted" | "failed";
  /** `dev` or `uring`; empty while not mounted. */
  transport: string;
  /** Why it is that one, in words that finish "because"; empty while not mounted. */
  transportReason: string;
  problem: ErrorBody | null;
}

export interface MountResult {
  mount: MountAnswer;
  /** The volume was mounted there before. */
  already: boolean;
}

export interface UmountResult {
  volume: string;
  detached: boolean;
}

/** A policy that is applied, and how it fares. */
export interface PolicyStatus {
  name: string;
  /** Groups, or volumes that are alone in theirs. */
  targets: string[];
  /** `every 1h`, `cron 0 3 * * * (Europe/Berlin)`. */
  schedule: string;
  /** `24x1h` … */
  keep: string[];
  hold: boolean;
  prefix: string;
  running: boolean;
  /** Seconds since 1970. */
  nextSeconds: number;
  /** The last run that took every snapshot it should; null: none yet. */
  lastSuccessSeconds: number | null;
  /** Runs in a row that failed. */
  failures: number;
  /** What went wrong in the last run. */
  problems: string[];
  /** Snapshots since the daemon started. */
  taken: number;
  failed: number;
  pruned: number;
}

export interface PolicyAnswer {
  /** Null: nothing was ever applied. */
  applied: { file: string; text: string; appliedSeconds: number } | null;
  policies: PolicyStatus[];
}

export interface PolicyApplyRequest {
  /** For messages. */
  file: string;
  text: string;
  /** Also with a policy that keeps nothing. */
  yes: boolean;
}

export interface PolicyTestRequest {
  file: string;
  text: string;
  /** `7d`, or a time; default: a day. */
  until?: string | undefined;
}

/** What a policy would do to one target. */
export interface PolicyForecast {
  policy: string;
  target: string;
  schedule: string;
  nextRunsSeconds: number[];
  /** Snapshots of the policy that exist now. */
  there: number;
  /** Runs until then. */
  runs: number;
  prunedCount: number;
  /** The first of them. `exists`: it is there now. */
  pruned: { name: string; atSeconds: number; exists: boolean }[];
  /** What would be there then; nothing in `because`: the run after that would prune it. */
  kept: { name: string; wallSeconds: number; exists: boolean; because: string[] }[];
}

export interface StatusAnswer {
  /** Replay and remounts are done. */
  ready: boolean;
  phase: "starting" | "running" | "stopping";
  version: string;
  pid: number;
  uptimeSeconds: number;
  state: PathJson;
  pools: PoolAnswer[];
  volumes: VolumeAnswer[];
  mounts: MountAnswer[];
  policies: PolicyStatus[];
  protections: ProtectionAnswer[];
  failovers: FailoverLoss[];
  /** Sentences for the administrator. */
  warnings: string[];
}
