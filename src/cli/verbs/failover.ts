// holdfast failover GROUP --unplanned

import type { Command } from "commander";
import type { FailoverAnswer } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { print } from "../output.js";

export function addFailover(program: Command): void {
  program
    .command("failover <group>")
    .description("at the site of a replica: go on from what it has received, as the owner")
    .option("--unplanned", "the owner is gone; what it did after the newest recovery point here is not known")
    .option("--yes", "do it")
    .action(async (group: string, options: { unplanned?: boolean; yes?: boolean }, command: Command) => {
      if (options.unplanned !== true) {
        throw new CliError("Invalid", "say how: --unplanned", "it is for an owner that is gone");
      }
      const { client, output } = contextOf(command);
      const request = { target: group, mode: "unplanned", yes: options.yes === true };
      const done = await client.post<FailoverAnswer>("/v1/failovers", request);
      print(output, done, () => told(done));
    });
}

function told({ group, already, recovered: { lsn, time } }: FailoverAnswer): string {
  return [
    `${group} is ${already ? "already " : ""}owned here, and can be mounted`,
    `recovered to LSN ${lsn} of its former owner${time === null ? "" : `, cut at ${time}`}`,
    "what that did later is unknown here",
  ].join("\n");
}
