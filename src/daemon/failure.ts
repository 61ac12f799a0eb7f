// From an exception to what the caller is told.

import { HoldfastError } from "../io-path/errors.js";
import type { ErrorBody, ErrorCode } from "./protocol.js";

export function toErrorBody(error: unknown): ErrorBody {
  if (error instanceof HoldfastError) return { code: error.code, message: error.message, hint: error.hint };
  const message = error instanceof Error ? error.message : String(error);
  return { code: "Internal", message, hint: "this is a defect: please report it with the daemon's log" };
}

export const HTTP_STATUS: Readonly<Record<ErrorCode, number>> = {
  Internal: 500,
  Invalid: 400,
  NotFound: 404,
  Conflict: 409,
  Denied: 403,
  Unavailable: 503,
  Corrupt: 500,
  Fenced: 409,
  NoSpace: 507,
  Closed: 503,
  NeedsYes: 409,
  Damage: 500,
  Different: 500,
};
