// The state folder: whose it is, who may swap it, one daemon at a time, files old or new.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { chownSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { forgetRuntimeFolder, openRuntimeFolder } from "../../src/daemon/runtime-folder.js";
import { readState, writeState } from "../../src/daemon/state-file.js";
import { StateFolder } from "../../src/daemon/state-folder.js";
import { HoldfastError } from "../../src/io-path/errors.js";
import type { ErrorCode } from "../../src/io-path/errors.js";
import { withoutRoot } from "../daemon-fixture.js";

let above = "";

/** Swaps the state folder for a link to `trap` and back, as fast as it can. */
const RACER = `
  const { renameSync, symlinkSync, unlinkSync, writeSync } = require("node:fs");
  const attempt = (act) => { try { act(); return true; } catch { return false; } };
  process.chdir(process.argv[1]);
  writeSync(1, "racing\\n");
  for (let number = 0; ;) {
    attempt(() => renameSync("state", "real-" + number));
    attempt(() => symlinkSync("trap", "state"));
    attempt(() => unlinkSync("state"));
    if (!attempt(() => renameSync("real-" + number, "state"))) number += 1;
  }
`;

beforeEach(() => {
  above = mkdtempSync(join(tmpdir(), "holdfast-state-"));
});
afterEach(() => rmSync(above, { recursive: true, force: true }));

function failsWith(code: ErrorCode, words: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof HoldfastError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(`${error.message} ${error.hint}`, words);
    return true;
  };
}

describe("opening the state folder", () => {
  it("makes it 0700, with the folders above", () => {
    const path = join(above, "a/b/state");
    StateFolder.open(path).close();
    assert.equal(statSync(path).mode & 0o7777, 0o700);
  });

  it("closes one that others may read", () => {
    const path = join(above, "state");
    mkdirSync(path, { mode: 0o755 });
    StateFolder.open(path).close();
    assert.equal(statSync(path).mode & 0o7777, 0o700);
  });

  it("refuses a symbolic link, a file, and a folder that others may write", () => {
    mkdirSync(join(above, "real"), { mode: 0o700 });
    symlinkSync("real", join(above, "link"));
    assert.throws(() => StateFolder.open(join(above, "link")), failsWith("Invalid", /no symbolic link/));
    writeFileSync(join(above, "file"), "");
    assert.throws(() => StateFolder.open(join(above, "file")), failsWith("Invalid", /not a directory/));
    mkdirSync(join(above, "open"));
    chmodSync(join(above, "open"), 0o777);
    assert.throws(() => StateFolder.open(join(above, "open")), failsWith("Denied", /writable by others/));
  });

  it("refuses a place where everybody may rename it away", () => {
    const shared = join(above, "shared");
    mkdirSync(join(shared, "deep"), { recursive: true });
    chmodSync(shared, 0o777);
    assert.throws(
      () => StateFolder.open(join(shared, "deep/state")),
      failsWith("Denied", /everybody may rename/),
    );
    chmodSync(shared, 0o1777);
    StateFolder.open(join(shared, "deep/state")).close();
  });

  it("refuses somebody else's", { skip: withoutRoot }, () => {
    const path = join(above, "state");
    mkdirSync(path, { mode: 0o700 });
    chownSync(path, 65534, 65534);
    assert.throws(() => StateFolder.open(path), failsWith("Denied", /belongs to uid 65534/));
  });

  it("stays what it was when its path is swapped for a link afterwards", () => {
    const path = join(above, "state");
    const trap = join(above, "trap");
    mkdirSync(trap);
    const folder = StateFolder.open(path);
    for (let round = 0; round < 50; round += 1) {
      renameSync(path, join(above, "moved"));
      symlinkSync("trap", path);
      folder.write("state.json", `round ${round}`);
      rmSync(path);
      renameSync(join(above, "moved"), path);
    }
    assert.deepEqual(readdirSync(trap), [], "nothing was written through the link");
    assert.equal(readFileSync(join(path, "state.json"), "utf8"), "round 49");
    folder.close();
  });

  it("is never opened through a link that a racer puts in its place", { timeout: 60_000 }, async () => {
    const [path, trap] = [join(above, "state"), join(above, "trap")];
    for (const dir of [path, trap]) mkdirSync(dir, { mode: 0o700 });
    const racer = spawn(process.execPath, ["-e", RACER, above], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      await once(racer.stdout, "data");
      let [opened, refused] = [0, 0];
      // Both must have happened often: else there was no race.
      for (let round = 0; (opened < 200 || refused < 200) && round < 100_000; round += 1) {
        try {
          const folder = StateFolder.open(path);
          folder.write("state.json", `round ${round}`);
          folder.close();
          opened += 1;
        } catch (error) {
          assert.ok(error instanceof HoldfastError, String(error));
          refused += 1;
        }
      }
      assert.ok(opened >= 200 && refused >= 200, `${opened} opened, ${refused} refused`);
    } finally {
      racer.kill("SIGKILL");
    }
    assert.deepEqual(readdirSync(trap), [], "nothing was written through the link");
  });

  it("never follows a link in the place of a file", () => {
    const path = join(above, "state");
    const folder = StateFolder.open(path);
    writeFileSync(join(above, "secret"), "canary");
    symlinkSync("../secret", join(path, "state.json"));
    assert.throws(() => folder.read("state.json"), failsWith("Denied", /symbolic link/));
    folder.write("state.json", "new");
    symlinkSync("../secret", join(path, "state.json.new"));
    folder.write("state.json", "newer");
    assert.equal(folder.read("state.json"), "newer");
    assert.equal(readFileSync(join(above, "secret"), "utf8"), "canary");
    folder.close();
  });
});

