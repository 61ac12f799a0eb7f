// Bytes on the wire: the worked examples of WIRE.md, and what becomes of bytes that nobody meant.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { decodeDescription, encodeDescription } from "../../src/nearsync-lws/description.js";
import { HoldfastError } from "../../src/io-path/errors.js";
import { parseInvite, writeInvite } from "../../src/nearsync-lws/invite.js";
import {
  CHUNK_BYTES_MAX,
  LOST_FILES_MAX,
  LOST_PATH_BYTES_MAX,
  OTHERS_MAX,
  DEPTH_MAX,
  ITEMS_MAX,
} from "../../src/nearsync-lws/limits.js";
import { decodeChunk, encodeChunk } from "../../src/nearsync-lws/wire/chunk.js";
import type { Chunk } from "../../src/nearsync-lws/wire/chunk.js";
import { RESERVED, decodeMessage, encodeMessage } from "../../src/nearsync-lws/wire/control.js";
import type { Body } from "../../src/nearsync-lws/wire/control.js";
import { OURS, agree, joinProof, requireSame, sessionKeys } from "../../src/nearsync-lws/wire/handshake.js";
import { pack, unpack } from "../../src/nearsync-lws/wire/pack.js";
import { ROOT } from "../daemon-fixture.js";
import { failsWith } from "./fixture.js";
import { randomOf } from "./random.js";

const WIRE = readFileSync(join(ROOT, "src/nearsync-lws/WIRE.md"), "utf8");

/** The hexadecimal block of WIRE.md that follows a line `Example NAME`. */
function example(name: string): string {
  const found = new RegExp(`^Example ${name}[^\\n]*\\n+\`\`\`\\n([^\`]*)\`\`\``, "m").exec(WIRE);
  assert.ok(found?.[1] !== undefined, `WIRE.md has no example ${name}`);
  return found[1].replace(/\s+/g, "");
}

const GROUP = "000102030405060708090a0b0c0d0e0f";
const EPOCH = "1112131415161718";
const lostFile = {
  ...{ branch: 1, inode: 42, path: Buffer.from("a/b") },
  ...{ ops: 60, bytes: 240_000, fsyncedOps: 50 },
};
const accounted = {
  ...{ ask: 4, first: 810, last: 900, ops: 60, bytes: 240_000, files: 1 },
  ...{ fsyncedOps: 50, fsyncedBytes: 200_000, fsyncedFiles: 1, isExact: true },
  named: [lostFile],
};
const chunk: Chunk = {
  group: GROUP,
  epochId: EPOCH,
  base: 1000,
  target: 1234,
  stream: 5,
  sequence: 2,
  last: true,
  cursor: Buffer.from("cursor"),
  payload: Buffer.from("payload"),
};
const hello: Body<"hello"> = {
  versions: [1, 1],
  features: ["batches"],
  needs: ["batches"],
  site: "north",
  nonce: Buffer.alloc(16, 0xaa),
};

