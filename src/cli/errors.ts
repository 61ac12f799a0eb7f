// How the command line fails: a code that decides the exit status, a message, a hint.

import { EXIT_CODES } from "../daemon/protocol.js";
import type { ErrorBody, ErrorCode } from "../daemon/protocol.js";

export class CliError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly hint = "",
  ) {
    super(message);
  }
}

export function exitCodeOf(code: ErrorCode): number {
  return EXIT_CODES[code] ?? 1;
}

/** What went wrong, as data; an exception that nobody foresaw is `Internal`. */
export function toBody(error: unknown): ErrorBody {
  if (isErrorBody(error)) return { code: error.code, message: error.message, hint: error.hint };
  return { code: "Internal", message: error instanceof Error ? error.message : String(error), hint: "" };
}

function isErrorBody(error: unknown): error is ErrorBody {
  if (typeof error !== "object" || error === null) return false;
  const { code, message, hint } = error as Partial<ErrorBody>;
  return code !== undefined && code in EXIT_CODES && typeof message === "string" && typeof hint === "string";
}

/** To standard error: one JSON object, or one or two lines. */
export function report(error: unknown, how: { json: boolean }): number {
  const body = toBody(error);
  const lines = `holdfast: ${body.message}\n${body.hint === "" ? "" : `  hint: ${body.hint}\n`}`;
  process.stderr.write(how.json ? `${JSON.stringify(body)}\n` : lines);
  return exitCodeOf(body.code);
}
