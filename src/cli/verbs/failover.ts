// holdfast failover GROUP --unplanned | --test

import type { Command } from "commander";
import type { FailoverAnswer } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { print } from "../output.js";
import { testFailover } from "./failover-test.js";
import type { TestOptions } from "./failover-test.js";

interface FailoverOptions extends TestOptions {
  unplanned?: boolean;
  test?: boolean;
  yes?: boolean;
}

export function addFailover(program: Command): void {
  program
    .command("failover [group]")
    .description("at the site of a replica: go on from what it has received, as the owner")
    .option("--unplanned", "the owner is gone; what it did after the newest recovery point here is not known")
    .option("--yes", "do it")
    .option("--test", "try it on a clone of the newest recovery point; the owner and replication go on")
    .option("--mount <dir>", "with --test: where to mount the clone")
    .option("--name <name>", "with --test: what the clone is called (default: GROUP-test)")
    .option("--drop", "with --test: unmount and destroy the clone")
    .option("--list", "with --test: what is being tested")
    .action(async (group: string | undefined, options: FailoverOptions, command: Command) => {
      checkOptions(options);
      if (options.test === true) return await testFailover(group, options, command);
      if (group === undefined || options.unplanned !== true) {
        throw new CliError(
          "Invalid",
          "say which group, and how: --unplanned or --test",
          "see: holdfast failover --help",
        );
      }
      const { client, output } = contextOf(command);
      const request = { target: group, mode: "unplanned", yes: options.yes === true };
      const done = await client.post<FailoverAnswer>("/v1/failovers", request);
      print(output, done, () => told(done));
    });
}

/** What belongs to one way only must not be taken for another. */
function checkOptions({ test, unplanned, list, drop, mount, name }: FailoverOptions): void {
  const ofTest = [list, drop, mount, name].some((given) => given !== undefined);
  if (test === true && unplanned === true)
    throw new CliError("Invalid", "--test and --unplanned are two things");
  if (ofTest && test !== true) {
    throw new CliError("Invalid", "--mount, --name, --drop and --list go with --test", "add --test");
  }
}

function told({ group, already, recovered: { lsn, time } }: FailoverAnswer): string {
  return [
    `${group} is ${already ? "already " : ""}owned here, and can be mounted`,
    `recovered to LSN ${lsn} of its former owner${time === null ? "" : `, cut at ${time}`}`,
    "what that did later is unknown here",
  ].join("\n");
}