describe("the examples of WIRE.md", () => {
  it("invite", () => {
    const invite = {
      address: { host: "192.0.2.7", port: 7422 },
      keyHash: Buffer.from(GROUP, "hex"),
      secret: Buffer.from("0123456789"),
    };
    assert.equal(writeInvite(invite), example("invite"));
    assert.deepEqual(parseInvite(example("invite")), invite);
  });

  it("chunk", () => {
    assert.equal(encodeChunk(chunk).toString("hex"), example("chunk"));
    assert.deepEqual(decodeChunk(Buffer.from(example("chunk"), "hex")), chunk);
  });

  it("credit, begin, grant, taken, ask, successor, account, accounted and hello", () => {
    const begin = {
      group: GROUP,
      stream: 5,
      epochId: EPOCH,
      base: null,
      target: { lsn: 7, timeNs: 10n ** 18n, bootNs: 5n, name: "" },
    };
    const by = { group: "f".repeat(32), epochId: "2122232425262728", lsn: 77 };
    const successor = {
      group: "202122232425262728292a2b2c2d2e2f",
      epochId: "2122232425262728",
      lsn: 7,
      of: EPOCH,
      at: 5,
      timeNs: 10n ** 18n,
    };
    for (const [type, number, body] of [
      ["credit", 7, { group: GROUP, stream: 5, bytesMax: 4 * 2 ** 20 }],
      ["begin", 8, begin],
      ["grant", 9, { group: GROUP, epochId: EPOCH, lsn: 1234 }],
      ["taken", 9, { group: GROUP, lsn: 1234, by }],
      ["ask", 9, { ask: 3, group: GROUP, epochId: EPOCH, lsn: null }],
      ["successor", 10, { ask: 3, successor }],
      ["account", 11, { ask: 4, group: GROUP, epochId: EPOCH, above: 809, until: null }],
      ["accounted", 12, accounted],
      ["hello", 0, hello],
      ["prove", 3, { group: GROUP, epochId: EPOCH, lsn: 7, proof: 2, question: Buffer.from("what") }],
    ] as const) {
      const frame = Buffer.from(example(type), "hex");
      assert.equal(encodeMessage(type, number, body as never).toString("hex"), frame.toString("hex"));
      const decoded = decodeMessage(frame, number);
      assert.deepEqual(JSON.stringify(decoded, plain), JSON.stringify({ type, body }, plain));
    }
  });

  it("handshake", () => {
    const server = encodeMessage("hello", 0, hello);
    const client = encodeMessage("hello", 0, { ...hello, site: "south", nonce: Buffer.alloc(16, 0xbb) });
    const keys = sessionKeys(Buffer.alloc(32, 1), server, client);
    assert.equal(keys.clientProof.toString("hex"), example("client proof"));
    assert.equal(keys.serverProof.toString("hex"), example("server proof"));
    assert.equal(keys.id.toString("hex"), example("session id"));
    const join = joinProof(keys.key, Buffer.alloc(32, 2), Buffer.alloc(16, 3));
    assert.equal(join.toString("hex"), example("join proof"));
    // Everything that either side said is in it.
    const changed = [
      sessionKeys(Buffer.alloc(32, 2), server, client),
      sessionKeys(Buffer.alloc(32, 1), client, server),
      sessionKeys(Buffer.alloc(32, 1), server, encodeMessage("hello", 0, { ...hello, features: [] })),
    ];
    for (const other of changed) {
      assert.throws(
        () => requireSame(other.clientProof, keys.clientProof, "proof"),
        failsWith("Denied", "replayed"),
      );
    }
    assert.throws(() => requireSame(Buffer.alloc(0), keys.clientProof, "proof"), failsWith("Denied"));
  });

  it("names every reserved number", () => {
    for (const [number, name] of Object.entries(RESERVED)) {
      assert.match(WIRE, new RegExp(`\\| ${number} \\| \`${name}\``));
      assert.throws(() => decodeMessage(pack([Number(number), 0, {}]), 0), failsWith("Invalid", name));
    }
  });
});

function plain(_key: string, value: unknown): unknown {
  if (typeof value === "bigint") return `${value}n`;
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  const json = value as { type?: unknown; data?: unknown } | null;
  return json?.type === "Buffer" ? Buffer.from(json.data as number[]).toString("hex") : value;
}

describe("versions and features", () => {
  const theirs = (change: object) => ({ ...hello, ...change });
  it("the highest that both speak, the features of both", () => {
    const wide = { versions: [2, 5] as const, features: ["a", "b", "c"], needs: ["b"] };
    const said = theirs({ versions: [3, 9], features: ["c", "b", "x"], needs: ["c"] });
    assert.deepEqual(agree(wide, said), { version: 5, features: ["b", "c"] });
  });
  it("none in common, or a need that is not met: says which daemon is to be updated", () => {
    const cases: [object, string][] = [
      [{ versions: [2, 3] }, "update this daemon"],
      [{ versions: [0, 0] }, "update the peer's daemon"],
      [{ needs: ["x"] }, "needs x"],
      [{ features: [], needs: [] }, "needs batches"],
    ];
    for (const [change, words] of cases) {
      assert.throws(() => agree(OURS, theirs(change)), failsWith("Unavailable", words));
    }
  });
});

