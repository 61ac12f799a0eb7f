// Examples of native/store that measure the engine itself: built, run in a folder, and heard line by line.

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

const TMPFS = "/dev/shm";

/** Runs `NAME FOLDER WORDS…`, its rings on a tmpfs where there is one; `heard` gets each line, which is JSON. */
export async function runExample(
  root: string,
  name: string,
  folder: string,
  words: readonly string[],
  heard: (said: unknown) => void,
): Promise<void> {
  const cargo = ["--release", "--locked", "--quiet", "-p", "holdfast-store", "--example", name];
  execFileSync("cargo", ["build", ...cargo], { cwd: join(root, "native"), stdio: "inherit" });
  const rings = existsSync(TMPFS) ? mkdtempSync(join(TMPFS, `holdfast-${name}-`)) : undefined;
  if (rings !== undefined) symlinkSync(rings, join(folder, "run"));
  const program = join(root, "native", "target", "release", "examples", name);
  try {
    const child = spawn(program, [folder, ...words], { stdio: ["ignore", "pipe", "inherit"] });
    const exited = new Promise<number | null>((done, failed) => child.on("error", failed).on("exit", done));
    for await (const line of createInterface({ input: child.stdout })) heard(JSON.parse(line));
    const code = await exited;
    if (code !== 0) throw new Error(`${program} ended with ${code}`);
  } finally {
    if (rings !== undefined) rmSync(rings, { recursive: true, force: true });
  }
}
