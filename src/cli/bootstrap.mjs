// npm's scripts, see VERBS. Plain JavaScript, because nothing is installed or compiled yet when it runs.
// It installs and builds what changed since the last time (a fingerprint of the sources says so), and nothing else.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { accessSync, chmodSync, constants, existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const MINIMUM_NODE = [20, 17];
const MINIMUM_RUST = [1, 90];

const FORMATTED = ["{src,test,bench}/**/*.{ts,mjs,cjs}", "tsconfig.json"];

/** Of the simulations, in a long run: of the engine, of replication. */
const LONG_SEEDS = 20_000;
const LONG_SEEDS_REPLICATION = 50_000;

class Missing extends Error {}

const VERBS = { start, build, test, lint, bench, sim, "test:long": testLong, "demo:nearsync": demoNearsync };

try {
  process.chdir(ROOT);
  const [verb = "", ...args] = process.argv.slice(2);
  if (!Object.hasOwn(VERBS, verb))
    throw new Missing(`bootstrap.mjs: one of ${Object.keys(VERBS).join(", ")}`);
  process.exitCode = await VERBS[verb](args);
} catch (error) {
  if (!(error instanceof Missing)) throw error;
  console.error(`holdfast: ${error.message}`);
  process.exitCode = 1;
}

async function start(args) {
  needFuse();
  await prepare();
  const { runDemo } = await import(pathToFileURL(join(ROOT, "dist/src/cli/demo.js")).href);
  return runDemo(args);
}

async function demoNearsync() {
  needFuse();
  await prepare();
  const { runNearsyncDemo } = await import(pathToFileURL(join(ROOT, "dist/src/cli/demo-nearsync.js")).href);
  return runNearsyncDemo();
}

async function build() {
  await prepare();
  return 0;
}

/** Every test, or only the TypeScript test files that are named. */
async function test(files) {
  needFuse();
  await prepare({ refuseDrift: true });
  const failures = [];
  if (files.length === 0) {
    const cargo = await run("cargo", ["test", "--workspace", "--locked"], { cwd: join(ROOT, "native") });
    if (cargo !== 0) failures.push("cargo test");
  }
  const chosen =
    files.length === 0 ? find("dist/test", (name) => name.endsWith(".test.js")) : files.map(toCompiled);
  // One file at a time: mounts, kills and databases share the machine's two cores with what they test.
  const reporters = ["--test-reporter=spec", "--test-reporter-destination=stdout"];
  const counts = ["--test-reporter=tap", "--test-reporter-destination=dist/test.tap"];
  const node = ["--enable-source-maps", "--test", "--test-concurrency=1", ...reporters, ...counts, ...chosen];
  if ((await run(process.execPath, node)) !== 0) failures.push("node --test");
  const skipped = /^# skipped (\d+)$/m.exec(readFileSync("dist/test.tap", "utf8"))?.[1] ?? "0";
  if (process.env.CI === "true" && skipped !== "0") failures.push(`${skipped} skipped tests`);
  if (failures.length > 0) console.error(`holdfast: failed: ${failures.join(", ")}`);
  return failures.length === 0 ? 0 : 1;
}

async function lint() {
  await prepare({ refuseDrift: true });
  // Not --all-targets: that makes a test build of the addon, too, in which nothing but Node would call it.
  const targets = ["--lib", "--bins", "--tests", "--examples"];
  const clippy = ["clippy", "--workspace", ...targets, "--locked", "--", "-D", "warnings"];
  const results = [
    await run("cargo", clippy, { cwd: join(ROOT, "native") }),
    await runTool("typescript/bin/tsc", ["-p", ".", "--noEmit"]),
    await runTool("prettier/bin/prettier.cjs", ["--check", "--log-level=warn", ...FORMATTED]),
    await runTool("eslint/bin/eslint.js", [
      "-c",
      "test/eslint.config.mjs",
      "--max-warnings=0",
      "src",
      "test",
      "bench",
    ]),
  ];
  return results.every((result) => result === 0) ? 0 : 1;
}

