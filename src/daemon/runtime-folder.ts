// Where the rings lie: memory that outlives the process. On a tmpfs where there is one.
//
// What a killed daemon acknowledged and had not flushed is only there. So the place is remembered in the state folder
// before it is used, and as long as it is remembered, it is used again, whatever environment and configuration say by
// then. An orderly stop, after which the rings hold nothing, forgets it.

import { createHash } from "node:crypto";
import { accessSync, chmodSync, constants, existsSync, lstatSync, mkdirSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { HoldfastError } from "../io-path/errors.js";
import type { StateFolder } from "./state-folder.js";

export interface RuntimeFolder {
  path: string;
  /** The rings survive a crash of the daemon without a write to a drive. */
  tmpfs: boolean;
}

const TMPFS_MAGIC = 0x01021994;

/** Name of the file that remembers the place. */
const MEMORY = "runtime-folder";

/** Finds the remembered folder, or chooses and makes one (0700, ours). */
export function openRuntimeFolder(state: StateFolder, configured: string | undefined): RuntimeFolder {
  const remembered = state.read(MEMORY)?.trim();
  if (remembered !== undefined && existsSync(remembered)) {
    makePrivate(remembered);
    return describe(remembered);
  }
  const chosen = choose(state.path, configured);
  state.write(MEMORY, `${chosen.path}\n`);
  return chosen;
}

/** To be called after an orderly stop only. */
export function forgetRuntimeFolder(state: StateFolder): void {
  state.remove(MEMORY);
}

function describe(path: string): RuntimeFolder {
  return { path, tmpfs: statfsSync(path).type === TMPFS_MAGIC };
}

function choose(stateFolder: string, configured: string | undefined): RuntimeFolder {
  const id = createHash("sha256").update(stateFolder).digest("hex").slice(0, 16);
  const refusals: string[] = [];
  for (const parent of candidates(stateFolder, configured)) {
    const path = join(parent, id);
    try {
      if (parent !== stateFolder && parent !== configured) makePrivate(parent);
      makePrivate(path);
      return describe(path);
    } catch (error) {
      refusals.push(`${path}: ${(error as Error).message}`);
    }
  }
  throw new HoldfastError("Denied", `no folder for the rings: ${refusals.join("; ")}`, "set runtime_dir");
}

function candidates(stateFolder: string, configured: string | undefined): string[] {
  if (configured !== undefined) return [configured];
  const uid = process.geteuid?.() ?? 0;
  const own = uid === 0 ? "/run" : process.env.XDG_RUNTIME_DIR;
  const first = own !== undefined && isWritableTmpfs(own) ? [join(own, "holdfast")] : [];
  const next = isWritableTmpfs("/dev/shm") ? [`/dev/shm/holdfast-${uid}`] : [];
  return [...first, ...next, stateFolder];
}

function isWritableTmpfs(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return statfsSync(path).type === TMPFS_MAGIC;
  } catch {
    return false;
  }
}

/** Makes a directory 0700, or accepts one that is ours and not a link. */
function makePrivate(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const stats = lstatSync(path);
  if (!stats.isDirectory() || stats.uid !== process.geteuid?.()) {
    throw new HoldfastError("Denied", "it belongs to somebody else or is no directory");
  }
  chmodSync(path, 0o700);
}
