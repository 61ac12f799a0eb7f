// PostgreSQL on clones of random moments of a volume on which pgbench runs: each starts as after a power cut, and passes
// its checks: what pgbench promises (all balances and the history say the same sum), and pg_amcheck.

import { execFile, execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { Figures, withDaemon } from "../ground.js";
import type { Daemon } from "../daemon.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { driveSize } from "./ground.js";
import type { Wishes } from "./ground.js";

const VERSIONS = "/usr/lib/postgresql";
const SCALE = 5;
const CLIENTS = 4;
/** Before each clone at most. */
const WAIT_MS_MAX = 2000;
/** More than all clones take; it is ended after the last one. */
const LOAD_SECONDS = 4 * 3600;

const run = promisify(execFile);

/** Sums that are equal in every state between two transactions. */
const SUMS =
  "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), " +
  "(SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), " +
  "(SELECT count(*) FROM pgbench_history)";

class Server {
  /** `data`: its cluster; `socket`: where it listens, and where its log lies. */
  constructor(
    readonly bin: string,
    readonly data: string,
    readonly socket: string,
  ) {}

  async program(name: string, ...args: string[]): Promise<string> {
    const words = ["-u", "postgres", "--", join(this.bin, name), ...args];
    return (await run("runuser", words, { cwd: "/", maxBuffer: 2 ** 26 })).stdout.trim();
  }

  async start(): Promise<void> {
    const log = join(this.socket, "log");
    // Its processes would keep a pipe of ours open: pg_ctl says everything in the log.
    const options = `-k ${this.socket} -h '' -c shared_buffers=64MB`;
    const words = ["-D", this.data, "-w", "-t", "120", "-l", log, "-o", options, "start"];
    const child = spawn("runuser", ["-u", "postgres", "--", join(this.bin, "pg_ctl"), ...words], {
      cwd: "/",
      stdio: "ignore",
    });
    const code = await new Promise<number | null>((done, fail) => child.on("error", fail).on("exit", done));
    if (code !== 0)
      throw new Error(`PostgreSQL does not start:\n${existsSync(log) ? readFileSync(log, "utf8") : ""}`);
  }

  stop(how: "fast" | "immediate"): Promise<string> {
    return this.program("pg_ctl", "-D", this.data, "-m", how, "-w", "stop");
  }

  sql(text: string): Promise<string> {
    return this.program("psql", "-h", this.socket, "-d", "postgres", "-Atqc", text);
  }
}

export async function measurePostgres(place: Place, wishes: Wishes): Promise<Figure[]> {
  const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS).sort((a, b) => Number(a) - Number(b)) : [];
  const newest = versions.at(-1);
  if (newest === undefined || process.geteuid?.() !== 0)
    throw new Error("postgres needs postgresql and root");
  const bin = join(VERSIONS, newest, "bin");
  // The server's user must be able to walk there.
  const shown = mkdtempSync(join(tmpdir(), "holdfast-past-"));
  chmodSync(shown, 0o755);
  try {
    return await withDaemon(
      place,
      { config: "log: {level: warn}\n", size: driveSize(wishes, 2) },
      async (daemon) => {
        await daemon.client.post("/v1/volumes", { name: "pg", pool: "pool", rf: 2 });
        const mount = await daemon.mountAt(join(shown, "pg"), "pg", ["allow_other"]);
        const server = new Server(bin, folderOf(mount, "data"), folderOf(shown, "socket"));
        await server.program("initdb", "-D", server.data, "-A", "trust", "-k");
        await server.start();
        try {
          return await underLoad({ place, wishes, daemon, shown, server });
        } finally {
          await server.stop("immediate");
        }
      },
    );
  } finally {
    rmSync(shown, { recursive: true, force: true });
  }
}

/** A directory that the server may use. */
function folderOf(above: string, name: string): string {
  const path = join(above, name);
  const [uid = 0, gid = 0] = ["-u", "-g"].map((flag) => Number(execFileSync("id", [flag, "postgres"])));
  mkdirSync(path, { mode: 0o700 });
  chownSync(path, uid, gid);
  return path;
}

interface Stage {
  place: Place;
  wishes: Wishes;
  daemon: Daemon;
  /** Folder of mounts and sockets. */
  shown: string;
  server: Server;
}

async function underLoad(stage: Stage): Promise<Figure[]> {
  const { place, wishes, server } = stage;
  const figures = new Figures();
  place.say("filling pgbench's tables");
  await server.program("pgbench", "-h", server.socket, "-i", "-q", "-s", String(SCALE), "postgres");
  const words = ["-h", server.socket, "-c", String(CLIENTS), "-T", String(LOAD_SECONDS), "postgres"];
  const load = spawn("runuser", ["-u", "postgres", "--", join(server.bin, "pgbench"), ...words], {
    cwd: "/",
    stdio: "ignore",
  });
  const ended = new Promise<number | null>((done) => load.on("exit", done).on("error", () => done(null)));
  try {
    let failures = 0;
    for (let clone = 0; clone < wishes.clones; clone += 1) {
      await delay(Math.random() * WAIT_MS_MAX);
      if (load.exitCode !== null) throw new Error(`pgbench ended with ${load.exitCode}`);
      try {
        const { transactions, startMs, checkMs } = await checkClone(stage, clone);
        figures.note("postgres-start-ms", clone, startMs);
        figures.note("postgres-check-ms", clone, checkMs, { transactions });
        place.say(
          `clone ${clone + 1}/${wishes.clones}: ${transactions} transactions, recovered in ${Math.round(startMs)} ms`,
        );
      } catch (error) {
        failures += 1;
        place.say(
          `clone ${clone + 1}/${wishes.clones} FAILED: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    }
    figures.note("postgres", 0, failures, { clones: wishes.clones });
  } finally {
    load.kill("SIGTERM");
    await ended;
  }
  return figures.all;
}

interface Checked {
  transactions: number;
  startMs: number;
  checkMs: number;
}

async function checkClone({ daemon, shown, server }: Stage, number: number): Promise<Checked> {
  const name = `clone-${number}`;
  await daemon.client.post("/v1/clones", { source: "pg", name });
  const mount = await daemon.mountAt(join(shown, name), name, ["allow_other"]);
  const clone = new Server(server.bin, join(mount, "data"), folderOf(shown, `${name}-socket`));
  try {
    rmSync(join(clone.data, "postmaster.pid"));
    const begun = performance.now();
    await clone.start();
    try {
      const started = performance.now();
      const log = readFileSync(join(clone.socket, "log"), "utf8");
      if (!log.includes("automatic recovery in progress")) throw new Error(`it did not recover:\n${log}`);
      const [accounts, branches, tellers, history, transactions] = (await clone.sql(SUMS)).split("|");
      if (accounts !== branches || accounts !== tellers || accounts !== history)
        throw new Error(`sums differ: ${[accounts, branches, tellers, history].join(", ")}`);
      await clone.program(
        "pg_amcheck",
        "-h",
        clone.socket,
        "-d",
        "postgres",
        "--install-missing",
        "--heapallindexed",
      );
      return {
        transactions: Number(transactions),
        startMs: started - begun,
        checkMs: performance.now() - started,
      };
    } finally {
      await clone.stop("immediate");
    }
  } finally {
    await daemon.umount(mount);
    await daemon.client.delete(`/v1/volumes/${name}`);
  }
}
