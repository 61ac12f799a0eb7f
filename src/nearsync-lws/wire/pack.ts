// MessagePack for control messages, fenced: what msgpackr gets to see was walked first, in one pass and without
// allocation, so neither depth, size nor an extension type of a stranger reaches the decoder.

import { Packr, Unpackr } from "msgpackr";
import { HoldfastError } from "../../io-path/errors.js";
import { DEPTH_MAX, ITEMS_MAX } from "../limits.js";

const packr = new Packr({ useRecords: false, variableMapSize: true, mapsAsObjects: true });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: "bigint" });

export function pack(value: unknown): Buffer {
  // msgpackr reuses what it packs into; ours leaves this turn of the loop.
  return Buffer.from(packr.pack(value));
}

/** One value of nil, booleans, numbers, text, bytes, arrays and maps with text keys; anything else is `Invalid`. */
export function unpack(bytes: Buffer): unknown {
  const walk = { bytes, at: 0, items: 0 };
  skip(walk, 0);
  if (walk.at !== bytes.length) throw malformed(`${bytes.length - walk.at} bytes follow the value`);
  return unpackr.unpack(bytes);
}

interface Walk {
  readonly bytes: Buffer;
  at: number;
  items: number;
}

function skip(walk: Walk, depth: number): void {
  walk.items += 1;
  if (walk.items > ITEMS_MAX) throw malformed(`more than ${ITEMS_MAX} values`);
  if (depth > DEPTH_MAX) throw malformed(`deeper than ${DEPTH_MAX}`);
  const head = take(walk, 1);
  if (head <= 0x7f || head >= 0xe0) return;
  if (head <= 0x8f) return skipMap(walk, head & 0x0f, depth);
  if (head <= 0x9f) return skipArray(walk, head & 0x0f, depth);
  if (head <= 0xbf) return advance(walk, head & 0x1f);
  switch (head) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
      return;
    case 0xc4:
    case 0xd9:
      return advance(walk, take(walk, 1));
    case 0xc5:
    case 0xda:
      return advance(walk, take(walk, 2));
    case 0xdc:
      return skipArray(walk, take(walk, 2), depth);
    case 0xde:
      return skipMap(walk, take(walk, 2), depth);
    default:
      return advance(walk, fixedBytes(head));
  }
}

/** Numbers; what needs 32 bits of length has no business in a control message. */
function fixedBytes(head: number): number {
  const bytes = new Map([
    [0xca, 4],
    [0xcb, 8],
    [0xcc, 1],
    [0xcd, 2],
    [0xce, 4],
    [0xcf, 8],
    [0xd0, 1],
    [0xd1, 2],
    [0xd2, 4],
    [0xd3, 8],
  ]).get(head);
  if (bytes === undefined) throw malformed(`type 0x${head.toString(16)}`);
  return bytes;
}

function skipArray(walk: Walk, length: number, depth: number): void {
  for (let index = 0; index < length; index += 1) skip(walk, depth + 1);
}

function skipMap(walk: Walk, length: number, depth: number): void {
  for (let index = 0; index < length; index += 1) {
    const key = walk.bytes[walk.at] ?? 0;
    if (key < 0xa0 || key > 0xbf) throw malformed("a key that is no short text");
    skip(walk, depth + 1);
    skip(walk, depth + 1);
  }
}

function take(walk: Walk, bytes: number): number {
  const from = walk.at;
  advance(walk, bytes);
  return walk.bytes.readUIntBE(from, bytes);
}

function advance(walk: Walk, bytes: number): void {
  walk.at += bytes;
  if (walk.at > walk.bytes.length) throw malformed("it ends too early");
}

function malformed(why: string): HoldfastError {
  return new HoldfastError("Invalid", `malformed message: ${why}`);
}
