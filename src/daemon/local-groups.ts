// Groups of this site's open pools, and how one is found by what it keeps whatever it is called: its uuid.

import { HoldfastError } from "../io-path/errors.js";
import type { Pool } from "../io-path/pool.js";
import type { Pools } from "./pools.js";

export interface LocalGroup {
  pool: Pool;
  /** Of the group. */
  name: string;
}

/** What was asked of a group; undefined: it was destroyed just now. */
export async function unlessGone<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof HoldfastError && error.code === "NotFound") return undefined;
    throw error;
  }
}

/** Undefined: no open pool has it. */
export async function findGroup(pools: Pools, uuid: string): Promise<LocalGroup | undefined> {
  for (const found of await pools.groups()) {
    const identity = await unlessGone(found.pool.replication.identity(found.name));
    if (identity?.uuid === uuid) return found;
  }
  return undefined;
}

/** Names of the volumes of a group. */
export async function volumeNames({ pool, name }: LocalGroup): Promise<string[]> {
  return (await pool.volumes()).flatMap((volume) => (volume.group === name ? [volume.name] : []));
}
