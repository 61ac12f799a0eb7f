// What a system call's error means for who typed the verb.

import type { ErrorCode } from "../../daemon/protocol.js";
import { CliError } from "../errors.js";

export function errno(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? "";
}

/** `what` says what was tried, on which object. */
export function fromSystem(error: unknown, what: string, hint = ""): CliError {
  if (error instanceof CliError) return error;
  const code = errno(error);
  const known = MEANINGS[code];
  if (known !== undefined) return new CliError(known[0], `${what}: ${known[1]}`, hint || known[2]);
  return new CliError(
    "Internal",
    `${what}: ${code || (error instanceof Error ? error.message : String(error))}`,
    hint,
  );
}

/** The same for the messages of a program (LC_ALL=C). */
export function fromMessages(messages: string, what: string): CliError {
  const found = MESSAGES.find(([words]) => messages.includes(words));
  const [, code, hint] = found ?? ["", "Unavailable", ""];
  return new CliError(code, `${what}: ${messages}`, hint);
}

const GONE = "what is kept of that time may just have expired; look at what is left: holdfast versions PATH";
const FULL = "nothing was changed; make room, or restore to another place with --to";

const MEANINGS: Readonly<Record<string, readonly [ErrorCode, string, string]>> = {
  ENOENT: ["NotFound", "no such file or directory", ""],
  ENOTDIR: ["Invalid", "not a directory", ""],
  ELOOP: ["Denied", "is a symbolic link, or leads through too many", ""],
  EINVAL: ["Invalid", "that cannot be", ""],
  ENAMETOOLONG: ["Invalid", "the name is too long", ""],
  EACCES: ["Denied", "permission denied", ""],
  EPERM: ["Denied", "operation not permitted", ""],
  EROFS: ["Invalid", "it cannot be written to", "earlier states never change; name another place with --to"],
  EBUSY: ["Conflict", "it is in use, or a mount point", ""],
  EEXIST: ["Conflict", "it is there already", ""],
  ENOTEMPTY: ["Conflict", "it is not empty", ""],
  ENOSPC: ["NoSpace", "no space left on device", FULL],
  EDQUOT: ["NoSpace", "the quota is used up", FULL],
  ESTALE: ["Unavailable", "it is kept no longer", GONE],
  EIO: ["Unavailable", "input/output error", "holdfast doctor says what is wrong with the drives"],
  ENOTCONN: ["Unavailable", "the file system there does not answer any more", "start the daemon again"],
};

const MESSAGES: readonly (readonly [string, ErrorCode, string])[] = [
  ["No space left on device", "NoSpace", FULL],
  ["Disk quota exceeded", "NoSpace", FULL],
  ["Permission denied", "Denied", "the rights of that time and those of now count"],
  ["Operation not permitted", "Denied", "the rights of that time and those of now count"],
  ["Stale file handle", "Unavailable", GONE],
];
