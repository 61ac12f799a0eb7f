// statements.json: what failovers cost, as it was said.

import { z } from "zod";
import type { StateFolder } from "./state-folder.js";
import { parseStored } from "./stored-json.js";

const FILE = "statements.json";
/** Older ones go. */
const STATEMENTS_MAX = 256;

const count = z.number().int().min(0);
const sums = { ops: count, bytes: count, files: count };
const time = z.string().nullable();

const loss = z.strictObject({
  firstLsn: count,
  lastLsn: count,
  ...sums,
  fsynced: z.strictObject(sums),
  isExact: z.boolean(),
  named: z.array(
    z.strictObject({
      inode: count,
      path: z.string().nullable().optional(),
      path_base64: z.string().optional(),
      ops: count,
      bytes: count,
      fsyncedOps: count,
    }),
  ),
});

const schema = z.strictObject({
  format: z.literal(1),
  list: z.array(
    z.strictObject({
      /** Uuid of the former owner's group, and its lineage, hexadecimal. */
      source: z.string(),
      lineage: z.string(),
      statement: z.strictObject({
        group: z.string(),
        recovered: z.strictObject({ lsn: count, time }),
        known: loss,
        unknown: z.strictObject({ afterLsn: count, since: time, opsAtLeast: count }),
      }),
    }),
  ),
});

export type StoredStatement = z.infer<typeof schema>["list"][number];

export function readStatements(folder: StateFolder): StoredStatement[] {
  const text = folder.read(FILE);
  if (text === undefined) return [];
  const hint = "put it back from a backup, or move it away: what failovers cost is not known then";
  return parseStored(schema, text, `${folder.path}/${FILE}`, hint).list;
}

/** Durable when it returns. */
export function writeStatements(folder: StateFolder, list: readonly StoredStatement[]): void {
  const kept = list.slice(-STATEMENTS_MAX);
  folder.write(FILE, `${JSON.stringify({ format: 1, list: kept }, undefined, 2)}\n`);
}
