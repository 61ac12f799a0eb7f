// holdfast failover GROUP --yield: this site gives a group up to a peer that owns it, too

import type { Command } from "commander";
import type { YieldAnswer } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { print } from "../output.js";

export async function yieldGroup(
  group: string,
  { to, yes }: { to?: string; yes?: boolean },
  command: Command,
): Promise<void> {
  const { client, output } = contextOf(command);
  const request = { target: group, yes: yes === true, ...(to === undefined ? {} : { to }) };
  const done = await client.post<YieldAnswer>("/v1/yields", request);
  print(output, done, () => told(done));
}

function told({ group, already, to, fork, common }: YieldAnswer): string {
  if (already) return `${group} follows already`;
  const since = common === null ? "" : ` since ${common.time ?? `LSN ${common.lsn}`}`;
  return [
    `${group} follows ${to} now`,
    `what was done here${since}, if anything, is fork ${fork ?? "of it"}; see: holdfast fork list`,
  ].join("\n");
}
