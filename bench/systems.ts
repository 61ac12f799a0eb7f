// The file systems that are compared, over one disk: a plain directory, libfuse's passthrough_ll over a plain
// directory, and Holdfast.

import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { SystemName } from "./plan.js";

export interface System {
  name: SystemName;
  /** Where load is made. */
  directory: string;
  /** How it was set up, for the results. */
  setup: string;
  close(): Promise<void>;
}

const READY_MS = 15 * 60_000;
const STOP_MS = 60_000;

export function plainDirectory(disk: string): System {
  const directory = join(disk, "ext4");
  mkdirSync(directory, { recursive: true });
  return { name: "ext4", directory, setup: "plain directory on the disk", close: async () => {} };
}

export function passthrough(root: string, disk: string): System {
  const script = join(root, "bench", "baseline", "passthrough_ll.sh");
  const source = join(disk, "libfuse-source");
  const directory = join(disk, "libfuse-mount");
  for (const folder of [source, directory]) mkdirSync(folder, { recursive: true });
  execFileSync(script, ["up", source, directory], { stdio: ["ignore", "inherit", "inherit"] });
  const options = execFileSync(script, ["options"], { encoding: "utf8" }).trim();
  const close = async () => {
    execFileSync(script, ["down", directory], { stdio: ["ignore", "inherit", "inherit"] });
  };
  return { name: "libfuse", directory, setup: `passthrough_ll -o source=…,${options}`, close };
}

/** A mount that somebody else made; load goes into a folder of its own below it. */
export function givenTarget(directory: string): System {
  const own = mkdtempSync(join(directory, "bench-"));
  const close = async () => rmSync(own, { recursive: true });
  return { name: "holdfast", directory: own, setup: "given by --target", close };
}

/** Starts a daemon through the command line, as `npm start` does: three drives on the disk, RF 2. */
export async function startTarget(root: string, disk: string): Promise<System> {
  const folder = join(disk, "holdfast");
  const mount = join(folder, "mnt");
  const args = [join(root, "src", "cli", "bootstrap.mjs"), "start", "--dir", folder];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  child.stdout.resume();
  try {
    await until(READY_MS, "Holdfast is not mounted in time", () => {
      if (child.exitCode !== null) throw new Error(`npm start ended with ${child.exitCode}`);
      return isMounted(mount);
    });
  } catch (error) {
    await stop(child);
    throw error;
  }
  const close = () => stop(child);
  return { name: "holdfast", directory: mount, setup: "npm start: 3 drives on the disk, RF 2", close };
}

async function stop(child: ChildProcess): Promise<void> {
  child.kill("SIGINT");
  const ended = () => child.exitCode !== null || child.signalCode !== null;
  await until(STOP_MS, "Holdfast does not stop in time", ended);
}

/** Looks at the kernel's table: `stat` may answer from a cache. */
function isMounted(path: string): boolean {
  return readFileSync("/proc/self/mountinfo", "utf8").split("\n").some((line) => line.split(" ")[4] === path);
}

async function until(limitMs: number, words: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(words);
    await new Promise((done) => setTimeout(done, 50));
  }
}
