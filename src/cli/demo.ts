// What `npm start` runs: a daemon in the foreground with a pool of three directories and a mounted volume, all of it
// below one folder. A second run finds everything again.

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, statfsSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Command, CommanderError } from "commander";
import type { MountResult, PoolAnswer, StatusAnswer } from "../daemon/protocol.js";
import { Client } from "./client.js";
import { CliError, report, toBody } from "./errors.js";
import { fetchStatus } from "./verbs/status.js";

const POOL = "pool";
const VOLUME = "demo";
const DRIVE_BYTES = 4 * 2 ** 30;
const START_POLL_MS = 50;

const CONFIG = `# Configuration of the demo's daemon; every key is optional.
log:
  level: warn        # trace, debug, info, warn, error
memory:
  metadata_cache: 128MiB
history:
  window: 1h
`;

interface Options {
  dir: string;
  size?: string;
}

/** Runs until Ctrl-C; the exit status. */
export async function runDemo(given: readonly string[]): Promise<number> {
  let options: Options;
  try {
    options = parse(given);
  } catch (error) {
    return error instanceof CommanderError ? error.exitCode : report(error, { json: false });
  }
  const folder = resolve(options.dir);
  const state = join(folder, "state");
  for (const name of ["d1", "d2", "d3", "mnt"]) makeFolder(join(folder, name));
  const config = join(folder, "holdfast.yaml");
  if (!existsSync(config)) writeFileSync(config, CONFIG);
  const main = fileURLToPath(new URL("main.js", import.meta.url));
  const args = [main, "daemon", "--state", state, "--config", config];
  // Node's own threads have heaps before the addon can say anything (native/device/src/process.rs).
  const env = { MALLOC_ARENA_MAX: "2", ...process.env };
  const daemon = spawn(process.execPath, args, { env, stdio: ["ignore", "inherit", "inherit"] });
  const ended = exitOf(daemon);
  forwardSignals(daemon);
  try {
    await provision(new Client(state), folder, options.size, ended);
  } catch (error) {
    if (daemon.exitCode === null && daemon.signalCode === null) {
      daemon.kill("SIGTERM");
      await ended;
      return report(error, { json: false });
    }
    return await ended;
  }
  process.stdout.write(welcome(folder));
  return await ended;
}

function parse(args: readonly string[]): Options {
  const command = new Command("npm start --")
    .option("--dir <dir>", "where everything lies", "holdfast-data")
    .option("--size <size>", "bytes to use on each of the three drives, when they are made (default: 4GiB)")
    .exitOverride();
  return command.parse([...args], { from: "user" }).opts<Options>();
}

async function provision(client: Client, folder: string, size: string | undefined, ended: Promise<number>) {
  const status = await started(client, ended);
  const broken = [...status.pools, ...status.mounts]
    .map(({ problem }) => problem)
    .find((problem) => problem !== null);
  if (broken) throw new CliError(broken.code, broken.message, broken.hint);
  if (!status.pools.some(({ name }) => name === POOL)) {
    const drives = ["d1", "d2", "d3"].map((name) => ({
      path: join(folder, name),
      size: size ?? affordable(folder),
    }));
    await client.post<PoolAnswer>("/v1/pools", { name: POOL, drives });
  }
  if (!status.volumes.some(({ name }) => name === VOLUME)) {
    await client.post("/v1/volumes", { name: VOLUME, pool: POOL, rf: 2 });
  }
  await client.post<MountResult>("/v1/mounts", { volume: VOLUME, path: join(folder, "mnt"), options: [] });
}

/** 4 GiB a drive, or what three drives on this disk can have. */
function affordable(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return Math.min(DRIVE_BYTES, Math.floor((0.9 * bavail * bsize) / 3));
}

async function started(client: Client, ended: Promise<number>): Promise<StatusAnswer> {
  let gone = false;
  void ended.then(() => {
    gone = true;
  });
  for (;;) {
    try {
      const status = await fetchStatus(client);
      if (status.phase !== "starting") return status;
    } catch (error) {
      if (toBody(error).code !== "Unavailable") throw error;
    }
    if (gone) throw new CliError("Unavailable", "the daemon ended");
    await delay(START_POLL_MS);
  }
}

function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((done) => {
    child.on("error", () => done(1));
    child.on("close", (code, signal) => done(signal === null ? (code ?? 1) : 1));
  });
}

/** Ctrl-C reaches the daemon by itself; a signal that was sent to us alone does not. A second one changes nothing. */
function forwardSignals(daemon: ChildProcess): void {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.on(signal, () => daemon.kill(signal));
}

function welcome(folder: string): string {
  const mount = join(folder, "mnt");
  const state = relative(process.cwd(), join(folder, "state"));
  return `
Volume "${VOLUME}" (2 copies on 3 drives) is mounted at

    ${mount}

Try, in another terminal:

    cp -r /usr/share/doc ${mount}/         # use it like every file system
    df -h ${mount}
    npx holdfast --state ${state} status
    npx holdfast --state ${state} top

Ctrl-C here flushes, unmounts and ends; the next start finds everything again.
`;
}

/** Makes a folder unless it is there. A mount of a killed daemon answers ENOTCONN: the new one detaches it. */
function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOTCONN")) throw error;
  }
}
