// holdfast scrub [VOLUME | --pool POOL]

import type { Command } from "commander";
import type { ScrubReport } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { bytes, print } from "../output.js";

export function addScrub(program: Command): void {
  program
    .command("scrub [volume]")
    .description("verify every copy of a volume, or of a whole pool, and repair what is wrong")
    .option("--pool <pool>", "everything in this pool")
    .action(async (volume: string | undefined, options: { pool?: string }, command: Command) => {
      const { client, output } = contextOf(command);
      if ((volume === undefined) === (options.pool === undefined)) {
        throw new CliError("Invalid", "name a volume, or a pool with --pool", "holdfast scrub VOLUME");
      }
      const [kind, name] = volume === undefined ? ["pools", options.pool ?? ""] : ["volumes", volume];
      const report = await client.post<ScrubReport>(`/v1/${kind}/${encodeURIComponent(name)}/scrub`, {});
      print(output, report, () => describe(report));
    });
}

function describe(report: ScrubReport): string {
  const { pages, tables, footers, frames, badCopies, repaired, lost } = report;
  return [
    `${bytes(report.bytes)} read: ${pages} pages, ${tables} tables, ${footers} footers, ${frames} log frames`,
    `${badCopies} bad copies, ${repaired} repaired; ${lost} without any right copy`,
    ...report.findings,
  ].join("\n");
}
