// Where the rings lie: memory that outlives the process. On a tmpfs where there is one, derived from the state folder
// so that the next start finds what this one left.

import { createHash } from "node:crypto";
import { accessSync, chmodSync, constants, lstatSync, mkdirSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { HoldfastError } from "../io-path/errors.js";

export interface RuntimeFolder {
  path: string;
  /** The rings survive a crash of the daemon without a write to a drive. */
  tmpfs: boolean;
}

const TMPFS_MAGIC = 0x01021994;

/** Chooses and makes the folder (0700, ours). `configured` is taken as it is. */
export function openRuntimeFolder(stateFolder: string, configured: string | undefined): RuntimeFolder {
  const id = createHash("sha256").update(stateFolder).digest("hex").slice(0, 16);
  const refusals: string[] = [];
  for (const parent of candidates(stateFolder, configured)) {
    const path = join(parent, id);
    try {
      makePrivate(parent === stateFolder || parent === configured ? undefined : parent);
      makePrivate(path);
      return { path, tmpfs: statfsSync(path).type === TMPFS_MAGIC };
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
function makePrivate(path: string | undefined): void {
  if (path === undefined) return;
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const stats = lstatSync(path);
  if (!stats.isDirectory() || stats.uid !== process.geteuid?.()) {
    throw new HoldfastError("Denied", "it belongs to somebody else or is no directory");
  }
  chmodSync(path, 0o700);
}
