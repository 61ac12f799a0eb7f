// What must come out: the bars of the data plane (issue 3), of drives that fail (issue 4), of the speed work (issue 5),
// and of the past (issue 6; those that take long are in past/bars.ts only), as data.

import { SHORT_BARS } from "./past/bars.js";
import type { SystemName } from "./plan.js";

/** "libfuse" in a bar is the better of these in the run, by the median. */
export const libfuse: readonly SystemName[] = [
  "passthrough_ll",
  "passthrough_hp_uring",
  "passthrough_ll_uring",
];

export type Subject = "holdfast" | "holdfast_rf1";
export type Reference = Exclude<SystemName, Subject> | "libfuse";

/** A ratio of rates, subject ÷ (share × reference), taken within each pair; its median must reach `least`. */
export interface RatioBar {
  kind: "ratio";
  issue: 3 | 5;
  words: string;
  /** The key of plan.ts. */
  measure: string;
  subject: Subject;
  against: Reference;
  /** What part of the reference counts; all of it where absent. */
  share?: Share;
  least: number;
  stretch?: { least: number; against?: Reference; share?: Share };
}

export interface Share {
  of: number;
  /** How the reference is called then. */
  words: string;
}

/** A figure of Holdfast alone; its median must not exceed `most`. */
export interface FigureBar {
  kind: "figure";
  issue: 3 | 4 | 5 | 6 | 7;
  words: string;
  measure: string;
  subject: Subject;
  unit: string;
  most: number;
  stretch?: number;
}

export type Bar = RatioBar | FigureBar;

const HALF: Share = { of: 0.5, words: "half of the plain directory" };

/** Ratios to ext4 in one run on one machine: psync, 512 MiB file, JuiceFS 1.3.1 over badger and local files. */
export const JUICEFS_SOURCE =
  "JuiceFS 1.3.1 without redundancy (badger, local files), quoted: measured once beside ext4 on another machine of " +
  "this kind, Linux 6.18; not measured in this run";
/** JuiceFS ÷ ext4 by measure. */
export const JUICEFS: Readonly<Record<string, number>> = {
  "sequential-write/1024/1": 608 / 2977,
  "sequential-read/1024/1": 476 / 1556,
  "random-read/4/1": 11.0 / 26.2,
  "write/4/1": 1.4 / 127,
  "write-fsync/4/1": 602 / 13_300,
  "write-fsync/4/4": 567 / 28_800,
  "create/4/1": 1.2 / 34.9,
  "create-fsync/4/1": 1.9 / 5.4,
  "stat/4/1": 23.0 / 95,
  "open-read/4/1": 2.1 / 17.8,
  "rename/4/1": 5.8 / 47.7,
  "git-clone/0/1": 0.73 / 3.1,
  "tar-out/0/1": 1.5 / 9.6,
};

type Rest = Pick<RatioBar, "share" | "stretch">;

const ratio =
  (issue: 3 | 5, subject: Subject = "holdfast") =>
  (measure: string, words: string, least: number, against: Reference, rest: Rest = {}): RatioBar => ({
    kind: "ratio",
    issue,
    subject,
    measure,
    words,
    least,
    against,
    ...rest,
  });

const floor = ratio(3);
const fast = ratio(5);

const juicefs = (measure: string): Share => ({
  of: JUICEFS[measure] ?? NaN,
  words: "JuiceFS (quoted share of ext4)",
});

/** Times: at most `most` × the reference's is at least 1 ÷ `most` of its rate. */
const within = (most: number) => 1 / most;

