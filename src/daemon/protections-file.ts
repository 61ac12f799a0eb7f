// What the daemon keeps of replication: protections.json (groups that it sends, and to whom) and replicas.json (whose
// groups it has replicas of). How far they are is the engine's to know.

import { z } from "zod";
import { listFile } from "./list-file.js";

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
const replicaSchema = z.strictObject({
  group: uuid,
  peer: fingerprint,
  /** What its owner promised; null: not known. */
  rpoMs: z.number().int().positive().nullable().default(null),
  /** Who else was sent it. */
  others: z.array(z.strictObject({ site: z.string().max(63), fingerprint })).default([]),
});

export type StoredProtection = z.infer<typeof protectionSchema>;
/** A group of another site, and the fingerprint of that. */
export type StoredReplica = z.infer<typeof replicaSchema>;

export const protectionsFile = listFile("protections.json", protectionSchema, {
  most: PROTECTIONS_MAX,
  hint: "put it back from a backup, or move it away and protect again",
});

export const replicasFile = listFile("replicas.json", replicaSchema, {
  most: PROTECTIONS_MAX,
  hint: "put it back from a backup, or move it away: owners that call in are noted again",
});
