// What the daemon does at its limits: no descriptors or no memory left, a second daemon, nothing to do.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { after, before, describe, it } from "node:test";
import { Place, run, until, without } from "../daemon-fixture.js";

const MIB = 2 ** 20;

describe("a daemon with 64 descriptors", { skip: without("prlimit") }, () => {
  const place = new Place();
  after(() => place.remove());

  it(
    "fails cleanly or ends, and what it acknowledged is there afterwards",
    { timeout: 240_000 },
    async () => {
      const mount = await place.provision({ drives: 3, rf: 2, size: "256MiB" });
      writeFileSync(join(mount, "before"), "before", { flush: true });
      run("prlimit", ["--pid", `${place.pid}`, "--nofile=64:64"]);
      const acknowledged = new Map<string, string>();
      let refused = 0;
      for (let number = 0; number < 24; number += 1) {
        const name = `v${number}`;
        const [dir = ""] = place.folders(`mnt-${name}`);
        for (const verb of [
          ["volume", "create", name, "--pool", "p", "--rf", "2"],
          ["mount", name, dir],
        ]) {
          const { code, stderr } = place.cli(...verb, "--json");
          if (code === 0) continue;
          refused += 1;
          // Without a descriptor there is no connection either: then the command line says that nobody answers.
          const { message } = JSON.parse(stderr) as { message: string };
          assert.notEqual(message, "", `${verb.join(" ")}: ${stderr}`);
        }
        write(mount, `f${number}`, acknowledged);
      }
      assert.ok(refused > 0, "the limit was never met");
      assert.ok(acknowledged.size > 0 || place.fate !== "", "a mount that is there goes on");
      await survives(place, mount, acknowledged);
    },
  );

  it("started with them, it serves or says what is missing", { timeout: 120_000 }, async () => {
    assert.equal(await place.stop("SIGTERM"), 0, place.log.slice(-2000));
    const answered = await place
      .start({ ready: false, through: ["prlimit", "--nofile=64:64"] })
      .then(() => true)
      .catch((error: unknown) => {
        assert.match(String(error), /the daemon ended/);
        return false;
      });
    if (answered) {
      const problems = place.status().pools.flatMap(({ problem }) => problem?.message ?? []);
      for (const problem of problems) assert.match(problem, /descriptors|open files|os error 24/i);
    }
    await place.stop("SIGTERM");
    await place.start({ ready: false });
    await until("everything is up again", () => place.cli("status").code === 0);
    assert.equal(readFileSync(join(place.folder, "mnt/before"), "utf8"), "before");
  });
});

/** Writes a file durably; notes what was acknowledged, and accepts the errors of a daemon in trouble. */
function write(mount: string, name: string, acknowledged: Map<string, string>): void {
  const data = randomBytes(100_000);
  try {
    writeFileSync(join(mount, name), data, { flush: true });
  } catch (error) {
    assert.match(
      (error as NodeJS.ErrnoException).code ?? "",
      /^(?:EIO|ENOTCONN|ECONNABORTED|ECANCELED|ENOSPC|EROFS)$/,
    );
    return;
  }
  acknowledged.set(name, createHash("sha256").update(data).digest("hex"));
}

/** What was acknowledged is there after a kill and a start. */
async function survives(
  place: Place,
  mount: string,
  acknowledged: ReadonlyMap<string, string>,
): Promise<void> {
  await place.stop("SIGKILL");
  await place.start({ ready: false });
  await until("everything is up again", () => place.cli("status").code === 0);
  assert.equal(readFileSync(join(mount, "before"), "utf8"), "before");
  for (const [name, hash] of acknowledged) {
    const found = createHash("sha256").update(readFileSync(join(mount, name)));
    assert.equal(found.digest("hex"), hash, name);
  }
}

