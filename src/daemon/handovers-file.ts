// To whom groups were given: handovers.json. That they were is the engine's to know; a note about a group that was not
// means nothing.

import { z } from "zod";
import { PROTECTIONS_MAX } from "./protections-file.js";
import type { StateFolder } from "./state-folder.js";
import { parseStored } from "./stored-json.js";

const FILE = "handovers.json";

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
const schema = z.strictObject({ format: z.literal(1), list: z.array(noteSchema).max(PROTECTIONS_MAX) });

export type Note = z.infer<typeof noteSchema>;

export function readNotes(folder: StateFolder): Note[] {
  const text = folder.read(FILE);
  const hint =
    "put it back from a backup, or move it away: what was given and not taken has to be taken back then";
  return text === undefined ? [] : parseStored(schema, text, `${folder.path}/${FILE}`, hint).list;
}

/** Durable when it returns. */
export function writeNotes(folder: StateFolder, list: readonly Note[]): void {
  folder.write(FILE, `${JSON.stringify({ format: 1, list }, undefined, 2)}\n`);
}
