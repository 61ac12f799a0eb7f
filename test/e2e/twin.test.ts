// Random operations on a mount and on a plain directory give the same results and trees; fsx compares one file with a
// model in memory. A third round kills the daemon before the trees are compared.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, ROOT, run, withoutRoot } from "../daemon-fixture.js";

const SEEDS = Number(process.env.HOLDFAST_TWIN_SEEDS ?? 100);
const OPERATIONS = 2_000;
const KILLED_SEEDS = 4;
const FSX_OPERATIONS = Number(process.env.HOLDFAST_FSX_OPERATIONS ?? 20_000);
const FSX_CONFIGURATIONS = 8;
const TIMEOUT_MS = 20 * 60_000;
/** What both sides need to be equal: set-user-id bits and devices work, and others come in. */
const MOUNT_OPTIONS = "allow_other,suid,dev";

/** Both programs, in the release profile, in the workspace's target folder. */
function build(): string {
  run("cargo", ["build", "--release", "--locked", "--quiet", "--package", "holdfast-twin"], {
    cwd: join(ROOT, "native"),
  });
  return join(process.env.CARGO_TARGET_DIR ?? join(ROOT, "native/target"), "release");
}

/** Runs a program while this process goes on; its exit status and all it said. */
function runBeside(program: string, args: readonly string[]): Promise<{ code: number | null; said: string }> {
  return new Promise((done, fail) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        said += text;
      });
    }
    child.on("error", fail);
    child.on("close", (code) => done({ code, said }));
  });
}

describe("a mount and its twin", { skip: withoutRoot, timeout: TIMEOUT_MS }, () => {
  const place = new Place();
  let programs = "";
  let mount = "";
  let plain = "";

  before(async () => {
    programs = build();
    [plain = ""] = place.folders("plain");
    mount = await place.provision({ drives: 3, rf: 2, size: "1GiB", mountOptions: MOUNT_OPTIONS });
  });
  after(() => place.remove());

  /** Runs the twin and demands that it finds nothing. `seeds`: how many, from `first` on. */
  async function twin(options: { first: number; seeds: number; more: string[] }): Promise<void> {
    const { first, seeds, more } = options;
    const range = ["--seeds", `${first}..${first + seeds}`, "--ops", `${OPERATIONS}`];
    const program = join(programs, "holdfast-twin");
    const { code, said } = await runBeside(program, ["--a", plain, "--b", mount, ...range, ...more]);
    assert.equal(code, 0, `${said}\n${place.fate}${place.log.slice(-2000)}`);
    assert.match(said, new RegExp(`^${seeds} seeds x ${OPERATIONS} operations, 0 differing`, "m"));
  }

  it(`${SEEDS} seeds of ${OPERATIONS} operations: no difference`, () =>
    twin({ first: 0, seeds: SEEDS, more: ["--jobs", "2"] }));

  it("the test itself finds damage: a flipped byte, lost mode bits", async () => {
    for (const damage of ["1", "2"]) {
      const args = ["--a", plain, "--b", mount, "--seed", "1", "--ops", `${OPERATIONS}`, "--break", damage];
      const { code, said } = await runBeside(join(programs, "holdfast-twin"), args);
      assert.equal(code, 1, said);
      assert.match(said, /^seed 1 differs$/m);
    }
  });

  it(`${KILLED_SEEDS} seeds, the daemon killed and started again before the trees are compared`, async () => {
    let restarts = 0;
    const bell = join(place.folder, "bell");
    const server = createServer((socket) => {
      void (async () => {
        assert.equal(await place.stop("SIGKILL"), "SIGKILL");
        await place.start();
        restarts += 1;
        socket.end("restarted");
      })().catch((error: unknown) => socket.destroy(error as Error));
    });
    await new Promise<void>((done) => server.listen(bell, done));
    try {
      // Succeeds when the daemon is up again, fails when the connection ends without a word.
      const ring = `let said = ""; require("node:net").connect(process.argv[1]).on("error", () => undefined)
        .on("data", (text) => { said += text; }).on("close", () => process.exit(said === "restarted" ? 0 : 1))`;
      const command = `'${process.execPath}' -e '${ring}' '${bell}'`;
      await twin({ first: SEEDS, seeds: KILLED_SEEDS, more: ["--before-compare", command, "--shrink", "0"] });
      assert.equal(restarts, KILLED_SEEDS);
    } finally {
      server.close();
    }
  });

  it(`fsx, ${FSX_CONFIGURATIONS} configurations of ${FSX_OPERATIONS} operations: no failure`, async () => {
    const args = ["--file", join(mount, "fsx"), "--operations", `${FSX_OPERATIONS}`];
    const { code, said } = await runBeside(join(programs, "holdfast-fsx"), args);
    assert.equal(code, 0, `${said}\n${place.fate}${place.log.slice(-2000)}`);
    assert.equal(said.match(/^ok {3}/gm)?.length, FSX_CONFIGURATIONS, said);
  });
});
