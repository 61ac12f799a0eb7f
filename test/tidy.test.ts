// The house rules, run as a test.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { describe, it } from "node:test";
import { ROOT } from "./daemon-fixture.js";

const LINES_MAX = 500;
const LINE_CHARACTERS_MAX = 120;
const FUNCTION_LINES_MAX = 70;

interface Source {
  path: string;
  text: string;
  lines: string[];
}

function sourcesBelow(folder: string, ending: RegExp): Source[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => ending.test(name))
    .map((name) => {
      const text = readFileSync(join(ROOT, folder, name), "utf8");
      return { path: join(folder, name), text, lines: text.split("\n") };
    });
}

/** What a room may import, besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  cli: [],
  daemon: ["nearsync-lws", "ec", "io-path"],
  "nearsync-lws": ["io-path"],
  ec: ["io-path"],
  "io-path": [],
};

/** Exceptions, each with its reason in the file. */
const ALSO: Readonly<Record<string, RegExp>> = {
  // Protocol types only; and `holdfast daemon` becomes the daemon.
  cli: /^src\/daemon\/protocol\.ts$/,
};
const DAEMON_VERB = "src/cli/verbs/daemon.ts";

/** Rust tests that cargo skips: not checks of their own, but started by another test or by hand. */
const IGNORED: readonly string[] = [
  "native/format/tests/bytes/fuzz.rs: grow_the_corpus",
  "native/fuse/src/handler/fuzz.rs: grow_the_corpus",
  "native/fuse/tests/server/mod.rs: serve_until_killed",
  "native/store/tests/crash.rs: one_seed",
  "native/store/tests/flips.rs: every_flipped_byte_of_a_superblock_is_mended",
  "native/store/tests/flips.rs: every_flipped_byte_of_the_first_manifest_is_mended",
  "native/store/tests/flips.rs: every_flipped_byte_of_the_second_manifest_is_mended",
  "native/store/tests/flips.rs: every_flipped_byte_of_the_slabs_is_mended_or_refused",
  "native/store/tests/history/main.rs: every_point_reads_as_it_was_in_many_histories",
  "native/store/tests/space.rs: a_pool_full_of_tiny_files_can_be_emptied",
];

/** The function that an attribute stands over. */
function nameBelow(lines: readonly string[], index: number): string {
  const line = lines.slice(index).find((text) => /\bfn \w+/.test(text));
  return /\bfn (\w+)/.exec(line ?? "")?.[1] ?? "";
}

interface Import {
  from: string;
  to: string;
}

