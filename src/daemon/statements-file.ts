// statements.json: what failovers cost, as it was said.

import { z } from "zod";
import { listFile } from "./list-file.js";
import type { StateFolder } from "./state-folder.js";

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
      volume: z.string().nullable().default(null),
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
  /** Uuid of the former owner's group, and its lineage, hexadecimal. */
  source: z.string(),
  lineage: z.string(),
  statement: z.strictObject({
    group: z.string(),
    recovered: z.strictObject({ lsn: count, time }),
    known: loss,
    unknown: z.strictObject({ afterLsn: count, since: time, opsAtLeast: count }),
    reconciled: z
      .strictObject({
        time: z.string(),
        peer: z.string(),
        ...{ known: loss, unknown: loss, total: loss },
        isContradicted: z.boolean(),
      })
      .nullable()
      .default(null),
  }),
});

export type StoredStatement = z.infer<typeof schema>;

const file = listFile("statements.json", schema, {
  hint: "put it back from a backup, or move it away: what failovers cost is not known then",
});

export const readStatements = (folder: StateFolder): StoredStatement[] => file.read(folder);

/** Durable when it returns. */
export function writeStatements(folder: StateFolder, list: readonly StoredStatement[]): void {
  file.write(folder, list.slice(-STATEMENTS_MAX));
}
