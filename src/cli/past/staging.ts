// The folder beside a target in which a restore is prepared: `.holdfast-restore-HASH`, where HASH is of the target's
// name.
//
// - It is 0700 and ours, and is used through its descriptor only: who may rename it cannot put anything into it.
// - `owner` in it names who prepares (pid, start, pid namespace); `new` is what will be put in place, `old` what was
//   there.
// - What a restore that was killed left is found by the next one of the same target. If the target is missing, `old`
//   is put back first; then the folder goes. `old` is moved only when `new` is complete, so one of them is always
//   whole.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import type { BigIntStats } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { raw, show } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { CliError } from "../errors.js";
import type { Place } from "./copy.js";
import { errno, fromSystem } from "./failure.js";
import { inside } from "./walk.js";

export const STAGING_PREFIX = ".holdfast-restore-";
const OWNER = "owner";
export const NEW = "new" as Bytes;
const OLD = "old" as Bytes;

/** A killed restore's cp is gone after so many looks. */
const LOOKS_MAX = 500;
const LOOK_MS = 10;

export class Staging {
  readonly name: Bytes;
  readonly directory: number;
  readonly #target: Place;
  readonly #mark: string;

  private constructor(target: Place, name: Bytes, directory: number) {
    this.#target = target;
    this.name = name;
    this.directory = directory;
    this.#mark = `${identity(process.pid)}\n`;
    try {
      writeFileSync(inside(directory, OWNER), this.#mark, { flag: "wx", mode: 0o600 });
    } catch (error) {
      closeSync(directory);
      throw error;
    }
  }

  /**
   * Makes it; removes what an earlier restore of the same target left. `where` is the target's directory, for
   * messages.
   */
  static async open(target: Place, where: Bytes): Promise<Staging> {
    const hash = createHash("sha256").update(raw(target.name)).digest("hex").slice(0, 16);
    const name = `${STAGING_PREFIX}${hash}` as Bytes;
    const path = inside(target.directory, name);
    const what = `preparing in ${show(where)}`;
    try {
      for (let again = true; ; again = false) {
        try {
          mkdirSync(path, 0o700);
          break;
        } catch (error) {
          if (!again || errno(error) !== "EEXIST") throw error;
          await removeLeftover(target, name, `${show(where)}/${name}`);
        }
      }
    } catch (error) {
      throw fromSystem(error, what);
    }
    try {
      return new Staging(target, name, openOwn(path, `${show(where)}/${name}`));
    } catch (error) {
      if (!(error instanceof CliError)) removeTree({ directory: target.directory, name });
      throw fromSystem(error, what);
    }
  }

  /** Remembers the program that fills it. */
  note(pid: number): void {
    writeFileSync(inside(this.directory, OWNER), `${this.#mark}${identity(pid)}\n`);
  }

  /**
   * Gives `new` the target's name.
   *
   * 1. Where one rename does it (nothing there, or a file for a file, or an empty directory for a directory), one does.
   * 2. Else the target is moved to `old`, then `new` to the target: in between the name is free. Killed there, the next
   *    restore of this target puts `old` back. One exchange would do (renameat2, RENAME_EXCHANGE), but Node has no call
   *    for it, `mv --exchange` came with coreutils 9.5, and the addon is the daemon's: this runs for users who may not
   *    be able to load it.
   */
  place(): void {
    if (!readFileSync(inside(this.directory, OWNER), "utf8").startsWith(this.#mark)) {
      throw new CliError("Conflict", "another restore of the same name took over");
    }
    const from = { directory: this.directory, name: NEW };
    try {
      move(from, this.#target);
    } catch (error) {
      if (!["ENOTEMPTY", "EEXIST", "EISDIR", "ENOTDIR"].includes(errno(error))) throw error;
      const aside = { directory: this.directory, name: OLD };
      move(this.#target, aside);
      try {
        move(from, this.#target);
      } catch (second) {
        move(aside, this.#target);
        throw second;
      }
    }
  }

  /** What of it is still there, in words; empty: nothing. */
  remove(): string {
    closeSync(this.directory);
    return removeTree({ directory: this.#target.directory, name: this.name });
  }
}

/** An open descriptor of the folder that was just made, or was ours before. */
function openOwn(path: Buffer, shown: string): number {
  const directory = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  const { uid, mode } = fstatSync(directory);
  if (uid === process.geteuid?.() && (mode & 0o77) === 0) return directory;
  closeSync(directory);
  throw new CliError(
    "Conflict",
    `${shown} is in the way, and is not ours`,
    "when no restore of its owner runs, remove it: rm -r",
  );
}

/** @throws `Conflict` when it is somebody else's, or in use. */
async function removeLeftover(target: Place, name: Bytes, shown: string): Promise<void> {
  const directory = openOwn(inside(target.directory, name), shown);
  try {
    const [owner, ...helpers] = ownersOf(directory);
    if (owner !== undefined && isAlive(owner, shown)) {
      const pid = owner.split(" ")[0] ?? "";
      throw new CliError(
        "Conflict",
        `process ${pid} restores the same name`,
        "wait until it is done, or end it",
      );
    }
    for (const helper of helpers) await end(helper, shown);
    const old = { directory, name: OLD };
    if (exists(old) !== undefined && exists(target) === undefined) move(old, target);
  } finally {
    closeSync(directory);
  }
  const left = removeTree({ directory: target.directory, name });
  if (left !== "") throw new CliError("Conflict", `what an earlier restore left cannot be removed: ${left}`);
}

function ownersOf(directory: number): string[] {
  try {
    return readFileSync(inside(directory, OWNER), "utf8")
      .split("\n")
      .filter((line) => line !== "");
  } catch (error) {
    if (errno(error) === "ENOENT") return [];
    throw error;
  }
}

/** `pid start namespace`: numbers of processes come again, starts do not. */
function identity(pid: number): string {
  return `${pid} ${startOf(pid) ?? 0} ${readlinkSync("/proc/self/ns/pid")}`;
}

/** proc_pid_stat(5), field 22; the second field may contain anything. */
function startOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes(errno(error))) return undefined;
    throw error;
  }
}

function isAlive(line: string, shown: string): boolean {
  const [pid = "", start = "", namespace = ""] = line.split(" ");
  if (namespace !== readlinkSync("/proc/self/ns/pid")) {
    const hint = `when it does not run any more, remove it: rm -r ${shown}`;
    throw new CliError("Conflict", `${shown} is of a process in another container`, hint);
  }
  return startOf(Number(pid)) === start;
}

/** Ends the cp of a restore that was killed. */
async function end(line: string, shown: string): Promise<void> {
  for (let looks = 0; isAlive(line, shown); looks += 1) {
    if (looks === LOOKS_MAX) throw new CliError("Conflict", `process ${line} does not end`);
    try {
      process.kill(-Number(line.split(" ")[0]), "SIGKILL");
    } catch (error) {
      if (errno(error) !== "ESRCH") throw error;
    }
    await delay(LOOK_MS);
  }
}

/** What is there; `undefined`: nothing. */
export function exists({ directory, name }: Place): BigIntStats | undefined {
  return lstatSync(inside(directory, name), { bigint: true, throwIfNoEntry: false });
}

/** Renames between directories. The kernel wants the right to write in a directory that gets another parent. */
function move(from: Place, to: Place): void {
  const stats = exists(from);
  const mode = Number(stats?.mode ?? 0n);
  const needsWrite =
    stats?.isDirectory() === true && (mode & 0o200) === 0 && stats.uid === BigInt(process.geteuid?.() ?? 0);
  if (!needsWrite || process.geteuid?.() === 0) {
    renameSync(inside(from.directory, from.name), inside(to.directory, to.name));
    return;
  }
  const itself = openSync(
    inside(from.directory, from.name),
    0o10_000_000 | constants.O_DIRECTORY | constants.O_NOFOLLOW,
  );
  try {
    chmodSync(`/proc/self/fd/${itself}`, (mode & 0o7777) | 0o200);
    try {
      renameSync(inside(from.directory, from.name), inside(to.directory, to.name));
    } finally {
      chmodSync(`/proc/self/fd/${itself}`, mode & 0o7777);
    }
  } finally {
    closeSync(itself);
  }
}

/** rm walks on descriptors and follows nothing. What it could not remove, in words. */
function removeTree({ directory, name }: Place): string {
  const path = `/proc/self/fd/3/${name}`;
  const run = (program: string, args: string[]) =>
    spawnSync(program, [...args, "--", path], {
      encoding: "utf8",
      env: { ...process.env, LC_ALL: "C" },
      stdio: ["ignore", "ignore", "pipe", directory],
    });
  const first = run("rm", ["-rf", "--one-file-system"]);
  if (first.status === 0) return "";
  // Directories that their owner may not write in.
  run("chmod", ["-R", "u+rwX"]);
  const second = run("rm", ["-rf", "--one-file-system"]);
  return second.status === 0 ? "" : second.stderr.trim().replaceAll("/proc/self/fd/3/", "");
}
