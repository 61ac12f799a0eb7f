// What `npm run demo:nearsync` plays: two daemons on this machine, a writer at the first, a kill of that, how the
// second goes on, how the first comes back and takes over again. All lies in a folder that is removed at the end.

import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { closeSync, fsyncSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type {
  ForkAnswer,
  PeerAnswer,
  PeerInviteAnswer,
  ProtectionAnswer,
  VolumeAnswer,
} from "../daemon/protocol.js";
import { Client } from "./client.js";
import { CliError, report, toBody } from "./errors.js";
import { fetchStatus } from "./verbs/status.js";

const MAIN = fileURLToPath(new URL("main.js", import.meta.url));
const LINES = 400;
const LAST_LINES = 20;
const PAUSE_MS = 20;
const POLL_MS = 50;
const DEADLINE_MS = 30_000;

/** A daemon in a folder of its own. */
class DemoSite {
  readonly state: string;
  readonly client: Client;
  /** Where it listens; a port that is free at its first start, and the same from then on. */
  listen = "127.0.0.1:0";
  #daemon: ChildProcess | undefined;

  constructor(
    readonly folder: string,
    readonly name: string,
  ) {
    mkdirSync(folder);
    this.state = join(folder, "state");
    this.client = new Client(this.state);
  }

  path(name: string): string {
    const path = join(this.folder, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  async start(): Promise<void> {
    const config = join(this.folder, "holdfast.yaml");
    const replication = `replication: {site: ${this.name}, listen: "${this.listen}"}`;
    writeFileSync(config, `log: {level: error}\n${replication}\n`);
    const args = [MAIN, "daemon", "--state", this.state, "--config", config];
    this.#daemon = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"] });
    await until(`the daemon of ${this.name}`, async () => {
      try {
        return (await fetchStatus(this.client)).ready;
      } catch (error) {
        if (toBody(error).code === "Unavailable") return false;
        throw error;
      }
    });
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const ended = new Promise((done) => daemon.once("close", done));
    daemon.kill(signal);
    await ended;
  }

  /** Runs a verb, shows it and what it prints. */
  run(...args: string[]): void {
    console.log(`\n${this.name}# holdfast ${args.join(" ")}`);
    const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, "--state", this.state, ...args], {
      encoding: "utf8",
    });
    process.stdout.write(`${stdout}${stderr}`);
    if (status !== 0) throw new CliError("Unavailable", `holdfast ${args[0] ?? ""} failed at ${this.name}`);
  }
}

/** The exit status. */
export async function runNearsyncDemo(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-nearsync-"));
  const [north, south] = ["north", "south"].map((name) => new DemoSite(join(folder, name), name));
  if (north === undefined || south === undefined) return 1;
  try {
    await play(north, south);
    return 0;
  } catch (error) {
    return report(error, { json: false });
  } finally {
    for (const site of [north, south]) await site.stop("SIGTERM");
    for (const { folder: below } of [north, south]) {
      for (const name of ["mnt", "look"]) spawnSync("umount", ["-l", join(below, name)], { stdio: "ignore" });
    }
    rmSync(folder, { recursive: true, force: true });
  }
}

async function play(north: DemoSite, south: DemoSite): Promise<void> {
  for (const site of [north, south]) {
    await site.start();
    const drives = ["d1", "d2"].flatMap((name) => ["--drive", site.path(name)]);
    site.run("pool", "create", "tank", "--size", "512MiB", ...drives);
  }
  const invited = { listen: "127.0.0.1:0" };
  const { invite } = await north.client.post<PeerInviteAnswer>("/v1/peers/invite", invited);
  south.run("peer", "pair", invite);
  await until("the session", async () => (await north.client.get<PeerAnswer[]>("/v1/peers"))[0]?.connected);
  // Each stays where the other looks for it.
  for (const [site, other] of [
    [north, south],
    [south, north],
  ] as const) {
    const [peer] = await other.client.get<PeerAnswer[]>("/v1/peers");
    site.listen = peer?.addresses[0] ?? site.listen;
  }
  north.run("volume", "create", "home", "--pool", "tank");
  north.run("mount", "home", north.path("mnt"));
  north.run("protect", "home", "--to", "south", "--rpo", "1s");
  console.log(`\nA writer appends ${LINES} lines, each with an fsync, one every ${PAUSE_MS} ms.`);
  await write(join(north.path("mnt"), "ledger"));
  north.run("protect", "list");
  const [sent] = await north.client.get<ProtectionAnswer[]>("/v1/protections");
  console.log(`\nThe writer appends ${LAST_LINES} more at once. Then the first site is killed: kill -9.`);
  for (let line = 1; line <= LAST_LINES; line += 1) {
    appendLine(join(north.path("mnt"), "ledger"), `line ${LINES + line}`);
  }
  await north.stop("SIGKILL");
  south.run("volume", "list");
  south.run("failover", "home", "--unplanned", "--yes");
  south.run("mount", "home", south.path("mnt"));
  const ledger = join(south.path("mnt"), "ledger");
  const there = readFileSync(ledger, "utf8").trimEnd().split("\n").length;
  const behind = ((sent?.lag.rpoMs ?? 0) / 1000).toFixed(1);
  const all = LINES + LAST_LINES;
  console.log(`\n${there} of ${all} lines are there; just before the last ones it was ${behind} s behind.`);
  appendLine(ledger, "the second site goes on");
  await comeBack(north, south);
  await goBack(north, south);
}

/** The former owner follows; what only it had is a fork. */
async function comeBack(north: DemoSite, south: DemoSite): Promise<void> {
  console.log("\nThe first site starts again, and finds that it is not the owner any more.");
  await north.start();
  await until("the first site follows", () => isReplica(north));
  await arrived(south);
  north.run("volume", "list");
  north.run("fork", "list");
  const [fork] = await north.client.get<ForkAnswer[]>("/v1/forks");
  if (fork === undefined) return;
  north.run("fork", "diff", fork.name, "--ranges");
  north.run("mount", fork.name, north.path("look"));
  const lines = readFileSync(join(north.path("look"), "ledger"), "utf8")
    .trimEnd()
    .split("\n");
  console.log(
    `\nThe fork's ledger ends with "${lines.at(-1) ?? ""}": nothing that was acknowledged is lost.`,
  );
  north.run("umount", north.path("look"));
}

/** And the first site is the owner again. */
async function goBack(north: DemoSite, south: DemoSite): Promise<void> {
  south.run("umount", south.path("mnt"));
  await arrived(south);
  console.log("\nThe second site stops, the first takes over, and the second follows when it is back.");
  await south.stop("SIGTERM");
  north.run("failover", "home", "--unplanned", "--yes");
  north.run("mount", "home", north.path("mnt"));
  const last = readFileSync(join(north.path("mnt"), "ledger"), "utf8")
    .trimEnd()
    .split("\n")
    .at(-1);
  console.log(`\nIts ledger ends with "${last ?? ""}".`);
  await south.start();
  await until("the second site follows", () => isReplica(south));
  await arrived(north);
  south.run("volume", "list");
  north.run("protect", "list");
}

async function isReplica({ client }: DemoSite): Promise<boolean> {
  const volumes = await client.get<VolumeAnswer[]>("/v1/volumes");
  return volumes.some(({ name, replicaOf }) => name === "home" && replicaOf !== null);
}

/** Waits until what was done here until now has arrived. */
async function arrived({ client }: DemoSite): Promise<void> {
  const since = performance.now();
  await until("what was written arrives", async () => {
    const asked = performance.now();
    const [sent] = await client.get<ProtectionAnswer[]>("/v1/protections");
    return sent?.link === "up" && sent.lag.rpoMs !== null && asked - sent.lag.rpoMs > since;
  });
}

async function write(path: string): Promise<void> {
  for (let line = 1; line <= LINES; line += 1) {
    appendLine(path, `line ${line}`);
    await delay(PAUSE_MS);
  }
}

function appendLine(path: string, text: string): void {
  const fd = openSync(path, "a");
  try {
    writeSync(fd, `${text}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

async function until(what: string, look: () => Promise<boolean | undefined>): Promise<void> {
  const end = performance.now() + DEADLINE_MS;
  while ((await look()) !== true) {
    if (performance.now() > end)
      throw new CliError("Unavailable", `${what}: not within ${DEADLINE_MS / 1000} s`);
    await delay(POLL_MS);
  }
}
