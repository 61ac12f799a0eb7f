// The kept points of a volume, through its mount: `.holdfast/at` lists them, `.holdfast/at/TIME` opens them.

import { closeSync, readdirSync } from "node:fs";
import { fromText, raw, show } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { CliError } from "../errors.js";
import { errno, fromSystem } from "./failure.js";
import { changes, firstWhere } from "./changes.js";
import { look, openDirectory } from "./walk.js";
import type { Look } from "./walk.js";

/** An index in a `History`: a kept point, or the present after the last. */
type Index = number;

/** States of one volume. */
export class Points {
  /** Names of the kept points, oldest first; each means exactly that point. */
  readonly names: readonly string[];
  readonly #mount: Bytes;

  constructor(mount: Bytes) {
    this.#mount = mount;
    try {
      // Date and time in UTC: the order of the alphabet is that of time.
      this.names = readdirSync(raw(this.#path("at"))).sort();
    } catch (error) {
      throw noPast(error, mount);
    }
  }

  #path(below: string): Bytes {
    return `${this.#mount}/.holdfast/${below}` as Bytes;
  }

  /** What is kept, in words. */
  get window(): string {
    const [oldest, newest] = [this.names[0], this.names.at(-1)];
    return oldest === undefined ? "nothing is kept yet" : `kept are states from ${oldest} to ${newest}`;
  }

  /** The volume's root now, as a descriptor. */
  openPresent(): number {
    return openDirectory(this.#mount);
  }

  /** The volume's root at a point of `names`; `undefined`: the point has gone, or the volume is younger. */
  openPoint(name: string): number | undefined {
    try {
      return openDirectory(this.#path(`at/${name}`));
    } catch (error) {
      if (errno(error) === "ENOENT") return undefined;
      throw fromSystem(error, `opening the state of ${name}`);
    }
  }

  /** The volume's root as words say: the name of a snapshot, else anything that `at` understands. */
  openWords(words: string): number {
    if (words === "" || words === "." || words === ".." || words.includes("/")) throw this.#unknown(words);
    for (const way of ["snapshots", "at"]) {
      try {
        return openDirectory(this.#path(`${way}/${fromText(words)}`));
      } catch (error) {
        if (!["ENOENT", "ENAMETOOLONG"].includes(errno(error)))
          throw fromSystem(error, `opening the state of ${words}`);
      }
    }
    throw this.#unknown(words);
  }

  #unknown(words: string): CliError {
    const forms = 'a time is 10:31, "yesterday 14:00", 2026-11-22T10:31:07Z (Z: UTC), -5m, lsn:4711';
    const hint = `${forms}, or the name of a snapshot; the future is not kept`;
    return new CliError("NotFound", `no state is kept of "${words}": ${this.window}`, hint);
  }
}

function noPast(error: unknown, mount: Bytes): CliError {
  const volume = `the volume at ${show(mount)}`;
  if (errno(error) === "ENOENT") {
    const hint = "its administrator can allow it: holdfast volume set VOLUME --past all|owner";
    return new CliError(
      "Denied",
      `the past of ${volume} is off, or this is a mount of the past itself`,
      hint,
    );
  }
  if (errno(error) === "EACCES") {
    return new CliError("Denied", `only the owner of ${volume} may look at its past`);
  }
  return fromSystem(error, `looking at the past of ${volume}`);
}

/** One place at every kept point and now, looked at when it is asked for. */
export class History {
  readonly #looks = new Map<Index, Look>();
  /** The oldest state that can be looked at, and the present. */
  readonly first: Index;
  readonly present: Index;

  constructor(
    readonly points: Points,
    readonly place: readonly Bytes[],
  ) {
    this.present = points.names.length;
    // What has expired since the listing and what is older than the volume stand at its beginning.
    this.first = firstWhere(0, this.present - 1, (index) => this.#opens(index));
  }

  #opens(index: Index): boolean {
    const root = this.points.openPoint(this.points.names[index] ?? "");
    if (root !== undefined) closeSync(root);
    return root !== undefined;
  }

  /** The name of a point; `undefined`: the present. */
  name(index: Index): string | undefined {
    return this.points.names[index];
  }

  at(index: Index): Look {
    const known = this.#looks.get(index);
    if (known !== undefined) return known;
    const found = this.withRoot(index, (root) => look(root, this.place));
    this.#looks.set(index, found);
    return found;
  }

  withRoot<T>(index: Index, work: (root: number) => T): T {
    const name = this.name(index);
    const root = name === undefined ? this.points.openPresent() : this.points.openPoint(name);
    if (root === undefined) {
      throw new CliError(
        "Unavailable",
        `the state of ${name} is kept no longer`,
        "it expired just now: try again",
      );
    }
    try {
      return work(root);
    } catch (error) {
      throw fromSystem(error, `looking at the state of ${name ?? "now"}`);
    } finally {
      closeSync(root);
    }
  }

  /** Spans of states in which nothing changed, newest first, each as its first and last index. */
  *spans(): Generator<readonly [Index, Index]> {
    let last = this.present;
    for (const first of changes(this.first, this.present, (index) => this.at(index).key)) {
      yield [first, last];
      last = first - 1;
    }
    yield [this.first, last];
  }

  /** States that were looked at. */
  get looked(): number {
    return this.#looks.size;
  }
}
