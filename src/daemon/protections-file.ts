// What the daemon keeps of replication: protections.json (groups that it sends, and to whom) and replicas.json (whose
// groups it has replicas of). How far they are is the engine's to know.

import { z } from "zod";
import type { StateFolder } from "./state-folder.js";
import { parseStored } from "./stored-json.js";

const PROTECTIONS = "protections.json";
const REPLICAS = "replicas.json";
/** A daemon protects, and has replicas of, at most so many. */
export const PROTECTIONS_MAX = 1024;

const uuid = z.string().regex(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
const fingerprint = z.string().regex(/^[0-9a-f]{64}$/);

const protectionSchema = z.strictObject({
  /** Uuid of the group, which keeps it whatever it is called. */
  group: uuid,
  peer: fingerprint,
  rpoMs: z.number().int().positive(),
  /** Null: no limit. */
  bytesPerSecond: z.number().int().positive().nullable(),
  /** Copies at the peer; 0: as many as here. */
  rf: z.number().int().min(0).max(3),
  /** What the replica is to be called; null: as the group, or like that. */
  name: z.string().nullable(),
});
const replicaSchema = z.strictObject({ group: uuid, peer: fingerprint });

export type StoredProtection = z.infer<typeof protectionSchema>;
/** A group of another site, and the fingerprint of that. */
export type StoredReplica = z.infer<typeof replicaSchema>;

const listOf = <T extends z.ZodType>(item: T) =>
  z.strictObject({ format: z.literal(1), list: z.array(item).max(PROTECTIONS_MAX) });

export function readProtections(folder: StateFolder): StoredProtection[] {
  const hint = "put it back from a backup, or move it away and protect again";
  return read(folder, PROTECTIONS, listOf(protectionSchema), hint).list;
}

/** Durable when it returns. */
export function writeProtections(folder: StateFolder, list: readonly StoredProtection[]): void {
  folder.write(PROTECTIONS, `${JSON.stringify({ format: 1, list }, undefined, 2)}\n`);
}

export function readReplicas(folder: StateFolder): StoredReplica[] {
  const hint = "put it back from a backup, or move it away: owners that call in are noted again";
  return read(folder, REPLICAS, listOf(replicaSchema), hint).list;
}

/** Durable when it returns. */
export function writeReplicas(folder: StateFolder, list: readonly StoredReplica[]): void {
  folder.write(REPLICAS, `${JSON.stringify({ format: 1, list }, undefined, 2)}\n`);
}

function read<T extends { list: unknown[] }>(
  folder: StateFolder,
  file: string,
  schema: z.ZodType<T>,
  hint: string,
): T | { list: [] } {
  const text = folder.read(file);
  return text === undefined ? { list: [] } : parseStored(schema, text, `${folder.path}/${file}`, hint);
}
