// PostgreSQL on the mount under pgbench; kill -9 of the daemon in the middle. The database recovers from its own log,
// and every transaction that pgbench had reported is there.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { Place, run, until } from "../daemon-fixture.js";
import { BIN, asPostgres, makeServerFolder, skipPostgres, startServer } from "./postgresql.js";

const CLIENTS = 4;
const COMMITS_BEFORE_KILL = 300;
const DEADLINE_MS = 120_000;

/** Each transaction notes itself in `noted` under a number of its own and reports it only after COMMIT returned. */
const SCRIPT = `
\\set account random(1, 100000)
\\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :account;
INSERT INTO noted VALUES (:client_id, nextval('numbers')) RETURNING number \\gset
COMMIT;
\\shell echo :client_id :number
`;

describe("PostgreSQL", { skip: skipPostgres }, () => {
  const place = new Place();
  const socket = join(place.folder, "socket");
  let data = "";

  after(async () => {
    if (data !== "")
      spawnSync("runuser", ["-u", "postgres", "--", `${BIN}/pg_ctl`, "-D", data, "-m", "immediate", "stop"]);
    await place.remove();
  });

  const sql = (text: string) => asPostgres("psql", "-h", socket, "-d", "postgres", "-Atqc", text).trim();

  it("recovers with every reported transaction", { timeout: 900_000 }, async () => {
    const mount = await place.provision({ drives: 3, rf: 2, size: "2GiB" });
    place.json("umount", mount);
    place.json("mount", "v", mount, "-o", "allow_other");
    run("chmod", ["755", place.folder]);
    for (const dir of [socket, join(mount, "data")]) makeServerFolder(dir);
    data = join(mount, "data");
    asPostgres("initdb", "-D", data, "-A", "trust", "-k");
    startServer(data, socket);
    asPostgres("pgbench", "-h", socket, "-i", "-q", "-s", "1", "postgres");
    sql("CREATE TABLE noted (client int, number bigint); CREATE SEQUENCE numbers");

    const committed = await benchUntilKilled();
    assert.ok(committed.length >= COMMITS_BEFORE_KILL);
    // The server lost its disk: what is left of it is ended, its lock file is stale.
    const server = Number(readServerPid());
    await place.start();
    await endServer(server);
    rmSync(join(data, "postmaster.pid"), { force: true });
    for (const name of readdirSync(socket).filter((name) => name.startsWith(".s.")))
      rmSync(join(socket, name));
    startServer(data, socket);
    const there = new Set(sql("SELECT number FROM noted").split("\n"));
    const lost = committed.filter((number) => !there.has(number));
    assert.deepEqual(lost, [], `${lost.length} of ${committed.length} reported transactions are gone`);
    asPostgres("pg_amcheck", "-h", socket, "-d", "postgres", "--install-missing");
    assert.equal(sql("SELECT count(*) FROM pgbench_accounts"), "100000");
  });

  let serverPid = "";
  const readServerPid = () => serverPid;

  async function benchUntilKilled(): Promise<string[]> {
    const script = join(socket, "script.sql");
    writeFileSync(script, SCRIPT, { mode: 0o644 });
    serverPid = readFileSync(join(data, "postmaster.pid"), "utf8").split("\n")[0] ?? "";
    const bench = ["-h", socket, "-n", "-f", script, "-c", `${CLIENTS}`, "-j", "2", "-T", "600", "postgres"];
    const child = spawn("runuser", ["-u", "postgres", "--", `${BIN}/pgbench`, ...bench], {
      cwd: "/",
      stdio: ["ignore", "pipe", "ignore"],
    });
    const ended = new Promise((done) => child.once("close", done));
    const committed: string[] = [];
    let rest = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const number = /^\d+ (\d+)$/.exec(line)?.[1];
        if (number !== undefined) committed.push(number);
      }
    });
    await until("enough is committed", () => committed.length >= COMMITS_BEFORE_KILL, DEADLINE_MS);
    assert.equal(child.exitCode, null, "pgbench was still running");
    await place.stop("SIGKILL");
    await endServer(Number(serverPid));
    child.kill("SIGKILL");
    await ended;
    return committed;
  }
});

/** Ends a server and its children, which stay together in one session. */
/** Ends the server that this test started, with its session, and what its end leaves beside its socket. */
async function endServer(pid: number): Promise<void> {
  // Backends have sessions of their own: without their parent they would wait for each other for ever.
  const found = spawnSync("ps", ["-o", "pid=", "-s", `${pid}`, "--ppid", `${pid}`], { encoding: "utf8" });
  const members = found.stdout.split(/\s+/);
  const pids = new Set([`${pid}`, ...members.filter((member) => member !== "")]);
  for (const member of pids) spawnSync("kill", ["-KILL", member]);
  await until("the old server is gone", () => [...pids].every(isGone));
}

function isGone(pid: string): boolean {
  const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, "utf8") : "";
  return stat === "" || /\) [ZX] /.test(stat);
}
