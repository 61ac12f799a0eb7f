// What is measured, on which systems, how often.
//
// - A measure has a key: work/block in KiB/jobs. Samples, rows and bars are joined by it and by nothing else.
// - In a run for bars a system is measured only where a bar needs it.

import { BARS, libfuse } from "./bars.js";
import type { Bar } from "./bars.js";
import { SHORT_BARS } from "./past/bars.js";

/** Names in results. */
export const SYSTEMS = [
  "ext4",
  "passthrough_ll",
  "passthrough_ll_uring",
  "passthrough_hp_uring",
  "fuse_native",
  "glusterfs",
  "holdfast",
  "holdfast_rf1",
] as const;
export type SystemName = (typeof SYSTEMS)[number];

/** Names in tables. */
export const LABELS: Readonly<Record<SystemName, string>> = {
  ext4: "plain directory",
  passthrough_ll: "passthrough_ll",
  passthrough_ll_uring: "passthrough_ll, io_uring",
  passthrough_hp_uring: "passthrough_hp, io_uring",
  fuse_native: "fuse-native",
  glusterfs: "GlusterFS replica 2",
  holdfast: "Holdfast RF 2",
  holdfast_rf1: "Holdfast RF 1",
};

/** So slow that they get fewer pairs where no bar asks for more. */
const SLOW: readonly SystemName[] = ["fuse_native", "glusterfs"];
const PAIRS_SLOW = 2;

/** Not measured unless they are named. */
export const EXTRA: readonly SystemName[] = ["passthrough_ll_uring"];

export interface Work {
  /** What `--only` names. */
  id: string;
  /** A work of `holdfast-load`, `tree` (programs.ts) or one that needs Holdfast's counters (special.ts). */
  name: string;
  jobs: number;
  args: readonly string[];
  /** Keys of the measures that it gives. */
  gives: readonly string[];
}

export interface Task {
  work: Work;
  /** Pairs on each system. */
  systems: ReadonlyMap<SystemName, number>;
}

export type Mode = "quick" | "full" | "bars";

export const PAIRS: Readonly<Record<Mode, number>> = { quick: 2, full: 5, bars: 9 };

/** Sizes by mode: quick ends within 3 minutes, one row of the bars within 2. */
const SIZES = {
  quick: { seconds: 0.5, mib: 64, files: 400, treeFiles: 2_000 },
  full: { seconds: 1, mib: 256, files: 2_000, treeFiles: 20_000 },
  bars: { seconds: 1, mib: 256, files: 1_000, treeFiles: 20_000 },
} as const;

export function keyOf(work: string, blockKib: number, jobs: number): string {
  return `${work}/${blockKib}/${jobs}`;
}

const FILE_PHASES = ["create", "readdir", "stat", "open-read", "rename", "unlink"];
const PROGRAMS = ["git-clone", "tar-out"];
/** Needs nothing but a Holdfast of its own. */
export const DRIVE_BYTES = "drive-bytes";
export const BACKGROUND = "background";
export const REBUILD = "rebuild";
export const REBUILD_BESIDE = "rebuild-beside";
export const SCRUB_BESIDE = "scrub-beside";
export const PAST_POINTS = "past-points";
export const PAST_CHAIN = "past-chain";
export const PAST_READING = "past-reading";
/** Works that need a Holdfast of their own. */
export const SPECIAL: readonly string[] = [
  DRIVE_BYTES,
  BACKGROUND,
  REBUILD,
  REBUILD_BESIDE,
  SCRUB_BESIDE,
  PAST_POINTS,
  PAST_CHAIN,
  PAST_READING,
];

/** Every work there is, sized for a mode. */
export function worksOf(mode: Mode): Work[] {
  const size = SIZES[mode];
  const data = (name: string, blockKib: number, jobs: number): Work => {
    const stream = name.startsWith("sequential");
    const usual = stream ? 1024 : 4;
    const id = `${name}${blockKib === usual ? "" : blockKib === 4 ? "-4k" : "-1m"}${jobs === 1 ? "" : `-${jobs}`}`;
    // The same files serve every work of so many jobs.
    const mib = name === "cached-read" || jobs > 1 ? 64 : size.mib;
    const args = ["--mib", String(mib), "--seconds", String(size.seconds), "--block-kib", String(blockKib)];
    return { id, name, jobs, args, gives: [keyOf(name, blockKib, jobs)] };
  };
  const names = ["write-fsync", "write", "random-read"];
  const streams = ["sequential-write-fsync", "sequential-write", "sequential-read"];
  const matrix = [1, 4].flatMap((jobs) =>
    [4, 1024].flatMap((blockKib) => [...names, ...streams].map((name) => data(name, blockKib, jobs))),
  );
  const seconds = ["--seconds", String(size.seconds)];
  const files = ["--files", String(size.files)];
  return [
    ...matrix,
    data("cached-read", 4, 1),
    {
      id: "create-fsync",
      name: "create-fsync",
      jobs: 1,
      args: seconds,
      gives: [keyOf("create-fsync", 4, 1)],
    },
    {
      id: "files",
      name: "files",
      jobs: 1,
      args: files,
      gives: FILE_PHASES.map((phase) => keyOf(phase, 4, 1)),
    },
    {
      id: "tree",
      name: "tree",
      jobs: 1,
      args: [String(size.treeFiles)],
      gives: PROGRAMS.map((name) => keyOf(name, 0, 1)),
    },
    {
      id: DRIVE_BYTES,
      name: DRIVE_BYTES,
      jobs: 1,
      args: [],
      gives: ["drive-bytes-mean", "drive-bytes-worst"],
    },
    {
      id: BACKGROUND,
      name: BACKGROUND,
      jobs: 1,
      args: [],
      gives: ["background-read-p99", "background-write-p99"],
    },
    alone(REBUILD, "rebuild-time"),
    alone(REBUILD_BESIDE, "rebuild-p99"),
    alone(SCRUB_BESIDE, "scrub-p99"),
    alone(PAST_POINTS, ...pastMeasures("points-")),
    alone(PAST_CHAIN, ...pastMeasures("chain-")),
    alone(PAST_READING, ...pastMeasures("past-")),
  ];
}

