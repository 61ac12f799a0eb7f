// What the daemon keeps of comparisons: verifications.json, how the last one of each protection ended. Lost, the next
// one is made as if the protection were new.

import { z } from "zod";
import { reportSchema } from "../nearsync-lws/proof/report.js";
import { listFile } from "./list-file.js";
import { PROTECTIONS_MAX } from "./protections-file.js";

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

const schema = z.strictObject({
  /** Uuid of the group, and the peer's fingerprint. */
  group: z.string(),
  peer: z.string(),
  /** Since when it is looked after, in milliseconds since 1970. */
  sinceMs: count,
  /** How the newest that came to an end ended; null: none did. */
  last: reportSchema.nullable(),
});

export type StoredVerification = z.infer<typeof schema>;

export const verificationsFile = listFile("verifications.json", schema, {
  most: PROTECTIONS_MAX,
  hint: "move it away: only how the last comparisons ended is lost",
});
