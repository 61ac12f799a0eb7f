// Who made the newest change of a place: the mount says it of every name in a directory, in the target of a symbolic
// link that only a look-up finds (native/store/src/past/notes.rs).

import { closeSync, openSync, readlinkSync } from "node:fs";
import { fromBuffer, show } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { errno } from "./failure.js";
import { userOf } from "../users.js";
import { STEP, inside } from "./walk.js";

const PREFIX = ".holdfast:who:";

export interface Writer {
  uid: number;
  /** Its name on this machine; null: it has none here. */
  user: string | null;
  /** Of the process; null: not known, or in another namespace. */
  pid: number | null;
  /** The name of its program, as far as the kernel keeps it; null: not known. */
  command: string | null;
}

interface Note {
  /** Of the change, since 1970. */
  ctimeNs: bigint;
  writer: Writer | null;
}

/**
 * Who changed a place below `start` last; of what is not there, the directory in which the first name is missing.
 * `undefined`: nobody says.
 */
export function whoChanged(start: number, names: readonly Bytes[]): Note | undefined {
  let here = openSync(inside(start, "."), STEP);
  try {
    for (const name of names.slice(0, -1)) {
      let next: number;
      try {
        next = openSync(inside(here, name), STEP);
      } catch {
        return ask(here, ".");
      }
      closeSync(here);
      here = next;
    }
    return ask(here, names.at(-1) ?? ".") ?? ask(here, ".");
  } finally {
    closeSync(here);
  }
}

function ask(directory: number, name: Bytes | string): Note | undefined {
  try {
    return parseNote(fromBuffer(readlinkSync(inside(directory, PREFIX + name), { encoding: "buffer" })));
  } catch (error) {
    // Not there, not ours to see, a name that is too long for the question, or something real of that name.
    if (["ENOENT", "EACCES", "ENAMETOOLONG", "EINVAL", "ESTALE", "ENOTDIR"].includes(errno(error)))
      return undefined;
    throw error;
  }
}

export function parseNote(words: Bytes): Note | undefined {
  const form = /^ctime=(-?\d+)\.(\d{9}) (?:unknown|uid=(\d+) pid=(\d+) command=(.*))$/s;
  const found = form.exec(words);
  if (found === null) return undefined;
  const [, seconds = "0", nanoseconds = "0", uid, pid, command = ""] = found;
  const ctimeNs = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  if (uid === undefined) return { ctimeNs, writer: null };
  return {
    ctimeNs,
    writer: {
      uid: Number(uid),
      user: userOf(Number(uid)),
      pid: Number(pid) === 0 ? null : Number(pid),
      command: command === "" ? null : show(command as Bytes),
    },
  };
}
