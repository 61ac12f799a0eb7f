// holdfast mount VOLUME DIR

import { Option } from "commander";
import type { Command } from "commander";
import type { MountResult } from "../../daemon/protocol.js";
import { showArgument, toPathJson } from "../argv.js";
import { collect, contextOf } from "../context.js";
import { print } from "../output.js";

interface MountOptions {
  options?: string[];
  source?: string;
  transport?: string;
  at?: string;
}

export function addMount(program: Command): void {
  program
    .command("mount <volume> <dir>")
    .description("mount a volume; it stays wanted until `umount`, also over restarts")
    .option("-o, --options <list>", "ro, allow_other, suid, dev, noexec, noatime …; commas between", collect)
    .option(
      "--at <point>",
      "what was there then, for reading: a snapshot's name, 10:31, -5m, 2026-11-22T10:31:07Z, lsn:N",
    )
    .addOption(
      new Option("--transport <door>", "what carries requests; auto: what measures faster here").choices([
        "auto",
        "dev",
        "uring",
      ]),
    )
    .addOption(new Option("--source <text>", "shown as the mount's source").hideHelp())
    .action(async (volume: string, dir: string, options: MountOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const words = (options.options ?? []).flatMap((list) => list.split(",")).filter((word) => word !== "");
      if (options.transport !== undefined) words.push(`transport=${options.transport}`);
      const source = options.source === undefined ? {} : { source: options.source };
      const at = options.at === undefined ? {} : { at: options.at };
      const request = { volume, ...toPathJson(dir), options: words, ...source, ...at };
      const result = await client.post<MountResult>("/v1/mounts", request);
      const where = showArgument(dir);
      print(output, result, () =>
        result.already
          ? `volume ${volume} is mounted at ${where} already`
          : `volume ${volume} is mounted at ${where}`,
      );
    });
}