function importsOf(source: Source): Import[] {
  const found = source.text.matchAll(/(?:\bfrom\s+|\bimport\s*\(\s*|^import\s+)["']([^"']+)["']/gm);
  return [...found].map((match) => ({ from: source.path, to: resolveImport(source.path, match[1] ?? "") }));
}

function resolveImport(from: string, specifier: string): string {
  if (!specifier.startsWith(".")) return specifier;
  return relative(ROOT, join(ROOT, dirname(from), specifier)).replace(/\.js$/, ".ts");
}

function roomOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

function breaksTheOneWayRule({ from, to }: Import): boolean {
  const room = roomOf(from) ?? "";
  const target = roomOf(to);
  if (target === undefined || target === room || (MAY_IMPORT[room] ?? []).includes(target)) return false;
  if (from === DAEMON_VERB && to === "src/daemon/run.ts") return false;
  return ALSO[room]?.test(to) !== true;
}

const sources = sourcesBelow("src", /\.ts$/);
const tests = sourcesBelow("test", /\.ts$/);
const everything = [...sources, ...tests];
const rust = sourcesBelow("native", /^(?!target\/).*\.rs$/);
const imports = sources.flatMap(importsOf);

describe("tidy", () => {
  it("sees the sources and their imports", () => {
    assert.ok(sources.length > 30, `${sources.length} sources`);
    assert.ok(imports.some(({ to }) => to === "src/io-path/errors.ts"));
    assert.ok(imports.some(({ from, to }) => from === DAEMON_VERB && to === "src/daemon/run.ts"));
  });

  it("imports go one way", () => {
    assert.deepEqual(imports.filter(breaksTheOneWayRule), []);
    assert.ok(breaksTheOneWayRule({ from: "src/io-path/pool.ts", to: "src/daemon/log.ts" }));
    assert.ok(breaksTheOneWayRule({ from: "src/cli/client.ts", to: "src/io-path/pool.ts" }));
    assert.ok(breaksTheOneWayRule({ from: "src/cli/client.ts", to: "src/daemon/config.ts" }));
    assert.ok(breaksTheOneWayRule({ from: "src/ec/scrub.ts", to: "src/nearsync-lws/session.ts" }));
  });

  it("every room has its rule", () => {
    const rooms = new Set(sources.map(({ path }) => roomOf(path)));
    for (const room of rooms) assert.ok(room !== undefined && room in MAY_IMPORT, `no rule for src/${room}`);
  });

  it("one file imports the addon; types may come through where errors are named", () => {
    const doors = imports
      .filter(({ to }) => to === "#native" || to.includes("native/"))
      .map(({ from }) => from);
    assert.deepEqual([...new Set(doors)].sort(), ["src/io-path/addon.ts", "src/io-path/errors.ts"]);
    const errors = sources.find(({ path }) => path === "src/io-path/errors.ts");
    assert.match(errors?.text ?? "", /^import type \{ FailureCode \} from "#native";$/m);
  });

  it("no import cycles", () => {
    const graph = new Map<string, string[]>();
    for (const { from, to } of imports) graph.set(from, [...(graph.get(from) ?? []), to]);
    assert.deepEqual(cycleIn(graph), undefined);
    assert.deepEqual(
      cycleIn(
        new Map([
          ["a", ["b"]],
          ["b", ["a"]],
        ]),
      ),
      ["a", "b", "a"],
    );
  });

  it("files, lines and functions stay small", () => {
    const long = everything.filter(({ lines }) => lines.length > LINES_MAX).map(({ path }) => path);
    assert.deepEqual(long, [], `files over ${LINES_MAX} lines`);
    const wide = everything.flatMap(({ path, lines }) =>
      lines.flatMap((line, index) => (line.length > LINE_CHARACTERS_MAX ? [`${path}:${index + 1}`] : [])),
    );
    assert.deepEqual(wide, [], `lines over ${LINE_CHARACTERS_MAX} characters`);
    assert.deepEqual(sources.flatMap(longFunctions), [], `functions over ${FUNCTION_LINES_MAX} lines`);
  });

  it("nothing is left for later, nothing is cast away", () => {
    // The words are put together here, so that this file does not find itself.
    const banned = [
      `\\b${"TO"}DO\\b`,
      `\\b${"FIX"}ME\\b`,
      `\\bas ${"any"}\\b`,
      `: ${"any"}\\b[,;)=>\\[]`,
      `@ts-${"(?:ignore|nocheck)"}`,
    ];
    const rule = new RegExp([...banned, `catch \\{\\s*\\}`].join("|"));
    const found = everything.flatMap(({ path, lines }) =>
      lines.flatMap((line, index) => (rule.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
    );
    assert.deepEqual(found, []);
  });

  it("unsafe code is where the kernel or Node is talked to, and nowhere else", () => {
    // twin is a program of the tests, which makes system calls itself.
    const MAY = ["device", "fuse", "node", "ec", "twin"];
    const crates = new Set(rust.map(({ path }) => path.split("/")[1] ?? ""));
    for (const crate of [...crates].filter((name) => !MAY.includes(name))) {
      const library = rust.find(({ path }) => path === `native/${crate}/src/lib.rs`);
      assert.match(library?.text ?? "", /^#!\[forbid\(unsafe_code\)\]$/m, `native/${crate}/src/lib.rs`);
    }
  });

  it("no Rust test is left out: those that cargo ignores are programs for other tests, and listed", () => {
    const found = rust.flatMap(({ path, lines }) =>
      lines.flatMap((line, index) =>
        /^\s*#\[(?:cfg_attr\(.*)?ignore\b/.test(line) ? [`${path}: ${nameBelow(lines, index)}`] : [],
      ),
    );
    assert.ok(rust.length > 50, `${rust.length} Rust sources`);
    assert.deepEqual(found.sort(), [...IGNORED].sort());
  });

  it("every source says on top what it is for", () => {
    const silent = everything
      .filter(({ lines }) => !/^(?:\/\/|#!)/.test(lines[0] ?? ""))
      .map(({ path }) => path);
    assert.deepEqual(silent, []);
  });
});

function longFunctions({ path, lines }: Source): string[] {
  const found: string[] = [];
  for (const [index, line] of lines.entries()) {
    const start =
      /^( *)(?:export )?(?:async )?(?:function\b|(?:static |async |private )*#?\w+\(.*\).*\{$)/.exec(line);
    if (start === null || /^\s*(?:if|for|while|switch|return)\b/.test(line)) continue;
    const end = lines.indexOf(`${start[1]}}`, index);
    if (end - index + 1 > FUNCTION_LINES_MAX) found.push(`${path}:${index + 1}: ${end - index + 1} lines`);
  }
  return found;
}

/** Nodes of one cycle, the first repeated at the end. */
function cycleIn(graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (node: string, path: readonly string[]): string[] | undefined => {
    const seen = path.indexOf(node);
    if (seen >= 0) return [...path.slice(seen), node];
    if (done.has(node)) return undefined;
    for (const next of graph.get(node) ?? []) {
      const cycle = visit(next, [...path, node]);
      if (cycle !== undefined) return cycle;
    }
    done.add(node);
    return undefined;
  };
  for (const node of graph.keys()) {
    const cycle = visit(node, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}
