// Hooks are real programs here: limits, process groups, output, what stays behind.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { runHook } from "../../../src/daemon/policy/hook.js";
import type { HookResult } from "../../../src/daemon/policy/hook.js";
import { until } from "../../daemon-fixture.js";

describe("hooks", () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-hook-"));
  after(() => rmSync(folder, { recursive: true }));

  const never = new AbortController().signal;
  const shell = (
    line: string,
    options: { timeoutSeconds?: number; stop?: AbortSignal } = {},
  ): Promise<HookResult> => {
    const { timeoutSeconds = 20, stop = never } = options;
    const hook = { run: ["/bin/sh", "-c", line], timeoutSeconds, abort: true };
    return runHook(hook, { environment: { HOLDFAST_POLICY: "p 1" }, stop, stopMs: 0, graceMs: 200 });
  };
  const isAlive = (pid: number) => {
    const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, "utf8") : "";
    return stat !== "" && !/\) [ZX] /.test(stat);
  };

  it("get their environment, and both streams are kept", async () => {
    const { ok, problem, output } = await shell('echo "$HOLDFAST_POLICY"; pwd; echo oh >&2');
    assert.deepEqual([ok, problem], [true, ""]);
    assert.deepEqual(output.split("\n").sort(), ["/", "oh", "p 1"]);
  });

  it("get arguments as they are, without a shell", async () => {
    const hook = { run: ["/bin/echo", "a  b", "$HOME", ";"], timeoutSeconds: 20, abort: true };
    const { output } = await runHook(hook, { environment: {}, stop: never, stopMs: 0, graceMs: 200 });
    assert.equal(output, "a  b $HOME ;");
  });

  it("say how they ended", async () => {
    assert.deepEqual(await shell("echo no; exit 3"), { ok: false, problem: "exited with 3", output: "no" });
    assert.equal((await shell("kill -KILL $$")).problem, "ended by SIGKILL");
    const missing = { run: ["/nonexistent/hook"], timeoutSeconds: 20, abort: true };
    const options = { environment: {}, stop: never, stopMs: 0, graceMs: 200 };
    assert.equal((await runHook(missing, options)).problem, "cannot be started: ENOENT");
  });

  it("say as much as they like; the end is kept", async () => {
    const { ok, output } = await shell("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last");
    assert.ok(ok);
    assert.ok(output.length < 9000, `${output.length}`);
    assert.match(output, /^… x+\nlast$/);
  });

  it("at the limit the whole group ends, also what ignores SIGTERM", async () => {
    const file = join(folder, "stubborn");
    // The shell is replaced by nothing: it waits for a child that ignores SIGTERM, as it does itself.
    const line = `trap '' TERM; sh -c 'trap "" TERM; echo $$ > ${file}; while :; do sleep 60; done' & wait; wait`;
    const { ok, problem } = await shell(line, { timeoutSeconds: 0.3 });
    assert.deepEqual([ok, problem], [false, "ran longer than 0.3 s"]);
    const pid = Number(readFileSync(file, "utf8"));
    await until("the child is gone", () => !isAlive(pid), 5000);
  });

  it("one that ends at SIGTERM may clean up", async () => {
    const { problem, output } = await shell("trap 'echo bye; exit 0' TERM; sleep 60 & wait", {
      timeoutSeconds: 0.3,
    });
    assert.deepEqual([problem, output], ["ran longer than 0.3 s", "bye"]);
  });

  it("may leave a process behind, which lives on", async () => {
    const file = join(folder, "background");
    const { ok } = await shell(`sleep 60 >/dev/null 2>&1 & echo $! > ${file}`);
    assert.ok(ok);
    const pid = Number(readFileSync(file, "utf8"));
    assert.ok(isAlive(pid));
    process.kill(pid, "SIGKILL");
  });

  it("one that holds our pipe open in the background keeps nobody", async () => {
    const file = join(folder, "pipe");
    const { ok, output } = await shell(`echo said; sleep 60 & echo $! > ${file}`);
    assert.deepEqual([ok, output], [true, "said"]);
    process.kill(Number(readFileSync(file, "utf8")), "SIGKILL");
  });

  it("end when the daemon stops", async () => {
    const stop = new AbortController();
    const running = shell("sleep 60", { stop: stop.signal });
    stop.abort();
    assert.equal((await running).problem, "was ended because the daemon stops");
    assert.equal(
      (await shell("sleep 60", { stop: stop.signal })).problem,
      "was ended because the daemon stops",
    );
  });
});
