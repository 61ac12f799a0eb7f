#!/usr/bin/env node
// The command line: options, verbs, exit status.

import { CommanderError } from "commander";
import { losslessArguments } from "./argv.js";
import { CliError, report } from "./errors.js";
import { createProgram } from "./program.js";

async function main(): Promise<number> {
  const args = losslessArguments();
  const json = args.includes("--json");
  // A reader that has gone (`holdfast … | head`) is no failure.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));
  try {
    await createProgram().parseAsync(args, { from: "user" });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (!(error instanceof CommanderError)) return report(error, { json });
    if (error.exitCode === 0) return 0;
    const message = error.message.replace(/^error: /, "");
    return report(
      new CliError("Invalid", message === "(outputHelp)" ? "a verb is missing" : message, USAGE),
      { json },
    );
  }
}

const USAGE = "see: holdfast --help";

process.exitCode = await main();
