// What the daemon must know of its policies after a restart: the file that was applied, when each ran, what it owes.

import { z } from "zod";
import type { StateFolder } from "../state-folder.js";
import { parseStored } from "../stored-json.js";
import type { Thaw } from "./run.js";

export interface PolicyRecord {
  /** Runs before this moment are done or given up; milliseconds since 1970. */
  doneMs: number;
  /** The last run that took every snapshot it should; null: none yet. */
  successMs: number | null;
  /** An application that a hook may have frozen. */
  thaw: Thaw | null;
}

export interface PolicyState {
  /** As it was applied, for messages. */
  file: string;
  text: string;
  appliedMs: number;
  records: Map<string, PolicyRecord>;
}

export interface PolicyStateFile {
  /** `undefined`: nothing was ever applied. */
  read(): PolicyState | undefined;
  /** Durable when it returns. */
  write(state: PolicyState): void;
}

const FILE = "policies.json";

const ms = z.number().int().nonnegative();
const schema = z.object({
  format: z.literal(1),
  file: z.string(),
  text: z.string(),
  appliedMs: ms,
  records: z.record(
    z.string(),
    z.object({
      doneMs: ms,
      successMs: ms.nullable(),
      thaw: z
        .object({
          target: z.string(),
          group: z.string(),
          volumes: z.array(z.string()),
          snapshot: z.string(),
        })
        .nullable(),
    }),
  ),
});

export function policyStateFile(folder: StateFolder): PolicyStateFile {
  return {
    read: () => {
      const text = folder.read(FILE);
      return text === undefined ? undefined : parse(text, `${folder.path}/${FILE}`);
    },
    write: ({ records, ...rest }) => {
      const json = { format: 1, ...rest, records: Object.fromEntries(records) };
      folder.write(FILE, `${JSON.stringify(json, undefined, 2)}\n`);
    },
  };
}

function parse(text: string, path: string): PolicyState {
  const hint = "move the file away and apply the policies again: holdfast policy apply FILE";
  const { records, file, text: applied, appliedMs } = parseStored(schema, text, path, hint);
  return { file, text: applied, appliedMs, records: new Map(Object.entries(records)) };
}
