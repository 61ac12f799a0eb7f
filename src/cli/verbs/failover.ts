// holdfast failover GROUP --planned | --unplanned | --test | --yield

import type { Command } from "commander";
import type { FailoverAnswer, LossStatement, OtherReplica, PlannedAnswer } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { print } from "../output.js";
import { statementText } from "./failover-statement.js";
import { testFailover } from "./failover-test.js";
import type { TestOptions } from "./failover-test.js";
import { yieldGroup } from "./failover-yield.js";

interface FailoverOptions extends TestOptions {
  planned?: boolean;
  to?: string;
  unplanned?: boolean;
  statement?: boolean;
  test?: boolean;
  yield?: boolean;
  force?: boolean;
  yes?: boolean;
}

export function addFailover(program: Command): void {
  program
    .command("failover [group]")
    .description("at the site of a replica: go on from what it has received, as the owner")
    .option(
      "--planned",
      "the owner gives it away: nothing is lost, who writes there waits for a moment, and it follows",
    )
    .option(
      "--to <peer>",
      "with --planned, at the owner: who is to be it, else this site; with --yield: to whom",
    )
    .option("--unplanned", "the owner is gone; says first what that costs")
    .option("--statement", "what the failover cost, exactly once the former owner is back; or would cost now")
    .option("--force", "with --unplanned: also while the owner is connected")
    .option(
      "--yield",
      "at an owner: give it up to a peer that owns it, too; what only this site has is a fork",
    )
    .option("--yes", "do it")
    .option("--test", "try it on a clone of the newest recovery point; the owner and replication go on")
    .option("--mount <dir>", "with --test: where to mount the clone")
    .option("--name <name>", "with --test: what the clone is called (default: GROUP-test)")
    .option("--drop", "with --test: unmount and destroy the clone")
    .option("--list", "with --test: what is being tested")
    .action(async (group: string | undefined, options: FailoverOptions, command: Command) => {
      checkOptions(options);
      if (options.yield === true && group !== undefined) return await yieldGroup(group, options, command);
      if (options.test === true) return await testFailover(group, options, command);
      if (options.planned === true && group !== undefined) return await planned(group, options.to, command);
      const way = options.unplanned === true || options.statement === true;
      if (group === undefined || !way) {
        throw new CliError(
          "Invalid",
          "say which group, and how: --planned, --unplanned, --test, --statement or --yield",
          "see: holdfast failover --help",
        );
      }
      const { client, output } = contextOf(command);
      if (options.statement === true || options.yes !== true) {
        const said = await client.get<LossStatement>(`/v1/failovers/${encodeURIComponent(group)}/statement`);
        print(output, said, () => statementText(said));
        if (options.statement === true) return;
      }
      const [yes, force] = [options.yes === true, options.force === true];
      const request = { target: group, mode: "unplanned", yes, force };
      const done = await client.post<FailoverAnswer>("/v1/failovers", request);
      print(output, done, () => told(done));
    });
}

async function planned(group: string, to: string | undefined, command: Command): Promise<void> {
  const { client, output } = contextOf(command);
  const request = to === undefined ? { target: group } : { target: group, to };
  const done = await client.post<PlannedAnswer>("/v1/failovers/planned", request);
  print(output, done, () => toldPlanned(done));
}

function toldPlanned({ group, already, owner, lsn, waitedMs }: PlannedAnswer): string {
  const now = already ? "already " : "";
  const paused = waitedMs === null ? "" : `; who was writing waited for ${(waitedMs / 1000).toFixed(2)} s`;
  return owner === null
    ? `${group} is ${now}owned here, with everything up to LSN ${lsn} of its former owner, and can be mounted`
    : `${group} is ${now}owned by ${owner}, with everything up to LSN ${lsn}; here it can be read${paused}`;
}

/** What belongs to one way only must not be taken for another. */
function checkOptions(options: FailoverOptions): void {
  const { test, planned, unplanned, to, list, drop, mount, name } = options;
  if ([test, planned, unplanned, options.yield].filter((way) => way === true).length > 1) {
    throw new CliError(
      "Invalid",
      "--planned, --unplanned, --test and --yield are different things",
      "say one of them",
    );
  }
  if (to !== undefined && planned !== true && options.yield !== true) {
    throw new CliError("Invalid", "--to goes with --planned or --yield", "add --planned, or --yield");
  }
  if (options.force !== undefined && unplanned !== true) {
    throw new CliError("Invalid", "--force goes with --unplanned", "add --unplanned");
  }
  if ([list, drop, mount, name].some((given) => given !== undefined) && test !== true) {
    throw new CliError("Invalid", "--mount, --name, --drop and --list go with --test", "add --test");
  }
}

function told({ group, already, loss, others }: FailoverAnswer): string {
  const now = `${group} is ${already ? "already " : ""}owned here, and can be mounted`;
  return [now, statementText(loss), ...others.map(otherText)].join("\n");
}

function otherText({ site, peer, isSent }: OtherReplica): string {
  if (isSent) return `${site}, which has a replica, too, follows`;
  if (peer !== null) return `${peer}, which has a replica, too, follows by itself when it is connected`;
  return [
    `${site} has a replica, too, and is no peer of this site. It follows by itself after`,
    `  here: holdfast peer pair --invite --listen HOST:PORT`,
    `  at ${site}: holdfast peer pair INVITE`,
  ].join("\n");
}
