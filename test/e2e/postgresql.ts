// The newest PostgreSQL of this machine, run as its own user.

import { chownSync, existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { run, without, withoutRoot } from "../daemon-fixture.js";

const VERSIONS = "/usr/lib/postgresql";
const newest = existsSync(VERSIONS)
  ? readdirSync(VERSIONS)
      .sort((a, b) => Number(a) - Number(b))
      .at(-1)
  : undefined;

export const BIN = `${VERSIONS}/${newest}/bin`;
export const skipPostgres = newest === undefined ? "needs postgresql" : without("runuser") || withoutRoot;

export function asPostgres(program: string, ...args: string[]): string {
  return run("runuser", ["-u", "postgres", "--", join(BIN, program), ...args], { cwd: "/" });
}

/** Makes a directory that the server may use. */
export function makeServerFolder(dir: string): void {
  const [uid = "", gid = ""] = ["-u", "-g"].map((flag) => run("id", [flag, "postgres"]).trim());
  mkdirSync(dir, { mode: 0o700 });
  chownSync(dir, Number(uid), Number(gid));
}

/** Listens in the directory `socket` only, where its log lies, too. */
export function startServer(data: string, socket: string): void {
  const log = join(socket, "log");
  try {
    asPostgres("pg_ctl", "-D", data, "-w", "-t", "120", "-l", log, "-o", `-k ${socket} -h ''`, "start");
  } catch (error) {
    const said = existsSync(log) ? readFileSync(log, "utf8") : "";
    throw new Error(`PostgreSQL does not start; its log:\n${said}`, { cause: error });
  }
}
