// A real daemon in a folder of its own, driven through the real command line.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { request } from "node:http";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { ErrorBody, StatusAnswer } from "../src/daemon/protocol.js";

export const MAIN = fileURLToPath(new URL("../src/cli/main.js", import.meta.url));
export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

const POLL_MS = 20;
const DEADLINE_MS = 60_000;

export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** Looks until `look` gives something; fails with `what` at the deadline. */
export async function until<T>(
  what: string,
  look: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMs = DEADLINE_MS,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > end) assert.fail(`not within ${deadlineMs} ms: ${what}`);
    await delay(POLL_MS);
  }
}

/** A folder that is removed afterwards, with the daemons that ran in it. */
export class Place {
  readonly folder = mkdtempSync(join(tmpdir(), "holdfast-test-"));
  readonly state = join(this.folder, "state");
  #daemon: ChildProcess | undefined;
  #log = "";

  /** Makes folders and gives their paths. */
  folders(...names: string[]): string[] {
    const paths = names.map((name) => join(this.folder, name));
    for (const path of paths) mkdirSync(path, { recursive: true });
    return paths;
  }

  /** What daemons wrote to standard error, all together. */
  get log(): string {
    return this.#log;
  }

  /** For messages: how the daemon ended, if it did. */
  get fate(): string {
    const { exitCode = null, signalCode = null } = this.#daemon ?? {};
    return exitCode === null && signalCode === null ? "" : `the daemon ended: ${exitCode ?? signalCode}\n`;
  }

  get pid(): number {
    const pid = this.#daemon?.pid;
    assert.ok(pid !== undefined, "no daemon was started");
    return pid;
  }

  /**
   * Starts a daemon and waits until it answers; `ready: false`: not until everything is up. `through`: a program that
   * becomes the daemon, with its arguments.
   */
  async start(options: { ready?: boolean; config?: string; through?: string[] } = {}): Promise<void> {
    const config = options.config === undefined ? [] : ["--config", options.config];
    const args = ["--enable-source-maps", MAIN, "daemon", "--state", this.state, ...config];
    const [program = "", ...rest] = [...(options.through ?? []), process.execPath, ...args];
    const child = spawn(program, rest, { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#log += text;
    });
    this.#daemon = child;
    let said = "";
    const ready = async (): Promise<boolean> =>
      await until("the daemon answers", () => {
        assert.equal(child.exitCode, null, `the daemon ended:\n${this.#log}`);
        const { code, stdout, stderr } = this.cli("status");
        said = `${stdout}${stderr}`;
        return code === 0 || (options.ready === false && code === 3 && this.cli("pool", "list").code === 0);
      });
    await ready().catch((error: unknown) => {
      throw new Error(`${String(error)}\n${said}\n${this.#log}`, { cause: error });
    });
  }

  /** Sends a signal and waits for the end; the exit status, or the signal's name. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number | string> {
    const child = this.#daemon;
    assert.ok(child !== undefined, "no daemon was started");
    this.#daemon = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode ?? child.signalCode ?? "";
    const ended = new Promise<number | string>((done) => {
      child.once("close", (code, name) => done(code ?? name ?? ""));
    });
    child.kill(signal);
    return await ended;
  }

  cli(...args: string[]): CliResult {
    return runCli(args, { HOLDFAST_STATE: this.state });
  }

  /** Runs a verb that must succeed; its JSON. */
  json<T>(...args: string[]): T {
    const { code, stdout, stderr } = this.cli(...args, "--json");
    assert.equal(code, 0, `holdfast ${args.join(" ")}: ${stderr}\n${this.#log}`);
    return JSON.parse(stdout) as T;
  }

  /** Runs a verb that must fail with this exit status; the error. */
  fails(code: number, ...args: string[]): ErrorBody {
    const result = this.cli(...args, "--json");
    assert.equal(result.code, code, `holdfast ${args.join(" ")}: ${result.stdout}${result.stderr}`);
    return JSON.parse(result.stderr) as ErrorBody;
  }

  /** Mounts at a path that only a shell can write: bytes that are not UTF-8. */
  mountQuoted(volume: string, quotedDir: string): void {
    const line = `"$0" "$1" --state "$2" mount "$3" ${quotedDir}`;
    run("bash", ["-c", line, process.execPath, MAIN, this.state, volume]);
  }

  status(): StatusAnswer {
    return JSON.parse(this.cli("status", "--json").stdout) as StatusAnswer;
  }

  /** A pool `p` of `drives` directories and a mounted volume `v`; the mount's directory. */
  async provision(
    options: { drives?: number; rf?: number; size?: string; mountOptions?: string } = {},
  ): Promise<string> {
    const { drives = 3, rf = 2, size = "512MiB", mountOptions } = options;
    const paths = this.folders(...Array.from({ length: drives }, (_none, index) => `d${index + 1}`));
    const [mount = ""] = this.folders("mnt");
    if (this.#daemon === undefined) await this.start();
    this.json("pool", "create", "p", "--size", size, ...paths.flatMap((path) => ["--drive", path]));
    this.json("volume", "create", "v", "--pool", "p", "--rf", `${rf}`);
    this.json("mount", "v", mount, ...(mountOptions === undefined ? [] : ["-o", mountOptions]));
    return mount;
  }

  async remove(): Promise<void> {
    if (this.#daemon !== undefined) await this.stop("SIGTERM");
    for (const dir of mountsBelow(this.folder)) spawnSync("umount", ["-l", dir]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function runCli(args: readonly string[], environment: Record<string, string> = {}): CliResult {
  const result = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: "utf8",
    env: { ...process.env, ...environment },
    timeout: DEADLINE_MS,
  });
  return { code: result.status ?? -1, stdout: result.stdout, stderr: result.stderr };
}

/** Mount points below a folder, deepest first. */
export function mountsBelow(folder: string): string[] {
  const dirs = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "");
  return dirs.filter((dir) => dir.startsWith(`${folder}/`)).reverse();
}

/** Runs a program that must succeed; its standard output. */
export function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; input?: string } = {},
): string {
  const result = spawnSync(program, args, { encoding: "utf8", maxBuffer: 2 ** 28, ...options });
  const said = `${result.stdout}${result.stderr}`.slice(-2000);
  assert.equal(result.status, 0, `${program} ${args.join(" ")}: ${result.error?.message ?? said}`);
  return result.stdout;
}

/** Why a test cannot run here, or false. In CI nothing may be skipped. */
export function without(...programs: string[]): string | false {
  const missing = programs.filter((program) => spawnSync("which", [program]).status !== 0);
  return missing.length === 0 ? false : `needs ${missing.join(", ")}`;
}

export const withoutRoot: string | false = process.geteuid?.() === 0 ? false : "needs root";

/** The daemon's metrics, as Prometheus reads them. */
export function metricsOf(state: string): Promise<string> {
  return new Promise((resolve, reject) => {
    // A connection of its own: one that was kept may have been closed while this process waited for a program.
    const how = { socketPath: join(state, "admin.sock"), path: "/metrics", agent: false } as const;
    const asked = request(how, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => (text += part));
      response.on("end", () => resolve(text));
    });
    asked.on("error", reject).end();
  });
}
