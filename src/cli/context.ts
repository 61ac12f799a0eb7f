// What every verb starts from: the state folder, the daemon behind it, how to print.

import { homedir } from "node:os";
import { join, resolve } from "node:path";
import type { Command } from "commander";
import type { PathJson } from "../daemon/protocol.js";
import { Client } from "./client.js";
import { CliError } from "./errors.js";
import { printable } from "./output.js";
import type { Output } from "./output.js";

export interface Context {
  state: string;
  client: Client;
  output: Output;
}

/** Global options may stand before or after the verb. */
export function contextOf(command: Command): Context {
  const { state, json } = command.optsWithGlobals<{ state?: string; json?: boolean }>();
  const folder = resolve(state ?? defaultState());
  return { state: folder, client: new Client(folder), output: { json: json === true } };
}

export function defaultState(): string {
  const named = process.env.HOLDFAST_STATE;
  if (named !== undefined && named !== "") return named;
  if (process.geteuid?.() === 0) return "/var/lib/holdfast";
  const base = process.env.XDG_STATE_HOME;
  return join(
    base !== undefined && base.startsWith("/") ? base : join(homedir(), ".local/state"),
    "holdfast",
  );
}

/** Destructive verbs need `--yes`. */
export function requireYes(options: { yes?: boolean }, what: string): void {
  if (options.yes !== true) throw new CliError("NeedsYes", `${what} cannot be undone`, "add --yes to do it");
}

/** A path of an answer, for people. */
export function showPath(json: PathJson): string {
  return printable(json.path ?? Buffer.from(json.path_base64 ?? "", "base64").toString("latin1"));
}

/** For options that may be repeated. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}
