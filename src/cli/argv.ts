// Arguments as bytes. Node turns what is not UTF-8 into U+FFFD; /proc/self/cmdline has the truth. Such an argument
// travels through the option parser as text that no argument can be (it contains NUL) and comes out as bytes.

import { isUtf8 } from "node:buffer";
import { readFileSync, readlinkSync, statSync } from "node:fs";
import { resolve } from "node:path";
import type { PathJson } from "../daemon/protocol.js";
import { fromBuffer, fromText } from "./bytes.js";
import type { Bytes } from "./bytes.js";
import { CliError } from "./errors.js";

const MARK = "\0base64:";

/** The arguments after the program's name, lossless. */
export function losslessArguments(): string[] {
  const given = process.argv.slice(2);
  const all = splitAtNul(readFileSync("/proc/self/cmdline"));
  const raw = all.slice(all.length - given.length);
  return given.map((text, index) => {
    const bytes = raw[index];
    return bytes === undefined || isUtf8(bytes) ? text : mark(bytes);
  });
}

/** `--option=BYTES` keeps its option. */
function mark(bytes: Buffer): string {
  const equals = bytes.indexOf("=");
  const isOption = bytes.subarray(0, 2).toString() === "--" && equals > 0;
  const head = isOption ? bytes.subarray(0, equals + 1) : Buffer.alloc(0);
  return `${head.toString()}${MARK}${bytes.subarray(head.length).toString("base64")}`;
}

function splitAtNul(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let from = 0; from < bytes.length;) {
    const end = bytes.indexOf(0, from);
    parts.push(bytes.subarray(from, end < 0 ? bytes.length : end));
    from = end < 0 ? bytes.length : end + 1;
  }
  return parts;
}

/** An argument as an absolute path for the API. */
export function toPathJson(argument: string): PathJson {
  if (argument === "") throw new CliError("Invalid", "an empty path");
  if (!argument.startsWith(MARK)) return { path: resolve(argument) };
  const bytes = Buffer.from(argument.slice(MARK.length), "base64");
  const absolute = bytes[0] === 0x2f ? bytes : Buffer.concat([Buffer.from(`${process.cwd()}/`), bytes]);
  return { path_base64: absolute.toString("base64") };
}

const DELETED = " (deleted)";

/** An argument as an absolute path, not normalised; also below a directory that is gone. */
export function toPathBytes(argument: string): Bytes {
  if (argument === "") throw new CliError("Invalid", "an empty path");
  const path = argument.startsWith(MARK)
    ? fromBuffer(Buffer.from(argument.slice(MARK.length), "base64"))
    : fromText(argument);
  if (path.startsWith("/")) return path;
  const folder = fromBuffer(readlinkSync("/proc/self/cwd", { encoding: "buffer" }));
  const isGone = folder.endsWith(DELETED) && statSync("/proc/self/cwd").nlink === 0;
  return `${isGone ? folder.slice(0, -DELETED.length) : folder}/${path}` as Bytes;
}

/** An argument for people. */
export function showArgument(argument: string): string {
  return argument.startsWith(MARK)
    ? Buffer.from(argument.slice(MARK.length), "base64").toString("latin1")
    : argument;
}
