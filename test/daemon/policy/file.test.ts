// The policy file and schedules: what is taken, and how mistakes are named.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parsePolicies } from "../../../src/daemon/policy/file.js";
import { parseUntil } from "../../../src/daemon/policy/forecast.js";
import { parseCron, parseEvery } from "../../../src/daemon/policy/schedule.js";
import { freeName, isOwn } from "../../../src/daemon/policy/snapshot-name.js";
import { HoldfastError } from "../../../src/io-path/errors.js";

const GOOD = `# of the house
policies:
  home:
    targets: [home, mail]
    every: 1h
    keep: 24x1h 14×1d 8x1w
    before: {run: [/bin/freeze, now], timeout: 30s}
    after: {run: [/bin/thaw], on_failure: abort}
  nightly:
    targets: [home]
    cron: "0 3 * * *"
    timezone: Europe/Berlin
    prefix: night
    hold: true
`;

function refusal(text: string): string {
  try {
    parsePolicies(text, "p.yaml");
  } catch (error) {
    assert.ok(error instanceof HoldfastError, String(error));
    assert.equal(error.code, "Invalid");
    return error.message;
  }
  return assert.fail(`was taken: ${text}`);
}

describe("policy file", () => {
  it("is read, with defaults", () => {
    const [home, nightly] = parsePolicies(GOOD, "p.yaml");
    assert.deepEqual([home?.name, home?.prefix, home?.targets], ["home", "home", ["home", "mail"]]);
    assert.deepEqual(
      home?.rules.map(({ text }) => text),
      ["24x1h", "14x1d", "8x1w"],
    );
    assert.deepEqual(home?.before, { run: ["/bin/freeze", "now"], timeoutSeconds: 30, abort: true });
    assert.deepEqual(home?.after, { run: ["/bin/thaw"], timeoutSeconds: 60, abort: true });
    assert.deepEqual([nightly?.prefix, nightly?.hold, nightly?.before], ["night", true, undefined]);
    assert.equal(nightly?.schedule.text, "cron 0 3 * * * (Europe/Berlin)");
  });

  it("may be empty of policies, use anchors, give the grid as a list", () => {
    assert.deepEqual(parsePolicies("policies: {}", "p"), []);
    const text = "policies:\n  a: &a {targets: [v], every: 1h, keep: [1x1h, 2x1d]}\n  b: *a\n";
    assert.deepEqual(
      parsePolicies(text, "p").map(({ prefix, rules }) => [prefix, rules.length]),
      [
        ["a", 2],
        ["b", 2],
      ],
    );
  });

  const policy = (lines: string) => `policies:\n  home:\n${lines.replace(/^/gm, "    ")}\n`;
  const rest = "targets: [v]\nevery: 1h\nkeep: 1x1h\n";
  const mistakes: [string, string, RegExp][] = [
    ["nothing at all", "", /^p\.yaml:1:1: policies: must be a map from names to policies$/],
    ["a list", "- a", /^p\.yaml:1:1: .*must have policies/],
    ["broken YAML", "policies: {a: [}", /^p\.yaml:1:16: /],
    ["a field twice", "policies: {}\npolicies: {}", /^p\.yaml:2:1: .*unique/],
    [
      "an unknown field on top",
      "policies: {}\npolicy: {}",
      /^p\.yaml:2:1: policy: unknown field; allowed: policies$/,
    ],
    [
      "an unknown field",
      policy(`${rest}evry: 1h`),
      /^p\.yaml:6:5: policies\.home\.evry: unknown field; allowed: targets, every, .*, hold, prefix, before, after$/,
    ],
    [
      "an unknown field of a hook",
      policy(`${rest}before:\n  run: [a]\n  shell: true`),
      /^p\.yaml:8:7: policies\.home\.before\.shell: unknown field; allowed: run, timeout, on_failure$/,
    ],
    ["no targets", policy("every: 1h"), /^p\.yaml:2:3: policies\.home\.targets: must be a list of volumes/],
    [
      "empty targets",
      policy("every: 1h\ntargets: []"),
      /^p\.yaml:4:14: policies\.home\.targets: must be a list/,
    ],
    [
      "a target that is no name",
      policy("every: 1h\ntargets: [v, a/b]"),
      /^p\.yaml:4:18: policies\.home\.targets\.1: .*not a name/,
    ],
    ["a target twice", policy("every: 1h\ntargets: [v, v]"), /^p\.yaml:4:14: .*named twice/],
    ["no schedule", policy("targets: [v]"), /^p\.yaml:2:3: policies\.home: needs one of every and cron/],
    ["two schedules", policy(`${rest}cron: "0 3 * * *"`), /needs one of every and cron/],
    [
      "a bad time",
      policy("targets: [v]\nevery: soon"),
      /^p\.yaml:4:12: policies\.home\.every: "soon" is not a time: write it like 15m/,
    ],
    [
      "a number for a time",
      policy("targets: [v]\nevery: 15"),
      /^p\.yaml:4:12: policies\.home\.every: must be text: write it like 15m/,
    ],
    ["never", policy("targets: [v]\nevery: 0s"), /from 1s to 366d/],
    [
      "a bad cron",
      policy('targets: [v]\ncron: "61 * * * *"'),
      /^p\.yaml:4:11: policies\.home\.cron: "61 \* \* \* \*" is not a cron expression .*minute, hour/,
    ],
    ["six cron fields", policy('targets: [v]\ncron: "0 0 3 * * *"'), /is not a cron expression/],
    ["a cron that never comes", policy('targets: [v]\ncron: "0 0 31 2 *"'), /^p\.yaml:4:11: .*never comes/],
    [
      "a bad zone",
      policy('targets: [v]\ncron: "0 3 * * *"\ntimezone: Mars/Base'),
      /^p\.yaml:5:15: policies\.home\.timezone: "Mars\/Base" is not a time zone/,
    ],
    [
      "a zone with every",
      policy(`${rest}timezone: UTC`),
      /^p\.yaml:6:15: policies\.home\.timezone: goes with cron only/,
    ],
    [
      "a bad grid",
      policy("targets: [v]\nevery: 1h\nkeep: 24q1h"),
      /^p\.yaml:5:11: policies\.home\.keep: "24q1h" is not part of a grid: write it like 24x1h/,
    ],
    ["keep and hold", policy(`${rest}hold: true`), /^p\.yaml:5:11: policies\.home\.keep: goes without hold/],
    ["a bad prefix", policy(`${rest}prefix: -x`), /^p\.yaml:6:13: policies\.home\.prefix: must have 1 to 39/],
    ["a prefix that is too long", policy(`${rest}prefix: ${"x".repeat(40)}`), /must have 1 to 39/],
    [
      "a shell line as a hook",
      policy(`${rest}before: sync`),
      /^p\.yaml:6:13: policies\.home\.before: must have run: a list: the program/,
    ],
    [
      "an empty hook",
      policy(`${rest}before: {run: []}`),
      /^p\.yaml:6:19: policies\.home\.before\.run: must be a list: the program/,
    ],
    [
      "a hook without limit",
      policy(`${rest}before: {run: [a], timeout: 2h}`),
      /before\.timeout: "2h" is not a time limit: write it like 30s or 5m, at most 1h/,
    ],
    [
      "an odd on_failure",
      policy(`${rest}after: {run: [a], on_failure: retry}`),
      /after\.on_failure: must be abort or continue/,
    ],
    [
      "a policy that is a word",
      "policies: {a: daily}",
      /^p\.yaml:1:15: policies\.a: must have targets, every or cron, and keep or hold/,
    ],
    [
      "a bad name",
      'policies: {"a b": {targets: [v], every: 1h}}',
      /^p\.yaml:1:12: policies\.a b: a policy's name/,
    ],
    [
      "one prefix twice",
      "policies:\n  a: {targets: [v], every: 1h}\n  b: {targets: [w], every: 1h, prefix: a}",
      /^p\.yaml:3:3: policies\.b: the prefix a is that of policy a already/,
    ],
  ];
  for (const [what, text, words] of mistakes) {
    it(`refuses ${what}`, () => {
      assert.match(refusal(text), words);
    });
  }

  it("names every mistake at once, ten at most", () => {
    const both = refusal("policies:\n  a: {targets: [v], every: x}\n  b: {targets: [v], every: y}\n");
    assert.equal(both.split("\n").length, 2);
    const many = Array.from({ length: 30 }, (_none, index) => `  p${index}: {targets: [v], every: x}`).join(
      "\n",
    );
    assert.match(refusal(`policies:\n${many}\n`), /\nand 20 more$/);
  });

  it("refuses what is too large, and aliases that unfold without end", () => {
    assert.match(refusal(`# ${"x".repeat(300_000)}`), /at most 262144 characters/);
    const nine = (name: string) => `[${`*${name},`.repeat(9)}]`;
    const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b ${nine("a")}\nc: &c ${nine("b")}\nd: ${nine("c")}`;
    assert.match(refusal(bomb), /alias/i);
  });
});

describe("schedules", () => {
  const iso = (ms: number) => new Date(ms).toISOString();
  const at = (text: string) => Date.parse(text);

  it("every: aligned in UTC, weeks on Monday, always later", () => {
    const cases: [string, string, string][] = [
      ["15m", "2026-11-28T05:14:59.999Z", "2026-11-28T05:15:00.000Z"],
      ["15m", "2026-11-28T05:15:00Z", "2026-11-28T05:30:00.000Z"],
      ["1d", "2026-11-28T05:15:00Z", "2026-11-29T00:00:00.000Z"],
      ["1w", "2026-11-28T05:15:00Z", "2026-11-30T00:00:00.000Z"],
      ["2s", "2026-11-28T05:15:00Z", "2026-11-28T05:15:02.000Z"],
    ];
    for (const [every, from, next] of cases)
      assert.equal(iso(parseEvery(every).after(at(from))), next, every);
  });

  it("cron: in its zone, over both changes of the clock", () => {
    const berlin = parseCron("30 2 * * *", "Europe/Berlin");
    const run = (from: string) => iso(berlin.after(at(from)));
    assert.equal(run("2026-11-28T05:00:00Z"), "2026-11-29T01:30:00.000Z");
    assert.equal(run("2026-11-29T01:30:00Z"), "2026-11-30T01:30:00.000Z", "strictly later");
    assert.equal(run("2026-11-29T01:29:59.500Z"), "2026-11-29T01:30:00.000Z");
    // 02:30 does not exist on 2026-03-29, and comes twice on 2026-10-25: each is one run.
    const over = (from: string, days: number) => {
      const runs: string[] = [];
      for (let now = at(from); runs.length < days;) {
        now = berlin.after(now);
        runs.push(iso(now).slice(0, 10));
      }
      return runs;
    };
    assert.deepEqual(over("2026-03-28T00:00:00Z", 3), ["2026-03-28", "2026-03-29", "2026-03-30"]);
    assert.deepEqual(over("2026-10-24T00:00:00Z", 3), ["2026-10-24", "2026-10-25", "2026-10-26"]);
    assert.equal(
      iso(parseCron("@daily", "UTC").after(at("2026-11-28T05:00:00Z"))),
      "2026-11-29T00:00:00.000Z",
    );
  });

  it("until: a span from now, or a moment that is not past", () => {
    const now = at("2026-11-28T05:00:00Z");
    assert.equal(iso(parseUntil("7d", now)), "2026-12-05T05:00:00.000Z");
    assert.equal(iso(parseUntil("2026-12-24", now)), "2026-12-24T00:00:00.000Z");
    assert.equal(iso(parseUntil("2026-12-24T18:00:00+01:00", now)), "2026-12-24T17:00:00.000Z");
    for (const bad of ["", "soon", "2026-13-01", "2020-01-01", "12"]) {
      assert.throws(() => parseUntil(bad, now), HoldfastError, bad);
    }
  });
});

describe("names of snapshots", () => {
  it("tell the second, and take the next number where it is taken", () => {
    const ms = Date.parse("2026-11-28T05:30:00.999Z");
    const first = "home-2026-11-28T05-30-00Z";
    assert.equal(freeName("home", ms, new Set()), first);
    assert.equal(freeName("home", ms, new Set([first, `${first}-2`])), `${first}-3`);
    const all = Array.from({ length: 100 }, (_none, index) =>
      index === 0 ? first : `${first}-${index + 1}`,
    );
    assert.equal(freeName("home", ms, new Set(all)), undefined);
    assert.ok((freeName("x".repeat(39), ms, new Set()) ?? "").length <= 60);
  });

  it("are a policy's own only in their whole form", () => {
    assert.ok(isOwn("home", "home-2026-11-28T05-30-00Z"));
    assert.ok(isOwn("home", "home-2026-11-28T05-30-00Z-12"));
    for (const other of [
      "home",
      "home-by-hand",
      "home-2026-11-28",
      "home-old-2026-11-28T05-30-00Z",
      "Home-2026-11-28T05-30-00Z",
    ]) {
      assert.ok(!isOwn("home", other), other);
    }
    assert.ok(!isOwn("h", "home-2026-11-28T05-30-00Z"));
  });
});
