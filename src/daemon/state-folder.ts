// The state folder: one daemon's identity, pool list, wanted mounts and admin socket.
//
// - It is 0700 and ours, and nobody else can swap it: it is opened once with O_NOFOLLOW, checked on the descriptor,
//   and everything in it is reached through that descriptor (/proc/self/fd/N/NAME), never by its path again.
// - One daemon at a time: an exclusive lock on `lock` lives as long as the process.
// - A file in it is old or new, never half: temporary file, fsync, rename, fsync of the folder.

import {
  constants,
  closeSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
} from "node:fs";
import { readFileSync, readlinkSync, renameSync, rmSync, writeFileSync, writeSync } from "node:fs";
import type { Stats } from "node:fs";
import { dirname, resolve } from "node:path";
import { HoldfastError, fromSystem } from "../io-path/errors.js";
import { lockExclusive } from "../io-path/system.js";

const OTHERS_WRITE = 0o002;
const STICKY = 0o1000;

export class StateFolder {
  readonly #fd: number;
  #lockFd: number | undefined;

  private constructor(
    /** Where it really is, symbolic links above it resolved. */
    readonly path: string,
    fd: number,
  ) {
    this.#fd = fd;
  }

  /** Opens it, and makes it (0700, with its parents) when it is missing. */
  static open(path: string): StateFolder {
    const wanted = resolve(path);
    try {
      mkdirSync(dirname(wanted), { recursive: true, mode: 0o755 });
      mkdirSync(wanted, { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST")
        throw fromSystem(error, `state folder ${wanted}`);
    }
    let fd: number;
    try {
      fd = openSync(wanted, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    } catch (error) {
      // Linux says ENOTDIR for a symbolic link when both flags are set.
      throw fromSystem(error, `state folder ${wanted}`, "it must be a directory and no symbolic link");
    }
    try {
      const real = readlinkSync(`/proc/self/fd/${fd}`);
      checkOwner(real, fstatSync(fd));
      checkAbove(real);
      fchmodSync(fd, 0o700);
      return new StateFolder(real, fd);
    } catch (error) {
      closeSync(fd);
      throw fromSystem(error, `state folder ${wanted}`);
    }
  }

  /** A path to `name` that stays right whatever happens to the folder's own path. */
  at(name: string): string {
    return `/proc/self/fd/${this.#fd}/${name}`;
  }

  /** Takes the lock, or says who holds it. */
  lock(): void {
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
    const fd = openSync(this.at("lock"), flags, 0o600);
    if (!lockExclusive(fd)) {
      const owner = readFileSync(fd, "utf8").trim();
      closeSync(fd);
      const who = owner === "" ? "" : ` (process ${owner})`;
      throw new HoldfastError(
        "Conflict",
        `another daemon${who} runs on state folder ${this.path}`,
        "stop it first, or name another folder with --state",
      );
    }
    writeSync(fd, `${process.pid}\n`.padEnd(16), 0);
    this.#lockFd = fd;
  }

  /** `undefined` when there is no such file. */
  read(name: string): string | undefined {
    let fd: number;
    try {
      fd = openSync(this.at(name), constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw fromSystem(error, `${this.path}/${name}`);
    }
    try {
      return readFileSync(fd, "utf8");
    } finally {
      closeSync(fd);
    }
  }

  /** The same for a secret: `Denied` unless it is a plain file of ours that nobody else can read. */
  readSecret(name: string): string | undefined {
    const text = this.read(name);
    if (text === undefined) return undefined;
    const stats = lstatSync(this.at(name));
    if (stats.isFile() && stats.uid === process.geteuid?.() && (stats.mode & 0o077) === 0) return text;
    const mode = (stats.mode & 0o7777).toString(8);
    throw new HoldfastError(
      "Denied",
      `${this.path}/${name} can be read by others (mode ${mode}, uid ${stats.uid})`,
      "who had it may be this daemon to its peers: move it away and pair again, or chmod 600 when nobody had",
    );
  }

  /** Replaces a file as a whole, durably. */
  write(name: string, text: string): void {
    const temporary = this.at(`${name}.new`);
    try {
      rmSync(temporary, { force: true });
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
      const fd = openSync(temporary, flags, 0o600);
      try {
        writeFileSync(fd, text);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      renameSync(temporary, this.at(name));
      fsyncSync(this.#fd);
    } catch (error) {
      throw fromSystem(error, `writing ${this.path}/${name}`);
    }
  }

  /** Removes a file, durably; it may be missing. */
  remove(name: string): void {
    rmSync(this.at(name), { force: true });
    fsyncSync(this.#fd);
  }

  /** Gives the lock back. */
  close(): void {
    if (this.#lockFd !== undefined) closeSync(this.#lockFd);
    closeSync(this.#fd);
  }
}

function checkOwner(path: string, stats: Stats): void {
  if (stats.uid !== process.geteuid?.()) {
    throw new HoldfastError(
      "Denied",
      `state folder ${path} belongs to uid ${stats.uid}`,
      "use a folder of your own",
    );
  }
  if ((stats.mode & 0o022) !== 0) {
    throw new HoldfastError(
      "Denied",
      `state folder ${path} is writable by others (mode ${(stats.mode & 0o7777).toString(8)})`,
      `look what is in it, then: chmod 700 ${path}`,
    );
  }
}

/** Nobody else may be able to rename the folder away: no directory above it is writable by all without sticky. */
function checkAbove(path: string): void {
  for (let above = dirname(path); ; above = dirname(above)) {
    const { mode } = lstatSync(above);
    if ((mode & OTHERS_WRITE) !== 0 && (mode & STICKY) === 0) {
      throw new HoldfastError(
        "Denied",
        `state folder ${path}: everybody may rename what is in ${above}`,
        `use another place, or: chmod o-w ${above}`,
      );
    }
    if (above === "/") return;
  }
}