describe("one daemon at a time", () => {
  it("the second is refused until the first is gone", () => {
    const first = StateFolder.open(join(above, "state"));
    const second = StateFolder.open(join(above, "state"));
    first.lock();
    assert.throws(
      () => second.lock(),
      failsWith("Conflict", new RegExp(`process ${process.pid}\\b.*--state`)),
    );
    first.close();
    second.lock();
    second.close();
  });
});

describe("state file", () => {
  it("gives back what was written, paths as bytes", () => {
    const folder = StateFolder.open(join(above, "state"));
    assert.deepEqual(readState(folder), { pools: [], mounts: [] });
    const state = {
      pools: [{ name: "p", uuid: "u", drives: [Buffer.from("/d1"), Buffer.from([0x2f, 0xff, 0x0a])] }],
      mounts: [{ volume: "v", dir: Buffer.from([0x2f, 0xc3, 0x28]), options: ["ro"], source: "v" }],
    };
    writeState(folder, state);
    assert.deepEqual(readState(folder), state);
    assert.equal(statSync(join(folder.path, "state.json")).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(folder.path), ["state.json"]);
    folder.close();
  });

  for (const text of [
    "",
    "{",
    "[]",
    '{"format":2,"pools":[],"mounts":[]}',
    '{"format":1,"pools":[{}],"mounts":[]}',
  ]) {
    it(`names the way out of a broken one: ${JSON.stringify(text)}`, () => {
      const folder = StateFolder.open(join(above, "state"));
      folder.write("state.json", text);
      assert.throws(() => readState(folder), failsWith("Corrupt", /state\.json.*pool import/));
      folder.close();
    });
  }
});

describe("run-time folder", () => {
  it("is remembered until an orderly stop, whatever the configuration says by then", () => {
    const folder = StateFolder.open(join(above, "state"));
    const first = openRuntimeFolder(folder, join(above, "one"));
    assert.ok(first.path.startsWith(join(above, "one")));
    assert.equal(statSync(first.path).mode & 0o7777, 0o700);
    assert.equal(openRuntimeFolder(folder, join(above, "two")).path, first.path);
    forgetRuntimeFolder(folder);
    assert.ok(openRuntimeFolder(folder, join(above, "two")).path.startsWith(join(above, "two")));
    folder.close();
  });

  it("is chosen anew when it is gone, as after a boot", () => {
    const folder = StateFolder.open(join(above, "state"));
    const first = openRuntimeFolder(folder, join(above, "one"));
    rmSync(first.path, { recursive: true });
    assert.ok(openRuntimeFolder(folder, join(above, "two")).path.startsWith(join(above, "two")));
    folder.close();
  });

  it("is never somebody else's", { skip: withoutRoot }, () => {
    const folder = StateFolder.open(join(above, "state"));
    const first = openRuntimeFolder(folder, join(above, "one"));
    chownSync(first.path, 65534, 65534);
    assert.throws(() => openRuntimeFolder(folder, join(above, "one")), failsWith("Denied", /somebody else/));
    folder.close();
  });
});
