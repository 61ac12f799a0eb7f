// What the benches of the past are asked for.

export interface Wishes {
  /** GiB of each of the three drives at most. */
  driveGib: number;
  /** In the large volume. */
  files: number;
  /** MiB of the file that is restored. */
  restoreMib: number;
  /** How often something short is timed. */
  turns: number;
  points: number;
  /** Clones of clones. */
  generations: number;
  /** MiB of each file that is read, and files of each tree. */
  readMib: number;
  treeFiles: number;
  /** Of the file that is overwritten, MiB. */
  costMib: number;
  /** Of overwriting, with and without a past. */
  minutes: number;
  /** Of a database. */
  clones: number;
}

export const FULL: Wishes = {
  driveGib: 3,
  files: 1_000_000,
  restoreMib: 1024,
  turns: 21,
  points: 100_000,
  generations: 100,
  readMib: 256,
  treeFiles: 2000,
  costMib: 32,
  minutes: 10,
  clones: 50,
};

/** Whether everything works; the figures mean nothing. */
export const QUICK: Wishes = {
  driveGib: 1,
  files: 10_000,
  restoreMib: 64,
  turns: 11,
  points: 2000,
  generations: 12,
  readMib: 32,
  treeFiles: 200,
  costMib: 16,
  minutes: 0.5,
  clones: 3,
};

/** Of a drive that needs so much in full size. */
export function driveSize({ driveGib }: Wishes, gib: number): string {
  return `${Math.min(driveGib, gib)}GiB`;
}
