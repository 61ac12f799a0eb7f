// The hook for PostgreSQL: a policy's snapshot becomes a base backup, from which a server starts on a clone.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { PolicyStatus } from "../../src/daemon/protocol.js";
import { Place, ROOT, run, until } from "../daemon-fixture.js";
import { BIN, asPostgres, makeServerFolder, skipPostgres, startServer } from "./postgresql.js";

describe("PostgreSQL's hook", { skip: skipPostgres }, () => {
  const place = new Place();
  const [socket, other, kept] = ["socket", "other", "kept"].map((name) => join(place.folder, name)) as [
    string,
    string,
    string,
  ];
  const hook = join(place.folder, "postgresql");
  const file = join(place.folder, "policies.yaml");
  const servers: string[] = [];
  let data = "";

  const sql = (at: string, text: string) =>
    asPostgres("psql", "-h", at, "-d", "postgres", "-Atqc", text).trim();
  const start = (dir: string, at: string) => {
    servers.push(dir);
    startServer(dir, at);
  };

  before(async () => {
    const mount = await place.provision({ drives: 2, rf: 1, size: "1GiB", mountOptions: "allow_other" });
    run("chmod", ["755", place.folder]);
    copyFileSync(join(ROOT, "src/daemon/hooks/postgresql"), hook);
    run("chmod", ["755", hook]);
    data = join(mount, "data");
    for (const dir of [data, socket, other, kept]) makeServerFolder(dir);
    asPostgres("initdb", "-D", data, "-A", "trust", "-k");
    start(data, socket);
    sql(socket, "CREATE TABLE rows AS SELECT n FROM generate_series(1, 20000) AS n");
  });
  after(async () => {
    for (const dir of servers)
      spawnSync("runuser", ["-u", "postgres", "--", `${BIN}/pg_ctl`, "-D", dir, "-m", "immediate", "stop"]);
    await place.remove();
  });

  const applyFor = (host: string) => {
    const call = (when: string) =>
      `[env, "PGHOST=${host}", runuser, -u, postgres, --, ${hook}, ${when}, ${kept}]`;
    writeFileSync(
      file,
      `policies:\n  pg:\n    targets: [v]\n    every: 1s\n    keep: 50x1s\n` +
        `    before: {run: ${call("before")}}\n    after: {run: ${call("after")}}\n`,
    );
    place.json("policy", "apply", file);
  };
  const policy = (): PolicyStatus | undefined => place.status().policies.find(({ name }) => name === "pg");
  const finish = async () => {
    writeFileSync(file, "policies: {}");
    place.json("policy", "apply", file);
    await until("the session is over", () => !existsSync(join(kept, "pg.session")));
  };

  it("no server: no snapshot, and the reason is told", async () => {
    applyFor(other);
    await until("it failed", () => (policy()?.failures ?? 0) > 0);
    assert.match(
      policy()?.problems.join() ?? "",
      /the hook before \(env\) exited with 1: .*(?:socket|server)/,
    );
    assert.equal(policy()?.taken, 0);
    await finish();
  });

  it("a backup is begun and ended in one session around the snapshot", async () => {
    applyFor(socket);
    await until("one was taken", () => (policy()?.taken ?? 0) > 0);
    assert.deepEqual(policy()?.problems, [], place.log);
    await finish();
    sql(socket, "INSERT INTO rows SELECT n FROM generate_series(1, 500) AS n");
    const [snapshot = ""] = readdirSync(kept).sort();
    assert.deepEqual(readdirSync(join(kept, snapshot)).sort(), ["backup_label", "pg_wal"]);
    const label = readFileSync(join(kept, snapshot, "backup_label"), "utf8");
    assert.match(label, new RegExp(`^LABEL: holdfast ${snapshot}$`, "m"));
    assert.match(label, /^BACKUP METHOD: streamed$/m);
    const sessions = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    assert.equal(sql(socket, sessions), "1", "only ours");
  });

  it("a server starts on a clone, recovers to the backup's end, and has every row of then", () => {
    const [snapshot = ""] = readdirSync(kept).sort();
    const [dir = ""] = place.folders("clone");
    place.json("clone", "v", "c", "--at", snapshot);
    place.json("mount", "c", dir, "-o", "allow_other");
    const clone = join(dir, "data");
    run("cp", ["-a", `${join(kept, snapshot)}/.`, clone]);
    rmSync(join(clone, "postmaster.pid"));
    start(clone, other);
    assert.match(readFileSync(join(other, "log"), "utf8"), /completed backup recovery with redo LSN/);
    assert.equal(sql(other, "SELECT count(*) FROM rows"), "20000");
    assert.equal(sql(socket, "SELECT count(*) FROM rows"), "20500");
    asPostgres("pg_amcheck", "-h", other, "-d", "postgres", "--install-missing");
  });
});
