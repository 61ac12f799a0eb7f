// holdfast fork list|show|diff|drop

import type { Command } from "commander";
import type { ForkAnswer } from "../../daemon/protocol.js";
import { contextOf, showPath } from "../context.js";
import { CliError } from "../errors.js";
import { bytes, print, table } from "../output.js";
import { describeDifference, fetchDifference } from "./diff.js";
import type { DifferenceOptions, WholeDifference } from "./diff.js";

export function addFork(program: Command): void {
  const fork = program
    .command("fork")
    .description(
      "what a former owner did here that its successor does not have; mount or clone it as a volume",
    );
  fork
    .command("list")
    .description("all forks of the daemon")
    .action(async (_options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const found = await client.get<ForkAnswer[]>("/v1/forks");
      print(output, found, () => forkTable(found));
    });
  fork
    .command("show <fork>")
    .description("one fork, and how much is in it")
    .action(async (name: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const found = await client.get<ForkAnswer>(urlOf(name));
      print(output, found, () => describe(found));
    });
  addDiff(fork);
  fork
    .command("drop <fork>")
    .description("destroy it, for good")
    .option("--yes", "do not ask")
    .action(async (name: string, options: { yes?: boolean }, command: Command) => {
      const { client, output } = contextOf(command);
      await client.delete(`${urlOf(name)}?yes=${options.yes === true}`);
      print(output, { name }, () => `fork ${name} is gone`);
    });
}

function addDiff(fork: Command): void {
  fork
    .command("diff <fork>")
    .description("files that differ between the last common point and the fork's end")
    .option("--ranges", "with the bytes that may differ")
    .option("--who", "with who made the newest change of each")
    .action(async (name: string, options: DifferenceOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const { volumes, common, name: group } = await client.get<ForkAnswer>(urlOf(name));
      if (common === null) {
        throw new CliError(
          "NotFound",
          `nothing is known that ${group} has in common with its successor`,
          "mount both, and compare them: diff -r",
        );
      }
      const differences: (WholeDifference & { volume: string })[] = [];
      for (const volume of volumes) {
        differences.push({
          volume,
          ...(await fetchDifference(client, volume, { from: `lsn:${common.lsn}` })),
        });
      }
      print(output, { name: group, common, volumes: differences }, () =>
        differences
          .map((one) => (volumes.length === 1 ? "" : `${one.volume}:\n`) + describeDifference(one, options))
          .join("\n\n"),
      );
    });
}

function urlOf(name: string): string {
  return `/v1/forks/${encodeURIComponent(name)}`;
}

function forkTable(forks: readonly ForkAnswer[]): string {
  const rows = forks.map(({ name, of, common, ops, mounts }) => [
    name,
    of ?? "",
    common === null ? "nothing" : `${common.lsn}`,
    common?.time ?? "",
    `${ops}`,
    mounts.map(showPath).join(", "),
  ]);
  return table(["fork", "of", "common to lsn", "which was", "ops since", "mounted at"], rows, "no forks");
}

function describe({ name, of, volumes, common, ops, changes, mounts }: ForkAnswer): string {
  const { files, bytes: size, isMore } = changes ?? { files: 0, bytes: 0, isMore: true };
  const count = `${files}${isMore ? " or more" : ""} changed files, ${bytes(size)} of them`;
  return [
    `fork ${name}${of === null ? "" : ` of ${of}`}${volumes.length === 1 ? "" : `: ${volumes.join(", ")}`}`,
    common === null
      ? "it has nothing in common with its successor that is kept"
      : `common with its successor up to LSN ${common.lsn}, cut at ${common.time ?? "an unknown time"}`,
    `since then: ${count}, ${ops} records of its log`,
    ...mounts.map((mount) => `mounted at ${showPath(mount)}`),
    `to see what: holdfast fork diff ${name}; to read it: holdfast mount ${volumes[0] ?? name} DIR`,
  ].join("\n");
}
