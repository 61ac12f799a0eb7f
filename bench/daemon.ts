// A Holdfast daemon of the bench's own, started as `npm start` does: three drives on the disk, a volume at RF 2.

import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdirSync, readFileSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { Client } from "../src/cli/client.js";
import type { Answer } from "../src/cli/client.js";
import type { ScrubReport, StatusAnswer } from "../src/daemon/protocol.js";

/** A connection's end arrives, is answered, and is taken note of. */
const LOOP_TURNS = 3;
const READY_MS = 15 * 60_000;
const STOP_MS = 120_000;
/** Quiet is: less than this written to drives in a look's time, several times in a row. */
const QUIET_BYTES = 1 << 20;
const QUIET_LOOKS = 3;
const QUIET_LOOK_MS = 100;
/** What goes on for longer belongs to the system that is measured. */
const QUIET_MS_MAX = 10_000;

export interface Making {
  config?: string;
  size?: string;
}

/**
 * A client of a program that blocks for seconds while it reads and writes files: turns of the event loop before each request
 * let it learn which of its kept connections the daemon has closed meanwhile.
 */
class BlockedClient extends Client {
  override async send<T>(method: string, path: string, body?: object): Promise<Answer<T>> {
    for (let turn = 0; turn < LOOP_TURNS; turn += 1) await setImmediate();
    return super.send<T>(method, path, body);
  }
}

export class Daemon {
  readonly mount: string;
  readonly client: Client;

  private constructor(
    readonly root: string,
    readonly folder: string,
    readonly child: ChildProcess,
  ) {
    this.mount = join(folder, "mnt");
    this.client = new BlockedClient(join(folder, "state"));
  }

  /**
   * `config`: YAML instead of the demo's own; `size`: of each drive when it is made. Again on the same folder: the data
   * is there again.
   */
  static async start(root: string, folder: string, { config, size }: Making = {}): Promise<Daemon> {
    mkdirSync(folder, { recursive: true });
    if (config !== undefined) writeFileSync(join(folder, "holdfast.yaml"), config);
    const sized = size === undefined ? [] : ["--size", size];
    const args = [join(root, "src", "cli", "bootstrap.mjs"), "start", "--dir", folder, ...sized];
    const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
    const daemon = new Daemon(root, folder, child);
    try {
      await until(READY_MS, "Holdfast is not mounted in time", () => {
        if (child.exitCode !== null) throw new Error(`npm start ended with ${child.exitCode}`);
        return isMounted(daemon.mount) && answers(daemon.mount);
      });
    } catch (error) {
      await daemon.stop();
      throw error;
    }
    return daemon;
  }

  /** No orderly end: the daemon is killed, and `npm start`, which waits for it, ends. */
  async kill(): Promise<void> {
    process.kill((await this.status()).pid, "SIGKILL");
    await this.#ended();
  }

  async stop(): Promise<void> {
    this.child.kill("SIGINT");
    await this.#ended();
  }

  async #ended(): Promise<void> {
    const ended = () => this.child.exitCode !== null || this.child.signalCode !== null;
    await until(STOP_MS, "Holdfast does not stop in time", ended);
  }

  status(): Promise<StatusAnswer> {
    return this.client.get<StatusAnswer>("/v1/status");
  }

  async transport(): Promise<string> {
    const { mounts } = await this.status();
    return mounts[0]?.transport === "uring" ? "io_uring" : "/dev/fuse";
  }

  /** The pool's counters since its start. */
  async counters(): Promise<Record<string, number>> {
    const { pools } = await this.status();
    return pools[0]?.status?.counters ?? {};
  }

  /** Another volume, mounted; its directory. */
  async addVolume(name: string, rf: number, options: readonly string[] = []): Promise<string> {
    await this.client.post("/v1/volumes", { name, pool: "pool", rf });
    return this.mountAt(join(this.folder, `mnt-${name}`), name, options);
  }

  /** Mounts a volume that is there; its directory. */
  async mountAt(path: string, volume: string, options: readonly string[] = [], at?: string): Promise<string> {
    mkdirSync(path, { recursive: true });
    await this.client.post("/v1/mounts", { volume, path, options, ...(at === undefined ? {} : { at }) });
    return path;
  }

  async umount(path: string): Promise<void> {
    await this.client.post("/v1/umount", { path, detach: false });
  }

  async addDrive(path: string, size: string): Promise<void> {
    await this.client.post("/v1/pools/pool/drives", { path, size });
  }

  /** Empties the drive in the background. */
  async removeDrive(path: string): Promise<void> {
    await this.client.delete(`/v1/pools/pool/drives/${encodeURIComponent(path)}`);
  }

  async hasDrive(path: string): Promise<boolean> {
    return (await this.#drives()).some((drive) => drive.path === path);
  }

  /** What part of each drive is used: of the fullest, of the emptiest. */
  async fills(): Promise<{ most: number; least: number }> {
    const fills = (await this.#drives()).map(({ totalBytes, freeBytes }) => 1 - freeBytes / totalBytes);
    return { most: Math.max(...fills), least: Math.min(...fills) };
  }

  async #drives() {
    const { pools } = await this.status();
    return pools[0]?.status?.drives ?? [];
  }

  scrub(): Promise<ScrubReport> {
    return this.client.post<ScrubReport>("/v1/pools/pool/scrub", {});
  }

  async quiet(): Promise<void> {
    await this.client.post("/v1/flush", {});
    let before = (await this.counters()).drive_bytes_written ?? 0;
    for (let calm = 0, left = QUIET_MS_MAX; calm < QUIET_LOOKS && left > 0; left -= QUIET_LOOK_MS) {
      await delay(QUIET_LOOK_MS);
      const now = (await this.counters()).drive_bytes_written ?? 0;
      calm = now - before < QUIET_BYTES ? calm + 1 : 0;
      before = now;
    }
  }
}

/** Looks at the kernel's table: `stat` may answer from a cache. */
function isMounted(path: string): boolean {
  return mounts().includes(path);
}

function mounts(): string[] {
  const lines = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  return lines.flatMap((line) => line.split(" ")[4] ?? []);
}

/** What a killed daemon leaves behind cannot be removed before. */
export function detachBelow(folder: string): void {
  for (const path of mounts()) if (path.startsWith(`${folder}/`)) execFileSync("umount", ["-l", path]);
}

/** A mount whose daemon was killed is still in the table. */
function answers(path: string): boolean {
  try {
    statfsSync(path);
    return true;
  } catch {
    return false;
  }
}

export async function until(
  limitMs: number,
  words: string,
  holds: () => boolean | Promise<boolean>,
  lookMs = 50,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(words);
    await delay(lookMs);
  }
}
