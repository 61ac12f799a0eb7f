// What is measured, and what must come out.

/** Names in tables and results. */
export type SystemName = "ext4" | "libfuse" | "holdfast";

export interface Work {
  /** A work of `holdfast-load`; it may give several measures. */
  name: string;
  jobs: number;
  args: readonly string[];
}

export interface Plan {
  pairs: number;
  works: readonly Work[];
}

/** A ratio Holdfast ÷ baseline, taken within each pair; its median must reach `least`. */
export interface Bar {
  measure: string;
  jobs: number;
  against: Exclude<SystemName, "holdfast">;
  least: number;
  words: string;
}

/** The speed floor of the first version, at RF 2 against baselines without redundancy. */
export const BARS: readonly Bar[] = [
  { measure: "write-fsync", jobs: 1, against: "libfuse", least: 0.8, words: "4 KiB random writes, fsync each" },
  { measure: "write-fsync", jobs: 4, against: "libfuse", least: 0.8, words: "the same, 4 jobs" },
  { measure: "write", jobs: 1, against: "libfuse", least: 0.7, words: "4 KiB random writes" },
  { measure: "create", jobs: 1, against: "libfuse", least: 0.8, words: "creates of 4 KiB files" },
  { measure: "sequential-write", jobs: 1, against: "ext4", least: 0.25, words: "sequential writes" },
];

export const PAIRS_BARS = 9;
export const PAIRS_QUICK = 3;

/** Sizes are chosen so that three systems and all pairs end within 3 minutes (quick) or about 10 (bars). */
export function planOf(quick: boolean, pairs: number): Plan {
  const seconds = ["--seconds", quick ? "0.5" : "2"];
  const random = [...seconds, "--mib", "64"];
  const stream = ["--mib", quick ? "64" : "256"];
  const works = [
    { name: "write-fsync", jobs: 1, args: random },
    { name: "write-fsync", jobs: 4, args: random },
    { name: "write", jobs: 1, args: random },
    { name: "files", jobs: 1, args: ["--files", quick ? "500" : "2000"] },
    { name: "create-fsync", jobs: 1, args: seconds },
    { name: "sequential-write", jobs: 1, args: stream },
    { name: "sequential-read", jobs: 1, args: stream },
    { name: "random-read", jobs: 1, args: random },
    { name: "random-read", jobs: 4, args: random },
  ];
  return { pairs, works };
}