/** Benches beside their baselines; the arguments are those of bench/main.ts. */
async function bench(args) {
  needFuse();
  await prepare();
  return run(process.execPath, ["--enable-source-maps", "dist/bench/main.js", ...args]);
}

/** The engine on simulated drives; the arguments are those of native/store/tests/sim/cli.rs. */
function sim(args) {
  needCompilers();
  // The profile of the tests: its assertions are part of what is tested, and a panic tells its seed.
  const cargo = [
    "run",
    "--quiet",
    "--profile",
    "test",
    "-p",
    "holdfast-store",
    "--example",
    "sim",
    "--locked",
  ];
  return run("cargo", [...cargo, "--", ...args], { cwd: join(ROOT, "native") });
}

/** What takes longer than a change may wait for. */
async function testLong() {
  await prepare({ refuseDrift: true });
  process.env.HOLDFAST_SIM_SEEDS = String(LONG_SEEDS_REPLICATION);
  const exhaustive = [
    "test",
    "-p",
    "holdfast-store",
    "--test",
    "flips",
    "--test",
    "space",
    "--test",
    "history",
    "--locked",
    "--",
    "--ignored",
    "--nocapture",
  ];
  const results = [
    await sim(["--seeds", String(LONG_SEEDS)]),
    await run(process.execPath, ["--enable-source-maps", "--test", "dist/test/nearsync-lws/sim.test.js"]),
    await run("cargo", exhaustive, { cwd: join(ROOT, "native") }),
  ];
  return results.every((result) => result === 0) ? 0 : 1;
}

// --- what must be there ---------------------------------------------------------------------------------------------

function needNode() {
  if (atLeast(process.versions.node, MINIMUM_NODE)) return;
  throw new Missing(
    `Node ${process.versions.node} is too old; install Node ${MINIMUM_NODE.join(".")} or newer`,
  );
}

function needCompilers() {
  const rustc = spawnSync("rustc", ["--version"], { encoding: "utf8" });
  const version = /\d+\.\d+/.exec(rustc.stdout ?? "")?.[0];
  if (findProgram("cargo") === undefined || version === undefined) {
    throw new Missing(`cargo is missing; install Rust ${MINIMUM_RUST.join(".")} or newer: https://rustup.rs`);
  }
  if (!atLeast(version, MINIMUM_RUST)) {
    throw new Missing(
      `Rust ${version} is too old; install ${MINIMUM_RUST.join(".")} or newer: rustup update`,
    );
  }
  if (findProgram("cc") === undefined) {
    throw new Missing(
      "a C compiler (cc) is missing; install gcc or clang, on Debian: apt install build-essential",
    );
  }
}

function needFuse() {
  try {
    accessSync("/dev/fuse", constants.R_OK | constants.W_OK);
  } catch {
    const how = "modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN";
    throw new Missing(`/dev/fuse is missing or closed to you; make it available: ${how}`);
  }
  if (process.geteuid() !== 0 && findProgram("fusermount3") === undefined) {
    throw new Missing("fusermount3 is missing; install fuse3, on Debian: apt install fuse3 (or run as root)");
  }
}

function atLeast(version, [major, minor]) {
  const [haveMajor = 0, haveMinor = 0] = version.split(".").map(Number);
  return haveMajor > major || (haveMajor === major && haveMinor >= minor);
}

