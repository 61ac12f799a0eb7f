// What the daemon keeps of comparisons: verifications.json, how the last one of each protection ended. Lost, the next
// one is made as if the protection were new.

import { z } from "zod";
import { reportSchema } from "../nearsync-lws/proof/report.js";
import type { StateFolder } from "./state-folder.js";
import { PROTECTIONS_MAX } from "./protections-file.js";
import { parseStored } from "./stored-json.js";

const FILE = "verifications.json";
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

const schema = z.strictObject({
  format: z.literal(1),
  list: z
    .array(
      z.strictObject({
        /** Uuid of the group, and the peer's fingerprint. */
        group: z.string(),
        peer: z.string(),
        /** Since when it is looked after, in milliseconds since 1970. */
        sinceMs: count,
        /** How the newest that came to an end ended; null: none did. */
        last: reportSchema.nullable(),
      }),
    )
    .max(PROTECTIONS_MAX),
});

export type StoredVerification = z.infer<typeof schema>["list"][number];

export function readVerifications(folder: StateFolder): StoredVerification[] {
  const text = folder.read(FILE);
  if (text === undefined) return [];
  const hint = "move it away: only how the last comparisons ended is lost";
  return parseStored(schema, text, `${folder.path}/${FILE}`, hint).list;
}

/** Durable when it returns. */
export function writeVerifications(folder: StateFolder, list: readonly StoredVerification[]): void {
  folder.write(FILE, `${JSON.stringify({ format: 1, list }, undefined, 2)}\n`);
}
