// What the daemon must know before it opens a pool: which pools there are, what is to be mounted where.

import { z } from "zod";
import { HoldfastError } from "../io-path/errors.js";
import { pathFromJson, pathToJson } from "../io-path/paths.js";
import type { StateFolder } from "./state-folder.js";

export interface KnownPool {
  name: string;
  uuid: string;
  drives: Buffer[];
}

export interface WantedMount {
  volume: string;
  dir: Buffer;
  options: string[];
  source: string;
  /** The LSN of an earlier state; absent: the volume itself. */
  at?: string | undefined;
}

export interface State {
  pools: KnownPool[];
  mounts: WantedMount[];
}

const FILE = "state.json";

const path = z
  .object({ path: z.string().optional(), path_base64: z.string().optional() })
  .transform((json, context) => {
    const bytes = pathFromJson(json);
    if (bytes === undefined) context.addIssue("not an absolute path");
    return bytes ?? z.NEVER;
  });

const schema = z.object({
  format: z.literal(1),
  pools: z.array(z.object({ name: z.string(), uuid: z.string(), drives: z.array(path) })),
  mounts: z.array(
    z.object({
      volume: z.string(),
      dir: path,
      options: z.array(z.string()),
      source: z.string(),
      at: z.string().optional(),
    }),
  ),
});

export function readState(folder: StateFolder): State {
  const text = folder.read(FILE);
  if (text === undefined) return { pools: [], mounts: [] };
  const parsed = schema.safeParse(parseJson(text));
  if (parsed.success) return { pools: parsed.data.pools, mounts: parsed.data.mounts };
  const issue = parsed.error.issues[0];
  throw new HoldfastError(
    "Corrupt",
    `${folder.path}/${FILE}: ${issue?.path.join(".") ?? ""} ${issue?.message ?? "cannot be read"}`,
    "move the file away and bring the pools back with: holdfast pool import --drive …",
  );
}

export function writeState(folder: StateFolder, state: State): void {
  const json = {
    format: 1,
    pools: state.pools.map((pool) => ({ ...pool, drives: pool.drives.map(pathToJson) })),
    mounts: state.mounts.map((mount) => ({ ...mount, dir: pathToJson(mount.dir) })),
  };
  folder.write(FILE, `${JSON.stringify(json, undefined, 2)}\n`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
