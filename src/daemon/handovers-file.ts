// To whom groups were given: handovers.json. That they were is the engine's to know; a note about a group that was not
// means nothing.

import { z } from "zod";
import { listFile } from "./list-file.js";
import { PROTECTIONS_MAX } from "./protections-file.js";

const epochId = z.string().regex(/^[0-9a-f]{16}$/);
const lsn = z.number().int().positive();

const noteSchema = z.strictObject({
  group: z.uuid(),
  /** The fingerprint of the site that gets it. */
  peer: z.string().regex(/^[0-9a-f]{64}$/),
  /** The last recovery point. */
  lsn,
  /** What has become of it there; null: not known yet. */
  taken: z.strictObject({ uuid: z.uuid(), epochId, lsn, localLsn: lsn }).nullable(),
});

export type Note = z.infer<typeof noteSchema>;

export const notesFile = listFile("handovers.json", noteSchema, {
  most: PROTECTIONS_MAX,
  hint: "put it back from a backup, or move it away: what was given and not taken has to be taken back then",
});