describe("bytes that nobody meant", () => {
  const refuses = (decode: () => unknown) => {
    try {
      decode();
      return false;
    } catch (error) {
      assert.ok(error instanceof HoldfastError && error.code === "Invalid", String(error));
      return true;
    }
  };

  it("a chunk with any bit flipped, cut or extended is refused", () => {
    const whole = encodeChunk(chunk);
    for (let bit = 0; bit < whole.length * 8; bit += 1) {
      const flipped = Buffer.from(whole);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      assert.ok(
        refuses(() => decodeChunk(flipped)),
        `bit ${bit}`,
      );
    }
    for (let length = 0; length < whole.length; length += 1) {
      assert.ok(
        refuses(() => decodeChunk(whole.subarray(0, length))),
        `length ${length}`,
      );
    }
    assert.ok(refuses(() => decodeChunk(Buffer.concat([whole, Buffer.alloc(1)]))));
    const wrong: Partial<Chunk>[] = [
      { payload: Buffer.alloc(CHUNK_BYTES_MAX + 1) },
      { cursor: Buffer.alloc(257) },
      { target: 1000 },
      { target: 999 },
      { last: false, payload: Buffer.alloc(0) },
    ];
    for (const change of wrong) assert.ok(refuses(() => decodeChunk(encodeChunk({ ...chunk, ...change }))));
  });

  it("MessagePack that is deep, wide, long, cut, of other types or followed by more is not decoded", () => {
    const bad = [
      Buffer.alloc(0),
      Buffer.alloc(DEPTH_MAX + 2, 0x91),
      Buffer.concat([Buffer.from([0xdc, 0xff, 0xff]), Buffer.alloc(ITEMS_MAX + 1)]),
      Buffer.from([0xc6, 0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0xdb, 0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0xc4, 0x05, 1]),
      Buffer.from([0xd4, 0x72, 0x40]),
      Buffer.from([0xd6, 0xff, 0, 0, 0, 0]),
      Buffer.from([0x81, 0x01, 0x01]),
      Buffer.from([0xc1]),
      Buffer.from([0x01, 0x02]),
    ];
    for (const bytes of bad)
      assert.ok(
        refuses(() => unpack(bytes)),
        bytes.subarray(0, 8).toString("hex"),
      );
    assert.deepEqual(unpack(pack({ a: [1, -1, 1.5, null, true, "é", 2 ** 40] })), {
      a: [1, -1, 1.5, null, true, "é", 2 ** 40],
    });
  });

  it("an account that names too much, or counts what cannot be counted, is refused", () => {
    const named = (count: number, change: object) => ({
      named: Array.from({ length: count }, () => ({ ...lostFile, ...change })),
    });
    for (const change of [
      named(LOST_FILES_MAX + 1, {}),
      named(1, { path: Buffer.alloc(LOST_PATH_BYTES_MAX + 1) }),
      named(1, { path: "a/b" }),
      named(1, { branch: -1 }),
      named(1, { ops: 0.5 }),
      { ops: -1 },
      { bytes: Number.MAX_SAFE_INTEGER + 1 },
      { isExact: 1 },
      { more: 1 },
    ]) {
      const frame = encodeMessage("accounted", 0, { ...accounted, ...change } as never);
      assert.ok(
        refuses(() => decodeMessage(frame, 0)),
        JSON.stringify(change, plain),
      );
    }
    const most = named(LOST_FILES_MAX, { path: Buffer.alloc(LOST_PATH_BYTES_MAX) });
    decodeMessage(encodeMessage("accounted", 0, { ...accounted, ...most }), 0);
  });

  it("a description of a group that tells of too many others, or of no key, is refused", () => {
    const other = { site: "west", fingerprint: "ab".repeat(32) };
    const told = {
      ...{ name: "v", isNameChosen: false, rf: 0, rpoMs: 1000, site: "north" },
      ...{ others: Array.from({ length: OTHERS_MAX }, () => other), engine: Buffer.from("opaque") },
    };
    assert.deepEqual(decodeDescription(encodeDescription(told)).others, told.others);
    for (const change of [
      { others: [...told.others, other] },
      { others: [{ ...other, fingerprint: "ab" }] },
      { others: [{ ...other, more: 1 }] },
      { rpoMs: 0 },
      { more: 1 },
    ]) {
      assert.ok(
        refuses(() => decodeDescription(pack({ ...told, ...change }))),
        JSON.stringify(change),
      );
    }
  });

  it("changed messages (20,000 of a seed) are refused or mean something, and never more than was sent", () => {
    const seed = 20_261_128;
    const random = randomOf(seed);
    const frames = [
      encodeMessage("hello", 0, hello),
      encodeMessage("credit", 0, { group: GROUP, stream: 5, bytesMax: 1 }),
      encodeMessage("begin", 0, {
        ...{ group: GROUP, stream: 5, epochId: EPOCH, base: 5 },
        target: { lsn: 7, timeNs: 10n ** 18n, bootNs: 5n, name: "" },
      }),
      encodeMessage("state", 0, {
        ...{ group: GROUP, stream: 5, epochId: EPOCH, last: 5, creditBytes: 1 },
        staging: { base: 5, target: 9, cursor: Buffer.from("x") },
        headers: { lsn: 5, chain: EPOCH },
      }),
      encodeMessage("headers", 0, {
        ...{ group: GROUP, stream: 5, epochId: EPOCH, from: 5, to: 9 },
        frame: Buffer.from("frame"),
      }),
      encodeMessage("account", 0, { ask: 4, group: GROUP, epochId: EPOCH, above: 809, until: null }),
      encodeMessage("accounted", 0, accounted),
    ];
    const trace = createHash("sha256");
    let taken = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const frame = Buffer.from(frames[round % frames.length] ?? Buffer.alloc(0));
      for (let flips = 1 + Math.floor(random() * 3); flips > 0; flips -= 1) {
        frame[Math.floor(random() * frame.length)] = Math.floor(random() * 256);
      }
      if (refuses(() => decodeMessage(frame, 0))) continue;
      taken += 1;
      trace.update(frame);
    }
    assert.ok(taken > 100 && taken < 15_000, `${taken} of seed ${seed} were taken`);
  });
});