function findProgram(name) {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

// --- installing and building ----------------------------------------------------------------------------------------

/** Installs and builds what changed. `refuseDrift`: the generated addon types must be the committed ones. */
async function prepare({ refuseDrift = false } = {}) {
  needNode();
  // Before anything is downloaded.
  if (isStale("native/target/.holdfast", addonSources(), addonFile())) needCompilers();
  await step("node_modules/.holdfast", ["package.json", "package-lock.json"], async () => {
    say("installing packages");
    await must("npm ci", runNpm(["ci", "--no-audit", "--no-fund", "--loglevel=error"]));
  });
  await step(
    "native/target/.holdfast",
    addonSources(),
    async () => {
      say("building the addon (the first time takes a minute or two)");
      const types = readIfThere("native/index.d.ts");
      await must("the addon", buildAddon());
      if (readIfThere("native/index.d.ts") === types) return;
      const message =
        "native/index.d.ts is generated and did not fit the addon's source; it was made anew: commit it";
      if (refuseDrift) throw new Missing(message);
      say(message);
    },
    addonFile(),
  );
  await step("dist/.holdfast", typescriptSources(), async () => {
    say("compiling TypeScript");
    for (const folder of ["src", "test", "bench"])
      rmSync(join("dist", folder), { recursive: true, force: true });
    await must("tsc", runTool("typescript/bin/tsc", ["-p", "."]));
    chmodSync("dist/src/cli/main.js", 0o755);
  });
}

/** False when the sources are those of the last time and `product` is there. */
function isStale(stamp, sources, product) {
  return readIfThere(stamp) !== fingerprint(sources) || !existsSync(product);
}

/** Runs `make` where it is stale. */
async function step(stamp, sources, make, product = stamp) {
  if (!isStale(stamp, sources, product)) return;
  rmSync(stamp, { force: true });
  await make();
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, fingerprint(sources));
}

function buildAddon() {
  const options = [
    "--manifest-path",
    "native/node/Cargo.toml",
    "--output-dir",
    "native",
    "--platform",
    "--release",
  ];
  const generated = ["--esm", "--js", "index.js", "--dts", "index.d.ts"];
  return runTool("@napi-rs/cli/dist/cli.js", ["build", ...options, ...generated, "--", "--locked"]);
}

function addonFile() {
  const files = existsSync("native") ? readdirSync("native").filter((name) => name.endsWith(".node")) : [];
  return join("native", files[0] ?? "no-addon.node");
}

function addonSources() {
  const source = (name) => /\.(?:rs|toml|lock)$/.test(name);
  return [...find("native", source, ["target", "tests"]), "package.json"];
}

function typescriptSources() {
  const folders = ["src", "test", "bench"].filter((folder) => existsSync(folder));
  const files = folders.flatMap((folder) => find(folder, (name) => name.endsWith(".ts"), ["node_modules"]));
  return [...files, "tsconfig.json", "package-lock.json", "native/index.d.ts"];
}

function fingerprint(files) {
  const hash = createHash("sha256").update(process.version);
  for (const file of [...files].sort())
    hash.update(`\0${file}\0`).update(existsSync(file) ? readFileSync(file) : "");
  return hash.digest("hex");
}

function find(folder, wanted, except = []) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return except.includes(entry.name) ? [] : find(path, wanted, except);
    return wanted(entry.name) ? [path] : [];
  });
}

function readIfThere(file) {
  return existsSync(file) ? readFileSync(file, "utf8") : undefined;
}

/** test/e2e/git.test.ts → dist/test/e2e/git.test.js */
function toCompiled(file) {
  return join(
    "dist",
    relative(ROOT, join(ROOT, file))
      .replace(/^dist\//, "")
      .replace(/\.ts$/, ".js"),
  );
}

function say(text) {
  console.error(`holdfast: ${text}`);
}

// --- child processes ------------------------------------------------------------------------------------------------

async function must(what, running) {
  if ((await running) !== 0) throw new Missing(`${what} failed; what went wrong stands above`);
}

function runNpm(args) {
  const npm = process.env.npm_execpath;
  return npm === undefined ? run("npm", args) : run(process.execPath, [npm, ...args]);
}

function runTool(path, args) {
  return run(process.execPath, [join("node_modules", path), ...args]);
}

/** The exit status; output goes where ours goes. Ctrl-C reaches the child by itself: it decides when to end. */
function run(program, args, options = {}) {
  return new Promise((resolve) => {
    const jobs = process.env.CARGO_BUILD_JOBS ?? String(availableParallelism());
    const child = spawn(program, args, {
      stdio: "inherit",
      ...options,
      env: { ...process.env, CARGO_BUILD_JOBS: jobs },
    });
    const ignore = () => undefined;
    process.on("SIGINT", ignore);
    child.on("error", (error) => {
      say(`${program}: ${error.message}`);
      resolve(127);
    });
    child.on("close", (code, signal) => {
      process.off("SIGINT", ignore);
      resolve(signal === null ? code : 1);
    });
  });
}
