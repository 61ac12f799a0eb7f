// holdfast umount DIR

import type { Command } from "commander";
import type { UmountResult } from "../../daemon/protocol.js";
import { showArgument, toPathJson } from "../argv.js";
import { contextOf } from "../context.js";
import { print } from "../output.js";

export function addUmount(program: Command): void {
  program
    .command("umount <dir>")
    .description("unmount a volume; it is wanted no longer")
    .option("--detach", "also when it is busy: its users keep what they have open until they let go")
    .action(async (dir: string, options: { detach?: boolean }, command: Command) => {
      const { client, output } = contextOf(command);
      const request = { ...toPathJson(dir), detach: options.detach === true };
      const result = await client.post<UmountResult>("/v1/umount", request);
      const where = showArgument(dir);
      print(
        output,
        result,
        () => `volume ${result.volume} is ${result.detached ? "detached from" : "no longer at"} ${where}`,
      );
    });
}