/** A work that needs nothing but a Holdfast of its own. */
function alone(id: string, ...gives: readonly string[]): Work {
  return { id, name: id, jobs: 1, args: [], gives };
}

const pastMeasures = (beginning: string): string[] =>
  SHORT_BARS.map(({ measure }) => measure).filter((measure) => measure.startsWith(beginning));

/** What `--quick` runs: one row of each kind. */
const QUICK: readonly string[] = [
  "write-fsync",
  "write-fsync-4",
  "write",
  "random-read",
  "random-read-4",
  "cached-read",
  "sequential-write",
  "sequential-read",
  "create-fsync",
  "files",
  "tree",
];

export interface Wishes {
  mode: Mode;
  /** Overrides the mode's number. */
  pairs?: number | undefined;
  /** A work's id, name or measure; a measure of 4 jobs as `write-fsync-4`. */
  only?: string | undefined;
  /** The systems were chosen by name: then all of them are measured, also by --quick. */
  named?: boolean | undefined;
  /** What could be set up here. */
  available: ReadonlySet<SystemName>;
}

export function planOf({ mode, pairs = PAIRS[mode], only, named = false, available }: Wishes): Task[] {
  const works = worksOf(mode).filter((work) => only === undefined || isNamed(work, only));
  if (works.length === 0) {
    const names = worksOf(mode).map(({ id }) => id);
    throw new Error(`--only ${only}: there are ${names.join(", ")}, and the measures of files and tree`);
  }
  const bars = mode === "bars" ? barsOf(only) : [];
  const tasks = works.map((work) => {
    const wanted = mode === "bars" ? neededBy(bars, work) : usualFor(work, mode, { only, named });
    const systems = SYSTEMS.filter((name) => wanted.has(name) && available.has(name));
    const often = (name: SystemName) =>
      mode !== "bars" && SLOW.includes(name) ? Math.min(PAIRS_SLOW, pairs) : pairs;
    return { work, systems: new Map(systems.map((name) => [name, often(name)])) };
  });
  return tasks.filter(({ systems }) => systems.size > 0);
}

/** The bars that a run with `--only` decides. */
export function barsOf(only: string | undefined): readonly Bar[] {
  if (only === undefined) return BARS;
  const chosen = worksOf("bars").filter((work) => isNamed(work, only));
  const whole = chosen.some(({ id, name }) => id === only || name === only);
  const keys = chosen
    .flatMap(({ gives }) => gives)
    .filter((key) => whole || key.startsWith(`${only}/`) || key === only);
  return BARS.filter(({ measure }) => keys.includes(measure));
}

/** Systems that a plan names. */
export function systemsOf(tasks: readonly Task[]): Set<SystemName> {
  return new Set(tasks.flatMap(({ systems }) => [...systems.keys()]));
}

function isNamed(work: Work, only: string): boolean {
  const measures = work.gives.map((key) => key.split("/")[0]);
  return work.id === only || (work.jobs === 1 && work.gives.length > 1 && measures.includes(only));
}

function neededBy(bars: readonly Bar[], work: Work): Set<SystemName> {
  const names = new Set<SystemName>();
  for (const bar of bars.filter(({ measure }) => work.gives.includes(measure))) {
    names.add(bar.subject);
    if (bar.kind === "figure") continue;
    for (const against of [bar.against, bar.stretch?.against ?? bar.against]) {
      for (const name of against === "libfuse" ? libfuse : [against]) names.add(name);
    }
  }
  return names;
}

/** Without bars: everything beside everything, but what needs a Holdfast of its own only when it is asked for. */
function usualFor(work: Work, mode: Mode, { only, named }: Pick<Wishes, "only" | "named">): Set<SystemName> {
  const asked = only !== undefined;
  if (SPECIAL.includes(work.id)) return new Set(asked ? ["holdfast"] : []);
  if (mode === "quick" && !asked && !QUICK.includes(work.id)) return new Set();
  if (named) return new Set(SYSTEMS);
  if (mode === "quick") return new Set(["ext4", "passthrough_ll", "passthrough_hp_uring", "holdfast"]);
  const rf1 = work.id === "sequential-write";
  return new Set(SYSTEMS.filter((name) => name !== "holdfast_rf1" || rf1));
}
