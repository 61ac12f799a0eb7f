// holdfast daemon: runs in the foreground.

import { resolve } from "node:path";
import type { Command } from "commander";
import { contextOf } from "../context.js";

export function addDaemon(program: Command): void {
  program
    .command("daemon")
    .description("run the daemon in the foreground; SIGTERM flushes, unmounts and ends it")
    .option("--config <file>", "YAML configuration")
    .action(async (options: { config?: string }, command: Command) => {
      const { state } = contextOf(command);
      // The one place where the command line becomes the daemon; loaded late, so that no other verb pays for it.
      const { runDaemon } = await import("../../daemon/run.js");
      await runDaemon({ state, config: options.config === undefined ? undefined : resolve(options.config) });
    });
}
