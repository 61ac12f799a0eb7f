// Failures that say what to do: a code that a program can act on, a message with the object's name, a hint.

import type { FailureCode } from "#native";

export type ErrorCode = FailureCode | "NeedsYes" | "Damage" | "Different";

export class HoldfastError extends Error {
  override readonly name = "HoldfastError";

  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly hint = "",
  ) {
    super(message);
  }
}

/** What a system call's error means for the caller; `what` names the object and what was tried on it. */
export function fromSystem(error: unknown, what: string, hint = ""): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const cause = error as NodeJS.ErrnoException;
  const reason =
    cause.code === undefined ? String(cause.message ?? error) : (REASONS[cause.code] ?? cause.code);
  return new HoldfastError(CODES[cause.code ?? ""] ?? "Internal", `${what}: ${reason}`, hint);
}

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "NotFound",
  ENOTDIR: "Invalid",
  EISDIR: "Invalid",
  EINVAL: "Invalid",
  ENAMETOOLONG: "Invalid",
  ELOOP: "Denied",
  EACCES: "Denied",
  EPERM: "Denied",
  EEXIST: "Conflict",
  EBUSY: "Conflict",
  ENOTEMPTY: "Conflict",
  ENOSPC: "NoSpace",
  EDQUOT: "NoSpace",
  EROFS: "Unavailable",
  EIO: "Unavailable",
  ENOTCONN: "Unavailable",
  ECONNREFUSED: "Unavailable",
};

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  ENOTDIR: "not a directory",
  ELOOP: "is a symbolic link",
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  ENOSPC: "no space left on device",
  EROFS: "read-only file system",
  EIO: "input/output error",
  ENOTCONN: "the file system there does not answer any more",
};
