// What must come out of the past (issue 6), as data. The measures are made in this folder; a ratio that must be large
// is turned over, so that every bar is a most.

import type { FigureBar } from "../bars.js";

/** "The same time, ± noise": large ÷ small, pair by pair; the median of the pairs. */
const SAME = 1.3;
const POINT_MS = 10;

const figure = (measure: string, words: string, unit: string, most: number): FigureBar => ({
  kind: "figure",
  issue: 6,
  subject: "holdfast",
  measure,
  words,
  unit,
  most,
});

/** What is done at both sizes: the beginning of its measures, and words. */
export const POINT_WORKS = [
  ["snapshot", "snapshot create"],
  ["clone", "clone create, of a snapshot"],
  ["clone-now", "clone create, of now"],
  ["open-snapshot", "opening .holdfast/snapshots/NAME"],
  ["open-at", "opening .holdfast/at/TIME"],
] as const;

const points: readonly FigureBar[] = POINT_WORKS.flatMap(([name, words]) => [
  figure(`${name}-small`, `${words}, 100 files`, "ms", POINT_MS),
  figure(`${name}-large`, "the same, 1,000,000 files", "ms", POINT_MS),
  figure(`${name}-ratio`, "the same, large ÷ small", "×", SAME),
]);

const readings: readonly FigureBar[] = (["sequential", "random", "tree"] as const).flatMap((how) => [
  figure(`past-${how}-same`, `reading the past ÷ now, ${how}, nothing changed since`, "× now", 1.2),
  figure(`past-${how}-changed`, `the same, everything did`, "× now", 2),
]);

/** Those that need neither a million files nor many minutes: they are part of `--bars`. */
export const SHORT_BARS: readonly FigureBar[] = [
  figure("points-delete", "100,000 points of a volume: deleting any one of them, median", "ms", POINT_MS),
  figure("points-delete-p99", "the same, 99 of 100", "ms", POINT_MS),
  figure("chain-shortened", "look-up at the end of 100 clones, as chains shorten themselves", "× alone", 2),
  figure("chain-flat", "the same, promoted", "× alone", 2),
  ...readings,
];

export const PAST_BARS: readonly FigureBar[] = [
  ...points,
  figure("restore-by-hand", "restore 1 GiB of 1,000,000 files: copy_file_range and rename", "ms", 100),
  figure("restore-function", "the same by the command's own code, without Node's start", "ms", 100),
  figure("restore-payload", "bytes that a restore writes: content", "MiB", 0),
  figure("diff", "diff of two points with 10 changes among 1,000,000 files", "ms", 200),
  figure("diff-pages", "pages of data that it looks at", "pages", 0),
  ...SHORT_BARS,
  figure("cost", "random overwrites, 60 s of retention: time ≤ that without ÷ 0.85", "× without", 1 / 0.85),
  figure("postgres", "PostgreSQL on clones of random moments: those that fail", "failures", 0),
];
