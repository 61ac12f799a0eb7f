// Paths and names as bytes: a string with one character a byte, so that they are cut, joined and compared as easily as
// text, and what is not UTF-8 comes through.

import { isUtf8 } from "node:buffer";
import type { PathJson } from "../daemon/protocol.js";
import { printable } from "./output.js";

/** Never shown and never given to a system call as it is: `raw`, `show` and `toJson` are the ways out. */
export type Bytes = string & { readonly __bytes: true };

export function fromBuffer(buffer: Buffer): Bytes {
  return buffer.toString("latin1") as Bytes;
}

export function fromText(text: string): Bytes {
  return fromBuffer(Buffer.from(text, "utf8"));
}

export function raw(bytes: Bytes): Buffer {
  return Buffer.from(bytes, "latin1");
}

/** As an argument of a program; `undefined`: Node has no way to pass it. */
export function asArgument(bytes: Bytes): string | undefined {
  const buffer = raw(bytes);
  return isUtf8(buffer) ? buffer.toString("utf8") : undefined;
}

/** For people. */
export function show(bytes: Bytes): string {
  return printable(asArgument(bytes) ?? bytes);
}

export function toJson(bytes: Bytes): PathJson {
  const text = asArgument(bytes);
  return text === undefined ? { path_base64: raw(bytes).toString("base64") } : { path: text };
}

/** The names of a path; "." and empty ones go, ".." takes the name before it. */
export function split(path: Bytes): Bytes[] {
  const names: Bytes[] = [];
  for (const name of path.split("/")) {
    if (name === "..") names.pop();
    else if (name !== "" && name !== ".") names.push(name as Bytes);
  }
  return names;
}

/** An absolute path. */
export function absolute(names: readonly Bytes[]): Bytes {
  return `/${names.join("/")}` as Bytes;
}
