// Configuration, units, names, mount options: what is taken and how mistakes are named.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseConfig } from "../../src/daemon/config.js";
import { parseMountOptions } from "../../src/daemon/mount-options.js";
import { checkName } from "../../src/daemon/names.js";
import { match } from "../../src/daemon/server.js";
import { parseDuration, parseSize } from "../../src/daemon/units.js";
import { HoldfastError } from "../../src/io-path/errors.js";

/** Matches an `Invalid` failure whose message and hint contain these words. */
function invalid(...words: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof HoldfastError, String(error));
    assert.equal(error.code, "Invalid");
    for (const word of words)
      assert.ok(`${error.message} ${error.hint}`.includes(word), `${word} in: ${error.message}`);
    return true;
  };
}

describe("configuration", () => {
  it("an empty file is the defaults", () => {
    const config = parseConfig("", "f");
    assert.equal(config.memory.metadataCacheBytes, 128 * 2 ** 20);
    assert.equal(config.memory.dataCacheBytes, 256 * 2 ** 20);
    assert.equal(config.stop.graceSeconds, 5);
    assert.equal(config.history.windowSeconds, 3600);
    assert.deepEqual(
      config.history.thin.map(({ everySeconds, forSeconds }) => [everySeconds, forSeconds / 86_400]),
      [
        [60, 1],
        [3600, 7],
        [86_400, 30],
      ],
    );
    assert.equal(parseConfig("history: {window: 25h}", "f").history.thin.length, 2);
    assert.equal(config.log.level, "info");
    assert.deepEqual(parseConfig("# only a comment\n", "f"), config);
  });

  it("takes sizes, times and shares with units", () => {
    const text =
      "memory: {metadata_cache: 64MiB, ring: 16M}\nhistory: {window: 2h, thin: '5m:3d,1h:1w', limit: 35%}\n" +
      "stop: {grace: 250ms}";
    const config = parseConfig(text, "f");
    assert.equal(config.memory.metadataCacheBytes, 64 * 2 ** 20);
    assert.equal(config.memory.ringBytes, 16 * 2 ** 20);
    assert.equal(config.history.windowSeconds, 2 * 3600);
    assert.deepEqual(config.history.thin, [
      { everySeconds: 300, forSeconds: 3 * 86_400 },
      { everySeconds: 3600, forSeconds: 7 * 86_400 },
    ]);
    assert.equal(config.history.limitPercent, 35);
    assert.equal(config.stop.graceSeconds, 0.25);
  });

  const mistakes: [string, string[]][] = [
    [
      "memry: {}",
      [
        "unknown key memry",
        "allowed at the top: log, memory, history, rebuild, stop, replication, runtime_dir",
      ],
    ],
    [
      "memory: {cache: 1MiB}",
      ["unknown key memory.cache", "allowed in memory: metadata_cache, data_cache, memtable, ring"],
    ],
    ["memory: {ring: lots}", ["memory.ring", "lots"]],
    ["memory: {ring: 1KiB}", ["memory.ring", "must be from"]],
    ["memory: {data_cache: 1KiB}", ["memory.data_cache", "must be 0 or from"]],
    ["memory: 3", ["memory"]],
    ["log: {level: loud}", ["log.level"]],
    ["history: {window: 3}", ["history.window", "write it like"]],
    ["history: {window: 37h}", ["history.window", "at most 129600 s"]],
    ["history: {thin: 1m}", ["history.thin", "1m:24h,1h:7d"]],
    ["history: {limit: 95%}", ["history.limit", "90%"]],
    ["runtime_dir: run", ["runtime_dir", "absolute"]],
    ["- a list", ["the file"]],
    ["log: {level: info", ["configuration f"]],
    ["log: {}\nlog: {}", ["unique"]],
  ];
  for (const [text, words] of mistakes) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseConfig(text, "f"), invalid("configuration f", ...words));
    });
  }
});

describe("units", () => {
  it("sizes", () => {
    const cases = {
      "4096": 4096,
      "64MiB": 2 ** 26,
      "64 mib": 2 ** 26,
      "1.5GiB": 1.5 * 2 ** 30,
      "2TB": 2e12,
      "4G": 2 ** 32,
    };
    for (const [text, bytes] of Object.entries(cases)) assert.equal(parseSize(text, "size"), bytes, text);
    assert.equal(parseSize(0, "size"), 0);
    for (const bad of [
      "",
      "MiB",
      "-1",
      "1XB",
      "1e3",
      "1 2",
      "0x10",
      "constructor",
      "9999999PB",
      -1,
      0.5,
      Number.NaN,
    ]) {
      assert.throws(() => parseSize(bad, "size"), invalid("size"), `${bad}`);
    }
  });

  it("times need a unit", () => {
    const cases = { "250ms": 0.25, "1s": 1, "90m": 5400, "2h": 7200, "7d": 604_800 };
    for (const [text, seconds] of Object.entries(cases))
      assert.equal(parseDuration(text, "time"), seconds, text);
    for (const bad of ["", "5", "s", "-1s", "1y", 5])
      assert.throws(() => parseDuration(bad, "time"), invalid("time"));
  });
});

describe("names", () => {
  it("are 1 to 63 letters, digits, dots, underscores, hyphens", () => {
    for (const good of ["a", "0", "a.b_c-d", "A".repeat(63)]) assert.equal(checkName("volume", good), good);
    for (const bad of ["", "-a", ".a", "a@b", "a/b", "a b", "a\n", "ä", "A".repeat(64), "../x"]) {
      assert.throws(() => checkName("volume", bad), invalid("volume", "is not a name"), bad);
    }
  });
});

describe("mount options", () => {
  it("are safe by default, and the last word wins", () => {
    const safe = {
      allowOther: false,
      suid: false,
      dev: false,
      readOnly: false,
      noatime: false,
      noexec: false,
      transport: "auto",
    };
    assert.deepEqual(parseMountOptions([]), safe);
    assert.deepEqual(parseMountOptions(["defaults", "rw"]), safe);
    assert.equal(parseMountOptions(["ro", "rw", "ro"]).readOnly, true);
    assert.deepEqual(parseMountOptions(["suid", "dev", "nosuid"]), { ...safe, dev: true });
    assert.equal(parseMountOptions(["allow_other"]).allowOther, true);
    assert.equal(parseMountOptions(["transport=uring", "transport=dev"]).transport, "dev");
  });

  it("unknown ones are refused with the known ones", () => {
    for (const bad of ["bogus", "", "RO", "constructor", "ro,rw", "transport=fast", "transport"]) {
      assert.throws(() => parseMountOptions([bad]), invalid("mount option", "allow_other"), bad);
    }
  });
});

describe("paths of the API", () => {
  it("match whole segments and decode them", () => {
    assert.deepEqual(match("/v1/pools/:name", "/v1/pools/a%20b"), ["a b"]);
    assert.equal(match("/v1/pools/:name", "/v1/pools"), undefined);
    assert.equal(match("/v1/pools/:name", "/v1/pools/a/b"), undefined);
    assert.throws(() => match("/v1/pools/:name", "/v1/pools/%zz"), invalid("percent"));
  });
});
