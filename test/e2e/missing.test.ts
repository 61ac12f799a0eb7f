// What `npm start` and `npm test` say on a machine that lacks something: one line that names it and the way to get it,
// before anything is downloaded, built or written.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Place, ROOT, run, without, withoutRoot } from "../daemon-fixture.js";

describe("a machine that lacks something", () => {
  const place = new Place();
  const tree = join(place.folder, "tree");
  const bootstrap = join(tree, "src/cli/bootstrap.mjs");

  /** As a clone: sources, nothing installed, nothing built. */
  before(() => {
    for (const name of ["package.json", "package-lock.json", "src/cli/bootstrap.mjs", "native/Cargo.toml"]) {
      mkdirSync(dirname(join(tree, name)), { recursive: true });
      cpSync(join(ROOT, name), join(tree, name));
    }
  });
  after(() => place.remove());

  /** A PATH of these programs only, each a script that prints a line. */
  function pathOf(name: string, programs: Record<string, string>): string {
    const folder = join(place.folder, name);
    mkdirSync(folder);
    for (const [program, line] of Object.entries(programs)) {
      writeFileSync(join(folder, program), `#!/bin/sh\necho "${line}"\n`);
      chmodSync(join(folder, program), 0o755);
    }
    return folder;
  }

  const rust = { cargo: "cargo 1.90.0", rustc: "rustc 1.90.0 (abc 2025-09-14)" };
  const cases: [string, Record<string, string>, RegExp][] = [
    ["nothing", {}, /^holdfast: cargo is missing; install Rust 1\.90 or newer: https:\/\/rustup\.rs\n$/],
    ["rustc only", { rustc: rust.rustc }, /^holdfast: cargo is missing; [^\n]*\n$/],
    [
      "an old Rust",
      { cargo: "cargo 1.63.0", rustc: "rustc 1.63.0" },
      /^holdfast: Rust 1\.63 is too old; install 1\.90 or newer: rustup update\n$/,
    ],
    ["no C compiler", rust, /^holdfast: a C compiler \(cc\) is missing; [^\n]*build-essential\n$/],
  ];
  for (const verb of ["start", "test"]) {
    for (const [what, programs, expected] of cases) {
      it(`npm ${verb} with ${what} on PATH`, () => {
        const path = pathOf(`${verb}-${what.replaceAll(" ", "-")}`, programs);
        const { status, stdout, stderr } = spawnSync(process.execPath, [bootstrap, verb], {
          env: { PATH: path, HOME: place.folder },
          encoding: "utf8",
        });
        assert.match(stderr, expected);
        assert.deepEqual([status, stdout], [1, ""]);
        for (const made of ["node_modules", "dist", "holdfast-data", "native/target"]) {
          assert.ok(!existsSync(join(tree, made)), `${made} was made`);
        }
      });
    }
  }

  it("with an old Node", () => {
    const older = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "18.19.1" } });
      process.argv.splice(1, 0, ""); process.argv[2] = "start";
      await import(${JSON.stringify(bootstrap)})`;
    const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", older], {
      encoding: "utf8",
    });
    assert.match(stderr, /^holdfast: Node 18\.19\.1 is too old; install Node 20\.17 or newer\n$/);
    assert.equal(status, 1);
  });

  it("without /dev/fuse", { skip: withoutRoot || without("unshare", "mount") }, () => {
    const script = 'mount -t tmpfs none /dev && exec "$@"';
    const inside = ["--mount", "--propagation", "private", "sh", "-c", script, "sh", process.execPath];
    const { status, stderr } = spawnSync("unshare", [...inside, bootstrap, "start"], { encoding: "utf8" });
    assert.match(stderr, /^holdfast: \/dev\/fuse is missing or closed to you; [^\n]*modprobe fuse[^\n]*\n$/);
    assert.equal(status, 1);
  });

  it("without fusermount3, as somebody who is not root", { skip: withoutRoot || without("setpriv") }, () => {
    run("chmod", ["-R", "go+rX", place.folder]);
    run("mknod", [join(place.folder, "fuse"), "c", "10", "229"]);
    chmodSync(join(place.folder, "fuse"), 0o666);
    const node = join(pathOf("node-only", {}), "node");
    cpSync(process.execPath, node);
    const script = 'mount --bind "$1" /dev/fuse && shift && exec "$@"';
    const inside = [
      "--mount",
      "--propagation",
      "private",
      "sh",
      "-c",
      script,
      "sh",
      join(place.folder, "fuse"),
    ];
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const env = ["env", "-i", `PATH=${dirname(node)}`, node, bootstrap, "start"];
    const { status, stderr } = spawnSync("unshare", [...inside, ...nobody, ...env], { encoding: "utf8" });
    assert.match(stderr, /^holdfast: fusermount3 is missing; install fuse3, [^\n]*\n$/);
    assert.equal(status, 1);
    assert.deepEqual(readdirSync(tree).sort(), ["native", "package-lock.json", "package.json", "src"]);
  });
});
