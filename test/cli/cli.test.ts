// The command line without a pool: exit statuses, JSON, hints, completion, bytes in arguments.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { bar, bytes, duration, table } from "../../src/cli/output.js";
import { EXIT_CODES } from "../../src/daemon/protocol.js";
import type { ErrorBody, StatusAnswer } from "../../src/daemon/protocol.js";
import { MAIN, Place, runCli, without } from "../daemon-fixture.js";

describe("exit statuses", () => {
  it("are the contract", () => {
    assert.deepEqual(EXIT_CODES, {
      Internal: 1,
      Invalid: 2,
      Unavailable: 3,
      Closed: 3,
      NotFound: 4,
      Conflict: 5,
      NoSpace: 6,
      Corrupt: 7,
      Fenced: 8,
      Denied: 9,
      NeedsYes: 10,
      Damage: 11,
      Different: 12,
    });
  });
});

describe("without a daemon", () => {
  const state = { HOLDFAST_STATE: "/nonexistent/holdfast" };

  const calls: [string[], number, string][] = [
    [["frobnicate"], 2, "Invalid"],
    [["pool"], 2, "Invalid"],
    [["pool", "create"], 2, "Invalid"],
    [["pool", "create", "p"], 2, "Invalid"],
    [["pool", "list", "--frob"], 2, "Invalid"],
    [["pool", "list", "surplus"], 2, "Invalid"],
    [["volume", "create", "v", "--pool", "p", "--rf", "4"], 2, "Invalid"],
    [["volume", "create", "v", "--pool", "p", "--ack", "never"], 2, "Invalid"],
    [["pool", "create", "p", "--drive", "a", "--domain", "x", "--domain", "y"], 2, "Invalid"],
    [["volume", "set", "v"], 2, "Invalid"],
    [["top", "--count", "none"], 2, "Invalid"],
    [["completion", "tcsh"], 2, "Invalid"],
    [["policy"], 2, "Invalid"],
    [["policy", "apply", "/nonexistent/policies.yaml"], 4, "NotFound"],
    [["policy", "show"], 3, "Unavailable"],
    [["pool", "list"], 3, "Unavailable"],
    [["status"], 3, "Unavailable"],
    [["mount", "v", "/mnt"], 3, "Unavailable"],
    [["pool", "destroy", "p"], 10, "NeedsYes"],
    [["volume", "destroy", "v"], 10, "NeedsYes"],
  ];
  for (const [args, exit, code] of calls) {
    it(`holdfast ${args.join(" ")} exits ${exit}`, () => {
      const asJson = runCli([...args, "--json"], state);
      assert.equal(asJson.code, exit, asJson.stderr);
      const error = JSON.parse(asJson.stderr) as ErrorBody;
      assert.deepEqual(Object.keys(error), ["code", "message", "hint"]);
      assert.equal(error.code, code);
      assert.equal(asJson.stdout, "");
      const forPeople = runCli(args, state);
      assert.equal(forPeople.code, exit);
      assert.ok(forPeople.stderr.startsWith(`holdfast: ${error.message}\n`), forPeople.stderr);
    });
  }

  it("help and version exit 0", () => {
    assert.match(runCli(["--help"]).stdout, /pool .*sets of drives/);
    assert.match(runCli(["volume", "create", "--help"]).stdout, /--rf <n>/);
    assert.match(runCli(["--version"]).stdout, /^\d+\.\d+\.\d+\n$/);
    assert.equal(runCli(["--help"]).code, 0);
  });

  it("doctor exits 11 and says what to do", () => {
    const { code, stdout } = runCli(["doctor", "--json"], state);
    assert.equal(code, 11);
    const findings = JSON.parse(stdout) as { check: string; ok: boolean; hint: string }[];
    const daemon = findings.find(({ check }) => check === "daemon");
    assert.equal(daemon?.ok, false);
    assert.match(daemon?.hint ?? "", /holdfast daemon/);
  });
});

describe("completion", () => {
  it("bash completes verbs and options", { skip: without("bash") }, () => {
    const complete = (...words: string[]) => {
      const line = `source <("$0" "$1" completion bash)
        COMP_WORDS=(holdfast "\${@:2}"); COMP_CWORD=$((\${#COMP_WORDS[@]}-1)); _holdfast; echo "\${COMPREPLY[@]}"`;
      return spawnSync("bash", ["-c", line, process.execPath, MAIN, ...words], {
        encoding: "utf8",
      }).stdout.trim();
    };
    assert.equal(complete("vol"), "volume");
    assert.equal(complete("volume", "re"), "rename");
    assert.equal(complete("volume", "create", "v", "--qu"), "--quota");
    assert.equal(complete("pool", "d"), "destroy");
  });

  it("zsh and fish get every verb", () => {
    for (const shell of ["zsh", "fish"]) {
      const { code, stdout } = runCli(["completion", shell]);
      assert.equal(code, 0);
      for (const verb of ["daemon", "umount", "rename", "--quota"])
        assert.ok(stdout.includes(verb), `${shell}: ${verb}`);
    }
  });
});

