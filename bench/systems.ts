// The file systems that are compared, over one disk: a plain directory, what `baseline/` sets up, and Holdfast.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Daemon } from "./daemon.js";
import type { SystemName } from "./plan.js";

export interface System {
  name: SystemName;
  /** Where load is made. */
  directory: string;
  /** How it was set up, for the results. */
  setup: string;
  /** Fulfils when it no longer works in the background, so that the next one's turn is its own. */
  quiet(): Promise<void>;
  /** Empties caches of its own, which the kernel's drop_caches does not reach; absent: it has none. */
  cool?(): Promise<void>;
  close(): Promise<void>;
}

/** A script of `baseline/`, with the environment that it needs. */
interface Baseline {
  name: SystemName;
  script: string;
  env?: Readonly<Record<string, string>>;
  /** `down` needs the folder below, too. */
  downNeedsSource?: boolean;
}

const BASELINES: readonly Baseline[] = [
  { name: "passthrough_ll", script: "passthrough_ll.sh" },
  { name: "passthrough_hp_uring", script: "libfuse-uring.sh" },
  { name: "passthrough_ll_uring", script: "libfuse-uring.sh", env: { LIBFUSE_PROGRAM: "passthrough_ll" } },
  { name: "fuse_native", script: "fuse-native.sh" },
  { name: "glusterfs", script: "glusterfs.sh", downNeedsSource: true },
];

export interface Request {
  root: string;
  /** An empty folder on the disk. */
  disk: string;
  wanted: ReadonlySet<SystemName>;
  /** A directory on a mount that somebody else made. */
  target?: string | undefined;
}

/** What was set up, and what could not be, with the reason. */
export class Systems {
  readonly ready: System[] = [];
  readonly missing = new Map<SystemName, string>();
  #closed = false;

  get names(): Set<SystemName> {
    return new Set(this.ready.map(({ name }) => name));
  }

  /** How each was set up. */
  get setups(): Partial<Record<SystemName, string>> {
    return Object.fromEntries(this.ready.map(({ name, setup }) => [name, setup]));
  }

  /** Without passthrough_ll there is nothing to compare with; the other baselines may be missing. */
  async setUp({ root, disk, wanted, target }: Request): Promise<void> {
    if (wanted.has("ext4")) this.ready.push(plainDirectory(disk));
    for (const baseline of BASELINES.filter(({ name }) => wanted.has(name))) {
      try {
        this.ready.push(mounted(root, disk, baseline));
      } catch (error) {
        if (baseline.name === "passthrough_ll") throw error;
        this.missing.set(baseline.name, lastLine(error));
      }
    }
    const volumes = (["holdfast", "holdfast_rf1"] as const).filter((name) => wanted.has(name));
    if (target !== undefined) this.ready.push(givenTarget(target));
    else if (volumes.length > 0) this.ready.push(...(await ownTarget(root, disk, volumes)));
  }

  /** Takes everything down, once; fails with what is still there. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const closed = await Promise.allSettled(this.ready.map((system) => system.close()));
    const failures = closed.flatMap((result) =>
      result.status === "rejected" ? [lastLine(result.reason)] : [],
    );
    if (failures.length > 0) throw new Error(`left in place: ${failures.join("; ")}`);
  }
}

const quietAlready = async () => undefined;

function plainDirectory(disk: string): System {
  const directory = join(disk, "ext4");
  mkdirSync(directory, { recursive: true });
  const fileSystem = execFileSync("stat", ["-f", "-c", "%T", directory], { encoding: "utf8" }).trim();
  const setup = `plain directory on the disk (${fileSystem})`;
  return { name: "ext4", directory, setup, quiet: quietAlready, close: quietAlready };
}

function mounted(root: string, disk: string, { name, script, env = {}, downNeedsSource }: Baseline): System {
  const program = join(root, "bench", "baseline", script);
  const [source, directory] = [join(disk, `${name}-source`), join(disk, `${name}-mount`)];
  for (const folder of [source, directory]) mkdirSync(folder, { recursive: true });
  const run = (...args: string[]) =>
    execFileSync(program, args, {
      encoding: "utf8",
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
  run("up", source, directory);
  const setup = `${script}: ${run("options").trim()}`;
  const close = async () => {
    run("down", ...(downNeedsSource ? [source] : []), directory);
  };
  return { name, directory, setup, quiet: quietAlready, close };
}

/** Load goes into a folder of its own below it. */
function givenTarget(directory: string): System {
  const own = mkdtempSync(join(directory, "bench-"));
  const close = async () => rmSync(own, { recursive: true });
  return { name: "holdfast", directory: own, setup: "given by --target", quiet: quietAlready, close };
}

/** One daemon as `npm start` makes it, for both volumes. */
async function ownTarget(
  root: string,
  disk: string,
  volumes: readonly ("holdfast" | "holdfast_rf1")[],
): Promise<System[]> {
  const folder = join(disk, "holdfast");
  let daemon = await Daemon.start(root, folder);
  const cool = async () => {
    await daemon.stop();
    daemon = await Daemon.start(root, folder);
    await daemon.quiet();
  };
  try {
    const transport = await daemon.transport();
    const setup = `npm start: 3 drives on the disk, through ${transport}`;
    const rest = { quiet: () => daemon.quiet(), cool, close: () => daemon.stop() };
    const systems: System[] = [
      { name: "holdfast", directory: daemon.mount, setup: `${setup}, RF 2`, ...rest },
    ];
    if (!volumes.includes("holdfast_rf1")) return systems;
    const directory = await daemon.addVolume("single", 1);
    const single = {
      name: "holdfast_rf1",
      directory,
      setup: `${setup}, RF 1`,
      ...rest,
      close: quietAlready,
    } as const;
    return [...systems, single];
  } catch (error) {
    await daemon.stop();
    throw error;
  }
}

/** What a script complained of last, or the message. */
function lastLine(error: unknown): string {
  const text = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
  return text.split("\n").at(-1) || (error instanceof Error ? error.message : String(error));
}
