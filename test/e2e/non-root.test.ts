// `npm start` as somebody who is not root: fusermount3 mounts, Ctrl-C unmounts.
//
// Run by root, it becomes uid 65534 in a mount namespace of its own, with a copy of the built tree, a home, and a
// /dev/fuse that is open to all, as distributions have it; nothing of the machine changes.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { chmodSync, chownSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, ROOT, run, until, without, withoutRoot } from "../daemon-fixture.js";

const NOBODY = 65_534;
const RINGS = `/dev/shm/holdfast-${NOBODY}`;
/** What `npm start` looks at; the rest of the tree, with gigabytes of compiler output, stays where it is. */
const COPIED = [
  "src",
  "test",
  "bench",
  "dist",
  "node_modules",
  "package.json",
  "package-lock.json",
  "tsconfig.json",
];

/** Copies the tree as it is built, fingerprints included, so that nothing is built again. */
function copyTree(to: string): void {
  mkdirSync(to);
  for (const name of COPIED) {
    if (existsSync(join(ROOT, name))) run("cp", ["-a", "--reflink=auto", join(ROOT, name), join(to, name)]);
  }
  const target = join(ROOT, "native/target");
  cpSync(join(ROOT, "native"), join(to, "native"), { recursive: true, filter: (path) => path !== target });
  mkdirSync(join(to, "native/target"));
  cpSync(join(target, ".holdfast"), join(to, "native/target/.holdfast"));
}

const impossible = withoutRoot || without("fusermount3", "setpriv", "unshare", "nsenter", "mknod");

describe("npm start without root", { skip: impossible }, () => {
  const place = new Place();
  const ringsWereThere = existsSync(RINGS);
  const tree = join(place.folder, "tree");
  const home = join(place.folder, "home");
  const data = join(home, "data");
  const become = ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];
  const env = { PATH: `${join(place.folder, "bin")}:${process.env.PATH}`, HOME: home, LANG: "C.UTF-8" };
  let child: ChildProcess | undefined;
  let output = "";

  before(() => {
    copyTree(tree);
    // The interpreter may lie where only we can reach it.
    mkdirSync(join(place.folder, "bin"));
    run("cp", ["--reflink=auto", process.execPath, join(place.folder, "bin/node")]);
    mkdirSync(home);
    chownSync(home, NOBODY, NOBODY);
    run("mknod", [join(place.folder, "fuse"), "c", "10", "229"]);
    chmodSync(join(place.folder, "fuse"), 0o666);
    chmodSync(place.folder, 0o755);
  });
  after(async () => {
    if (child !== undefined && child.exitCode === null) child.kill("SIGKILL");
    await place.remove();
    if (!ringsWereThere) rmSync(RINGS, { recursive: true, force: true });
  });

  /** Everything becomes the next by exec, so that the child's pid is that of `npm start` itself. */
  async function start(): Promise<ChildProcess> {
    const script = `mount --bind "$1/fuse" /dev/fuse && cd "$1/tree" && shift && exec "$@"`;
    const demo = ["node", "src/cli/bootstrap.mjs", "start", "--dir", data, "--size", "128MiB"];
    const args = [
      "--mount",
      "--propagation",
      "private",
      "sh",
      "-c",
      script,
      "sh",
      place.folder,
      ...become,
      ...demo,
    ];
    const started = spawn("unshare", args, { env, stdio: ["ignore", "pipe", "pipe"] });
    child = started;
    output = "";
    for (const stream of [started.stdout, started.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
    }
    await until("it says where the volume is", () => {
      assert.equal(started.exitCode, null, output);
      return output.includes(join(data, "mnt")) && output.includes("Ctrl-C");
    });
    return started;
  }

  /** Runs a shell line where the mount is, as the user. */
  function inside(started: ChildProcess, line: string): string {
    const args = ["-t", `${started.pid}`, "--mount", ...become, "sh", "-c", line];
    const { status, stdout, stderr } = spawnSync("nsenter", args, { env, encoding: "utf8" });
    assert.equal(status, 0, `${line}: ${stderr}\n${output}`);
    return stdout;
  }

  async function interrupt(started: ChildProcess): Promise<void> {
    // Another process of the namespace, which is still there when npm start is gone.
    const witness = spawn("nsenter", ["-t", `${started.pid}`, "--mount", "sleep", "600"], {
      stdio: "ignore",
    });
    try {
      await until("the witness is in the namespace", () => namespaceOf(witness) === namespaceOf(started));
      const ended = new Promise((done) => started.once("close", done));
      started.kill("SIGINT");
      assert.equal(await ended, 0, output);
      const mounts = readFileSync(`/proc/${witness.pid}/mountinfo`, "utf8");
      assert.ok(!mounts.includes(data), mounts);
    } finally {
      witness.kill("SIGKILL");
    }
  }

  function namespaceOf(process: ChildProcess): string {
    return run("readlink", [`/proc/${process.pid}/ns/mnt`]);
  }

  it("mounts through fusermount3, works, unmounts on SIGINT", { timeout: 120_000 }, async () => {
    const started = await start();
    assert.match(
      readFileSync(`/proc/${started.pid}/status`, "utf8"),
      new RegExp(`^Uid:\\s+${NOBODY}\\s`, "m"),
    );
    inside(
      started,
      `echo hello > ${data}/mnt/hello && mkdir ${data}/mnt/dir && cp ${data}/mnt/hello ${data}/mnt/dir`,
    );
    const line = inside(started, "cat /proc/self/mountinfo")
      .split("\n")
      .find((text) => text.includes(data));
    assert.match(line ?? "", /nosuid,nodev.* fuse\.holdfast .*default_permissions/);
    await interrupt(started);
  });

  it("finds the data again", { timeout: 120_000 }, async () => {
    const started = await start();
    assert.ok(!/building|compiling|installing/.test(output), output);
    assert.equal(inside(started, `cat ${data}/mnt/dir/hello`), "hello\n");
    await interrupt(started);
  });
});
