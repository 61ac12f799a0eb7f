// returns.json: groups that were owned here, are owned by peers now, and become followers. A plan is there from before
// its first step until after its last.

import { z } from "zod";
import type { ReturnPlan } from "../nearsync-lws/machines/return.js";
import { PROTECTIONS_MAX } from "./protections-file.js";
import type { StateFolder } from "./state-folder.js";
import { parseStored } from "./stored-json.js";

const FILE = "returns.json";

const groupId = z.string().regex(/^[0-9a-f]{32}$/);
const epochId = z.string().regex(/^[0-9a-f]{16}$/);
const lsn = z.number().int().positive().nullable();

const schema = z.strictObject({
  format: z.literal(1),
  list: z
    .array(
      z.strictObject({
        group: groupId,
        name: z.string(),
        peer: z.string().regex(/^[0-9a-f]{64}$/),
        successor: z.strictObject({
          group: groupId,
          epochId,
          lsn,
          of: epochId,
          at: lsn,
          timeNs: z
            .string()
            .regex(/^\d{1,19}$/)
            .transform(BigInt),
        }),
        at: lsn,
        fork: z.string(),
        back: z.strictObject({
          rpoMs: z.number().int().positive(),
          bytesPerSecond: z.number().int().positive().nullable(),
          rf: z.number().int().min(0).max(3),
        }),
      }),
    )
    .max(PROTECTIONS_MAX),
});

export function readReturns(folder: StateFolder): ReturnPlan[] {
  const text = folder.read(FILE);
  const hint = "put it back from a backup, or move it away: peers that took a group over are asked again";
  return text === undefined ? [] : parseStored(schema, text, `${folder.path}/${FILE}`, hint).list;
}

/** Durable when it returns. */
export function writeReturns(folder: StateFolder, plans: readonly ReturnPlan[]): void {
  const list = plans.map(({ successor, ...plan }) => ({
    ...plan,
    successor: { ...successor, timeNs: `${successor.timeNs}` },
  }));
  folder.write(FILE, `${JSON.stringify({ format: 1, list }, undefined, 2)}\n`);
}