describe("with a daemon and no pool", () => {
  const place = new Place();
  before(() => place.start());
  after(() => place.remove());

  it("status is ready; --state stands before or after the verb, or in the environment", () => {
    const before = runCli(["--state", place.state, "status", "--json"]);
    const behind = runCli(["status", "--json", "--state", place.state]);
    for (const { code, stdout } of [before, behind, place.cli("status", "--json")]) {
      assert.equal(code, 0);
      const status = JSON.parse(stdout) as StatusAnswer;
      assert.equal(status.ready, true);
      assert.deepEqual([status.pools, status.volumes, status.mounts], [[], [], []]);
      assert.equal(status.state.path, place.state);
    }
    assert.match(place.cli("status").stdout, /^ready; version/);
  });

  it("lists are empty, in both forms", () => {
    assert.deepEqual(place.json("pool", "list"), []);
    assert.deepEqual(place.json("volume", "list"), []);
    assert.match(place.cli("pool", "list").stdout, /no pools/);
  });

  it("what is not there is NotFound", () => {
    assert.match(place.fails(4, "pool", "show", "p").message, /no pool p/);
    assert.match(place.fails(4, "volume", "show", "v").message, /no volume v/);
    assert.match(place.fails(4, "pool", "destroy", "p", "--yes").message, /no pool p/);
    assert.match(place.fails(4, "umount", place.folder).message, /nothing of this daemon is mounted/);
    const [mount = ""] = place.folders("m");
    assert.match(place.fails(4, "mount", "v", mount).message, /no volume v/);
  });

  it("bad drives are named", () => {
    const [empty = "", full = "", held = ""] = place.folders("empty", "full", "held");
    writeFileSync(join(full, "something"), "");
    writeFileSync(join(held, "superblock"), "");
    const create = (...drives: string[]) => [
      "pool",
      "create",
      "p",
      ...drives.flatMap((drive) => ["--drive", drive]),
    ];
    assert.match(place.fails(4, ...create(join(place.folder, "none"))).message, /none: no such file/);
    assert.match(place.fails(2, ...create(join(full, "something"))).message, /not a directory/);
    assert.match(place.fails(5, ...create(full)).message, /not empty/);
    assert.match(place.fails(5, ...create(held)).message, /has a superblock already/);
    assert.match(place.fails(2, ...create(empty, empty)).message, /named twice/);
    symlinkSync(empty, join(place.folder, "alias"));
    assert.match(place.fails(2, ...create(empty, join(place.folder, "alias"))).message, /named twice/);
    assert.deepEqual(place.json("pool", "list"), []);
  });

  it("bad names, sizes and options are named", () => {
    const [drive = "", mount = ""] = place.folders("drive", "mount");
    assert.match(place.fails(2, "pool", "create", "a b", "--drive", drive).message, /"a b" is not a name/);
    assert.match(
      place.fails(2, "pool", "create", "p", "--drive", drive, "--size", "big").message,
      /"big" is not a size/,
    );
    assert.match(place.fails(2, "volume", "create", "v@1", "--pool", "p").message, /is not a name/);
    assert.match(place.fails(2, "mount", "v", mount, "-o", "ro,bogus").hint, /known: .*allow_other/);
  });

  it("paths with newlines and invalid UTF-8 arrive as bytes", () => {
    const odd = Buffer.concat([Buffer.from(`${place.folder}/odd\n`), Buffer.from([0xff, 0xfe])]);
    mkdirSync(odd);
    writeFileSync(Buffer.concat([odd, Buffer.from("/file")]), "");
    // A shell hands the bytes over as they are; a JavaScript string could not.
    const quoted = `$'${[...odd].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}'`;
    const run = (args: string) =>
      spawnSync(
        "bash",
        ["-c", `"$0" "$1" --state "$2" --json ${args}`, process.execPath, MAIN, place.state],
        {
          encoding: "utf8",
        },
      );
    for (const args of [`pool create p --drive ${quoted}`, `pool create p --drive=${quoted}`]) {
      const created = run(args);
      assert.equal(created.status, 5, created.stderr);
      assert.match((JSON.parse(created.stderr) as ErrorBody).message, /odd\\x0a\\xff\\xfe is not empty/);
    }
    const unmounted = run(`umount ${quoted}`);
    assert.equal(unmounted.status, 4);
    assert.match(unmounted.stderr, /odd\\\\x0a\\\\xff\\\\xfe/);
  });
});

describe("tables", () => {
  it("align, and let no control character through", () => {
    const drawn = table(
      ["name", "size"],
      [
        ["a\x1b[2J", "1 KiB"],
        ["longer name", "12 KiB"],
      ],
      "",
    );
    assert.equal(drawn, "NAME           SIZE\na\\x1b[2J      1 KiB\nlonger name  12 KiB");
    assert.equal(table(["name"], [], "nothing"), "nothing");
  });

  it("sizes, times and bars", () => {
    assert.deepEqual([0, 1023, 1536, 2 ** 20, 150 * 2 ** 30].map(bytes), [
      "0 B",
      "1023 B",
      "1.5 KiB",
      "1.0 MiB",
      "150 GiB",
    ]);
    assert.deepEqual([0, 59, 3725, 90_000].map(duration), ["0s", "59s", "1h 2m", "1d 1h"]);
    assert.deepEqual(
      [bar(0, 10, 4), bar(5, 10, 4), bar(20, 10, 4), bar(1, 0, 4)],
      ["[....]", "[##..]", "[####]", "[....]"],
    );
  });
});
