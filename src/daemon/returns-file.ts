// returns.json: groups that were owned here, are owned by peers now, and become followers. A plan is there from before
// its first step until after its last.

import { z } from "zod";
import type { ReturnPlan } from "../nearsync-lws/machines/return.js";
import { listFile } from "./list-file.js";
import { PROTECTIONS_MAX } from "./protections-file.js";
import type { StateFolder } from "./state-folder.js";

const groupId = z.string().regex(/^[0-9a-f]{32}$/);
const epochId = z.string().regex(/^[0-9a-f]{16}$/);
const lsn = z.number().int().positive().nullable();

const schema = z.strictObject({
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
});

const file = listFile("returns.json", schema, {
  most: PROTECTIONS_MAX,
  hint: "put it back from a backup, or move it away: peers that took a group over are asked again",
});

export const readReturns = (folder: StateFolder): ReturnPlan[] => file.read(folder);

/** Durable when it returns. */
export function writeReturns(folder: StateFolder, plans: readonly ReturnPlan[]): void {
  const list = plans.map(({ successor, ...plan }) => ({
    ...plan,
    successor: { ...successor, timeNs: `${successor.timeNs}` },
  }));
  file.write(folder, list);
}