describe("a daemon that gets no more memory", { skip: without("prlimit") }, () => {
  const place = new Place();
  after(() => place.remove());

  /** Enough for small things, not for the ring of another group (64 MiB). */
  const MORE_BYTES = 40 * MIB;

  it(
    "fails cleanly or ends, and what it acknowledged is there afterwards",
    { timeout: 240_000 },
    async () => {
      const mount = await place.provision({ drives: 3, rf: 2, size: "256MiB" });
      writeFileSync(join(mount, "before"), "before", { flush: true });
      const size = /^VmSize:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${place.pid}/status`, "utf8"))?.[1];
      const limit = Number(size) * 1024 + MORE_BYTES;
      run("prlimit", ["--pid", `${place.pid}`, `--as=${limit}:${limit}`]);
      const acknowledged = new Map<string, string>();
      let refused = 0;
      for (let number = 0; number < 12 && place.fate === ""; number += 1) {
        const { code, stderr } = place.cli("volume", "create", `v${number}`, "--pool", "p", "--json");
        refused += code === 0 ? 0 : 1;
        if (code !== 0) assert.notEqual((JSON.parse(stderr) as { message: string }).message, "", stderr);
        write(mount, `f${number}`, acknowledged);
      }
      assert.ok(refused > 0 || place.fate !== "", "the limit was never met");
      assert.ok(acknowledged.size > 0 || place.fate !== "", "a mount that is there goes on");
      await survives(place, mount, acknowledged);
      // A volume that was refused is whole or absent, never half there.
      for (const { name } of place.json<{ name: string }[]>("volume", "list")) {
        if (name === "v") continue;
        const [dir = ""] = place.folders(`mnt-${name}`);
        place.json("mount", name, dir);
        writeFileSync(join(dir, "file"), name, { flush: true });
        place.json("umount", dir);
      }
    },
  );
});

describe("a second daemon", () => {
  const place = new Place();
  const second = new Place();
  let mount = "";

  before(async () => {
    mount = await place.provision({ drives: 2, rf: 2, size: "96MiB" });
    writeFileSync(join(mount, "canary"), "alive", { flush: true });
    await second.start();
  });
  after(async () => {
    await second.remove();
    await place.remove();
  });

  const drives = () => ["d1", "d2"].flatMap((name) => ["--drive", join(place.folder, name)]);
  const refused = () => second.fails(5, "pool", "import", ...drives());

  it("on the same state is refused and names the first", () => {
    const error = place.fails(5, "daemon");
    assert.match(error.message, new RegExp(`another daemon \\(process ${place.pid}\\) runs on state folder`));
    assert.match(error.hint, /--state/);
  });

  it("on the same pool is refused while the first runs", () => {
    assert.match(refused().message, /d[12] is in use by another Holdfast daemon/);
    assert.equal(readFileSync(join(mount, "canary"), "utf8"), "alive");
  });

  it("after kill -9 of the first: the restarted first has it again, and the second is refused again", async () => {
    await place.stop("SIGKILL");
    await place.start();
    assert.match(place.fails(5, "daemon").message, new RegExp(`process ${place.pid}\\b`));
    assert.match(refused().message, /is in use by another Holdfast daemon/);
    writeFileSync(join(mount, "canary"), "alive still", { flush: true });
  });

  it("after kill -9 of the first, the second takes the pool; the first is refused then", async () => {
    await place.stop("SIGKILL");
    second.json("pool", "import", ...drives());
    await place.start({ ready: false });
    const problem = place.status().pools[0]?.problem;
    assert.equal(problem?.code, "Conflict", JSON.stringify(problem));
    assert.match(problem?.message ?? "", /is in use by another Holdfast daemon/);
    const [elsewhere = ""] = second.folders("elsewhere");
    second.json("mount", "v", elsewhere);
    assert.equal(readFileSync(join(elsewhere, "canary"), "utf8"), "alive still");
    // Given back in order, the first finds it by itself.
    assert.equal(await second.stop("SIGTERM"), 0, second.log);
    await until("the first has its pool again", () => place.cli("status").code === 0);
    assert.equal(readFileSync(join(mount, "canary"), "utf8"), "alive still");
  });
});

describe("an idle daemon", () => {
  const place = new Place();
  after(() => place.remove());

  const RSS_BYTES_MAX = 150 * MIB;
  const CPU_SHARE_MAX = 0.01;
  const WINDOW_MS = 5_000;
  /** A busy neighbour may slow a window down, never speed one up; one good window is proof. */
  const WINDOWS_MAX = 6;

  it("takes under 1 % of a CPU and under 150 MiB", { timeout: 120_000 }, async () => {
    const mount = await place.provision({ drives: 3, rf: 2, size: "256MiB" });
    mkdirSync(join(mount, "some"));
    for (let index = 0; index < 200; index += 1)
      writeFileSync(join(mount, "some", `${index}`), randomBytes(5_000));
    const ticksPerSecond = Number(run("getconf", ["CLK_TCK"]));
    const seconds = () => {
      // proc_pid_stat(5): the fields after the name, which is in parentheses; utime and stime are the 14th and 15th.
      const fields = readFileSync(`/proc/${place.pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
      return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
    };
    const shares: number[] = [];
    while (shares.length < WINDOWS_MAX && !shares.some((share) => share < CPU_SHARE_MAX)) {
      const [begin, used] = [performance.now(), seconds()];
      // A window of idleness is what is measured here, not something waited for.
      await delay(WINDOW_MS);
      shares.push((seconds() - used) / ((performance.now() - begin) / 1000));
    }
    assert.ok(
      shares.some((share) => share < CPU_SHARE_MAX),
      `shares of a CPU: ${shares.map((share) => share.toFixed(4)).join(", ")}`,
    );
    const resident = Number(
      /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${place.pid}/status`, "utf8"))?.[1],
    );
    assert.ok(resident * 1024 < RSS_BYTES_MAX, `${resident} KiB resident`);
    assert.equal(readdirSync(join(mount, "some")).length, 200);
  });
});