export const BARS: readonly Bar[] = [
  // The speed floor of the first version: RF 2 against passthrough_ll without redundancy.
  floor("write-fsync/4/1", "4 KiB random writes, fsync each", 0.8, "passthrough_ll"),
  floor("write-fsync/4/4", "the same, 4 jobs", 0.8, "passthrough_ll"),
  floor("write/4/1", "4 KiB random writes", 0.7, "passthrough_ll"),
  floor("create/4/1", "creates of 4 KiB files", 0.8, "passthrough_ll"),
  floor("sequential-write/1024/1", "sequential writes", 0.5, "ext4", { share: HALF }),

  ratio(5, "holdfast_rf1")(
    "sequential-write/1024/1",
    "sequential write 1 MiB + final fsync, RF 1",
    0.65,
    "ext4",
    {
      stretch: { least: 0.9 },
    },
  ),
  fast("sequential-write/1024/1", "the same, RF 2", 0.7, "ext4", { share: HALF, stretch: { least: 0.9 } }),
  fast("sequential-write/1024/1", "the same, RF 2", 3, "glusterfs"),
  fast("sequential-read/1024/1", "sequential read 1 MiB, cold", 0.65, "ext4", { stretch: { least: 0.9 } }),
  fast("sequential-read/1024/1", "sequential read 1 MiB, cold", 1, "libfuse"),
  fast("random-read/4/1", "random read 4 KiB from the drive", 0.55, "ext4", { stretch: { least: 0.65 } }),
  fast("random-read/4/4", "the same, 4 jobs", 0.8, "ext4", { stretch: { least: 0.95 } }),
  fast("cached-read/4/1", "random read 4 KiB, in the daemon's cache", 1.5, "libfuse", {
    stretch: { least: 2 },
  }),
  fast("write/4/1", "random write 4 KiB, no fsync", 0.9, "libfuse", { stretch: { least: 1.1 } }),
  fast("write/4/1", "random write 4 KiB, no fsync", 10, "glusterfs"),
  fast("write/4/1", "random write 4 KiB, no fsync", 10, "ext4", { share: juicefs("write/4/1") }),
  fast("write-fsync/4/1", "random write 4 KiB + fsync each", 0.8, "libfuse", { stretch: { least: 1 } }),
  fast("write-fsync/4/1", "random write 4 KiB + fsync each", 6, "glusterfs"),
  fast("write-fsync/4/4", "the same, 4 jobs", 1.8, "libfuse", { stretch: { least: 0.7, against: "ext4" } }),
  fast("create/4/1", "create 4 KiB files", 1.3, "libfuse", { stretch: { least: 2 } }),
  fast("create/4/1", "create 4 KiB files", 30, "glusterfs"),
  fast("create-fsync/4/1", "create + fsync", 0.75, "ext4", { stretch: { least: 1 } }),
  fast("create-fsync/4/1", "create + fsync", 1.5, "libfuse"),
  fast("stat/4/1", "stat, cold dentries", 1.3, "libfuse", { stretch: { least: 2 } }),
  fast("open-read/4/1", "open + read + close, cold dentries", 1.3, "libfuse", { stretch: { least: 2 } }),
  fast("rename/4/1", "rename, cold dentries", 1.3, "libfuse", { stretch: { least: 2 } }),
  fast("unlink/4/1", "unlink", 0.9, "libfuse", { stretch: { least: 1.2 } }),
  fast("git-clone/0/1", "git clone, local, time ≤ 2 × (stretch 1.3 ×)", within(2), "ext4", {
    stretch: { least: within(1.3) },
  }),
  fast("tar-out/0/1", "tar out of that tree, time ≤ 2 × (stretch 1.3 ×)", within(2), "ext4", {
    stretch: { least: within(1.3) },
  }),
  {
    kind: "figure",
    issue: 5,
    subject: "holdfast",
    measure: "drive-bytes-mean",
    words: "drive bytes read per cold random 4 KiB, mean",
    unit: "KiB",
    most: 8.2,
  },
  {
    kind: "figure",
    issue: 5,
    subject: "holdfast",
    measure: "drive-bytes-worst",
    words: "the same, worst",
    unit: "KiB",
    most: 12,
  },
  {
    kind: "figure",
    issue: 5,
    subject: "holdfast",
    measure: "background-read-p99",
    words: "4 KiB cold read p99 at half of peak, under drain, cleaning, scrub",
    unit: "× idle",
    most: 2,
    stretch: 1.3,
  },
  {
    kind: "figure",
    issue: 5,
    subject: "holdfast",
    measure: "background-write-p99",
    words: "4 KiB write + fsync p99, the same",
    unit: "× idle",
    most: 2,
    stretch: 1.3,
  },
  {
    kind: "figure",
    issue: 4,
    subject: "holdfast",
    measure: "rebuild-time",
    words: "rebuilding a lost drive's copies, nobody else at work: time ≤ that of plain copying ÷ 0.6",
    unit: "× plain",
    most: within(0.6),
  },
  {
    kind: "figure",
    issue: 4,
    subject: "holdfast",
    measure: "rebuild-p99",
    words: "4 KiB reads and writes at half of peak, p99 beside a rebuild at the default limit",
    unit: "× alone",
    most: 1.3,
  },
  {
    kind: "figure",
    issue: 4,
    subject: "holdfast",
    measure: "scrub-p99",
    words: "the same beside a scrub",
    unit: "× alone",
    most: 1.1,
  },
  ...SHORT_BARS,
];
