// Who did something, for people; names of users on this machine.

import { readFileSync } from "node:fs";
import type { FileChangeAnswer } from "../daemon/protocol.js";
import { printable } from "./output.js";

/** `alice (vim, pid 77)`, as far as it is known; empty: nobody knows. */
export function describeActor(actor: FileChangeAnswer["actor"]): string {
  if (actor === null) return "";
  const { uid, pid, command } = actor;
  const process = [command, pid === null ? null : `pid ${pid}`].filter((part) => part !== null);
  return printable(`${userOf(uid) ?? uid}${process.length === 0 ? "" : ` (${process.join(", ")})`}`);
}

let users: ReadonlyMap<number, string> | undefined;

/** Null: the number has no name here. */
export function userOf(uid: number): string | null {
  users ??= readUsers();
  return users.get(uid) ?? null;
}

/** passwd(5); the first of several names of one number counts. */
function readUsers(): ReadonlyMap<number, string> {
  let text = "";
  try {
    text = readFileSync("/etc/passwd", "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const found = new Map<number, string>();
  for (const line of text.split("\n")) {
    const [name, , uid] = line.split(":");
    if (name !== undefined && uid !== undefined && !found.has(Number(uid))) found.set(Number(uid), name);
  }
  return found;
}
