// Where in which volume a path lies, whether or not it is there now.
//
// - Symbolic links are followed once, by the kernel, in the directories that lead there as they are now. From then on a
//   spot is a list of names, and every walk along it refuses symbolic links: those of the past lead nowhere.

import { lstatSync, readFileSync, realpathSync } from "node:fs";
import { absolute, fromBuffer, raw, show, split } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { CliError } from "../errors.js";
import { errno, fromSystem } from "./failure.js";

const DOOR = ".holdfast";

export interface Spot {
  /** Its absolute path, free of symbolic links up to what is there. */
  path: Bytes;
  /** Directory that shows the volume's root. */
  mount: Bytes;
  /** Names below the volume's root; none: the root itself. */
  names: Bytes[];
}

export interface MountLine {
  device: string;
  /** What of the file system is mounted: `/`, or a directory of it. */
  root: Bytes;
  point: Bytes;
  type: string;
}

/** A path in a Holdfast mount. */
export function findSpot(path: Bytes): Spot {
  const real = resolveParents(path);
  const mounts = readMounts();
  const own = mountOf(real, mounts);
  if (own?.type !== "fuse.holdfast") {
    const hint = "holdfast status lists what is mounted where";
    throw new CliError("Invalid", `${show(real)} is not in a Holdfast mount`, hint);
  }
  const names = [...split(own.root), ...split(real.slice(own.point.length) as Bytes)];
  // A directory of a volume may be mounted elsewhere by itself; the past is found at the volume's root.
  const whole =
    own.root === "/" ? own : mounts.findLast(({ device, root }) => device === own.device && root === "/");
  if (whole === undefined) {
    throw new CliError(
      "Invalid",
      `${show(own.point)} shows a part of a volume, and its root is mounted nowhere`,
    );
  }
  if (names[0] === DOOR) {
    const hint = "name it as it is, or was, outside of .holdfast; --at names the time";
    throw new CliError("Invalid", `${show(real)} is an earlier state itself`, hint);
  }
  return { path: real, mount: whole.point, names };
}

/** Is this existing directory in a Holdfast mount? */
export function isInHoldfast(directory: Bytes): boolean {
  return mountOf(directory, readMounts())?.type === "fuse.holdfast";
}

/** Follows what leads to a path, not the path itself; what is gone stays as it was typed. */
export function resolveParents(path: Bytes): Bytes {
  const names = split(path);
  for (let there = Math.max(0, names.length - 1); ; there -= 1) {
    try {
      const parent = realpathSync.native(raw(absolute(names.slice(0, there))), { encoding: "buffer" });
      return absolute([...split(fromBuffer(parent)), ...names.slice(there)]);
    } catch (error) {
      if (there > 0 && ["ENOENT", "ENOTDIR"].includes(errno(error))) continue;
      throw fromSystem(error, `looking for ${show(path)}`);
    }
  }
}

/** The mount that shows a path: by the device of what is there, so that mounts below others are not taken for it. */
function mountOf(path: Bytes, mounts: readonly MountLine[]): MountLine | undefined {
  const device = deviceOf(path);
  return mounts
    .filter((mount) => mount.device === device && isWithin(path, mount.point))
    .reduce<MountLine | undefined>(
      (best, mount) => (best === undefined || mount.point.length >= best.point.length ? mount : best),
      undefined,
    );
}

/** `major:minor` of a path, or of the nearest directory above it that is there. */
function deviceOf(path: Bytes): string {
  const names = split(path);
  for (let there = names.length; ; there -= 1) {
    const above = absolute(names.slice(0, there));
    try {
      const { dev } = lstatSync(raw(above), { bigint: true });
      const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xffff_f000n);
      const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffff_ff00n);
      return `${major}:${minor}`;
    } catch (error) {
      if (there > 0 && ["ENOENT", "ENOTDIR"].includes(errno(error))) continue;
      throw fromSystem(error, `looking at ${show(above)}`);
    }
  }
}

function isWithin(path: Bytes, directory: Bytes): boolean {
  return directory === "/" || path === directory || path.startsWith(`${directory}/`);
}

function readMounts(): MountLine[] {
  return parseMounts(readFileSync("/proc/self/mountinfo", "latin1"));
}

/** proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, options, optional fields, "-", type, … */
export function parseMounts(text: string): MountLine[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const fields = line.split(" ");
      const [, , device = "", root = "", point = ""] = fields;
      const type = fields[fields.indexOf("-") + 1] ?? "";
      return { device, root: unescape(root), point: unescape(point), type };
    });
}

/** Blank, tab, newline and backslash stand there as `\040`. */
function unescape(field: string): Bytes {
  return field.replace(/\\([0-7]{3})/g, (_all, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  ) as Bytes;
}
