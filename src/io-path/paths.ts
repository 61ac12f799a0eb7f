// Paths are bytes. They become text only for people and for JSON, and there without loss.

import { isUtf8 } from "node:buffer";

/** A path in JSON: `path` where it is UTF-8, `path_base64` where it is not. */
export interface PathJson {
  path?: string | undefined;
  path_base64?: string | undefined;
}

export function pathToJson(path: Buffer): PathJson {
  return isUtf8(path) ? { path: path.toString("utf8") } : { path_base64: path.toString("base64") };
}

/** `undefined` when neither form is there, or when a path cannot be: empty, relative, with NUL, too long. */
export function pathFromJson(json: PathJson): Buffer | undefined {
  const bytes =
    json.path === undefined
      ? json.path_base64 === undefined
        ? undefined
        : Buffer.from(json.path_base64, "base64")
      : Buffer.from(json.path, "utf8");
  if (bytes === undefined || bytes.length === 0 || bytes.length > 4095) return undefined;
  return bytes[0] === SLASH && !bytes.includes(0) ? bytes : undefined;
}

/** For messages: control characters and bytes that are not UTF-8 are escaped. */
export function pathToText(path: Buffer): string {
  const odd = isUtf8(path) ? /[\x00-\x1f\x7f\\]/g : /[\x00-\x1f\x7f-\xff\\]/g;
  return path.toString(isUtf8(path) ? "utf8" : "latin1").replace(odd, escape);
}

/** Is `path` the directory `dir` or something below it? */
export function isWithin(path: Buffer, dir: Buffer): boolean {
  if (path.length === dir.length) return path.equals(dir);
  if (dir.length === 1) return true;
  return path.length > dir.length && path[dir.length] === SLASH && path.subarray(0, dir.length).equals(dir);
}

const SLASH = 0x2f;

function escape(character: string): string {
  return character === "\\" ? "\\\\" : `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
}
