// The command line as an ordinary user, who may be unable to reach where the tree and the interpreter lie.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { ErrorBody } from "../../src/daemon/protocol.js";
import { ROOT, run } from "../daemon-fixture.js";
import type { Place } from "../daemon-fixture.js";

export const NOBODY = 65_534;

/** What the command line needs of the packages, and what those need. */
const PACKAGES = [
  "commander",
  "cli-table3",
  "string-width",
  "emoji-regex",
  "is-fullwidth-code-point",
  "strip-ansi",
  "ansi-regex",
  "@colors",
];

/** Puts a copy into the place's folder. */
export function giveProgram({ folder }: Place): void {
  const bin = join(folder, "bin");
  mkdirSync(join(bin, "node_modules"), { recursive: true });
  mkdirSync(join(bin, "dist/src/daemon"), { recursive: true });
  const copies = [
    [process.execPath, "node"],
    [join(ROOT, "package.json"), "package.json"],
    [join(ROOT, "dist/src/cli"), "dist/src/cli"],
    [join(ROOT, "dist/src/daemon/protocol.js"), "dist/src/daemon/protocol.js"],
    ...PACKAGES.map((name) => [join(ROOT, "node_modules", name), `node_modules/${name}`]),
  ];
  for (const [from = "", to = ""] of copies) {
    if (existsSync(from)) run("cp", ["-rL", "--reflink=auto", from, join(bin, to)]);
  }
  run("chmod", ["-R", "a+rX", bin]);
}

/** Runs that copy; with `--json`. */
export function cliAsNobody(
  { folder }: Place,
  ...args: string[]
): { status: number | null; stdout: string; error: ErrorBody | undefined } {
  const program = [join(folder, "bin/dist/src/cli/main.js"), ...args, "--json"];
  const { status, stdout, stderr } = spawnSync(join(folder, "bin/node"), program, {
    uid: NOBODY,
    gid: NOBODY,
    encoding: "utf8",
    cwd: "/",
    env: { PATH: process.env.PATH, HOME: "/" },
  });
  return { status, stdout, error: stderr === "" ? undefined : (JSON.parse(stderr) as ErrorBody) };
}
