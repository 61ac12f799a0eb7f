// Real programs as works: `git clone` of a local repository, and tar out of the tree that it made.

import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { dropCaches, outputOf } from "./load.js";
import type { Measure } from "./load.js";

const FILES_PER_FOLDER = 200;
const IDENTITY = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"];

/** Makes a repository of `files` files of 0.5 to 8 KiB in one commit, packed; its path. */
export function repositoryOf(folder: string, files: number): string {
  const repository = join(folder, `repository-${files}`);
  const git = (...args: string[]) => execFileSync("git", ["-C", repository, ...IDENTITY, ...args]);
  mkdirSync(repository, { recursive: true });
  git("init", "--quiet");
  for (let file = 0; file < files; file += 1) {
    const inside = join(repository, `folder-${Math.floor(file / FILES_PER_FOLDER)}`);
    if (file % FILES_PER_FOLDER === 0) mkdirSync(inside);
    writeFileSync(join(inside, `file-${file}.txt`), `${file}\n`.repeat(100 + ((file * 7919) % 1500)));
  }
  git("add", ".");
  git("commit", "--quiet", "--message", "everything");
  git("repack", "-a", "-d", "--quiet");
  return repository;
}

/** Clones the repository into a directory, reads the clone through tar with cold caches, and removes it. */
export async function runTree(repository: string, files: number, directory: string): Promise<Measure[]> {
  const clone = join(directory, "clone");
  // Hard links to the repository's objects would save only the plain directory their copies.
  const cloned = await timed("git", ["clone", "--quiet", "--no-hardlinks", repository, clone]);
  dropCaches();
  // Into a pipe: tar reads nothing when its output is /dev/null.
  const read = ["-c", 'tar -cf - -C "$0" --exclude=.git . | cat >/dev/null', clone];
  const tarred = await timed("sh", read);
  rmSync(clone, { recursive: true });
  return [measureOf("git-clone", files, cloned), measureOf("tar-out", files, tarred)];
}

async function timed(program: string, args: readonly string[]): Promise<number> {
  const started = performance.now();
  await outputOf(program, args);
  return (performance.now() - started) / 1000;
}

/** A file is an op; there are no times of single ones. */
function measureOf(work: string, files: number, seconds: number): Measure {
  const latencyMicroseconds = { p50: 0, p90: 0, p99: 0, p999: 0, max: 0 };
  const operationsPerSecond = files / seconds;
  const rates = { operations: files, seconds, operationsPerSecond, mibPerSecond: 0 };
  return { work, jobs: 1, blockBytes: 0, ...rates, latencyMicroseconds, histogram: [] };
}
