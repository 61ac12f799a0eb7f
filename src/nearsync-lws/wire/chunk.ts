// A piece of a batch on the bulk socket, little-endian:
//
//   offset  bytes  field
//        0      4  magic "HFC1"
//        4      2  length of the cursor, 0 to 256
//        6      1  flags: 1 = the batch ends with this chunk
//        7      1  0
//        8     16  group
//       24      8  epoch's id
//       32      8  base: the batch begins after this LSN; 0: it holds everything
//       40      8  target: the LSN that the batch leads to
//       48      4  sequence in this sending of the batch: 0, 1, 2 …
//       52      4  length of the payload, 1 to 262144 (0: only in a last chunk)
//       56      4  stream: the offer that this belongs to; what an older one left on the way is let go
//       60      4  CRC-32 (IEEE) of bytes 0 to 59, cursor and payload
//       64         cursor, then payload: opaque here, both are the engine's

import { crc32 } from "node:zlib";
import { HoldfastError } from "../../io-path/errors.js";
import { CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, CURSOR_BYTES_MAX } from "../limits.js";

export interface ChunkHeader {
  /** 32 hexadecimal digits. */
  group: string;
  /** 16 hexadecimal digits. */
  epochId: string;
  /** Null: first sync. */
  base: number | null;
  target: number;
  stream: number;
  sequence: number;
  last: boolean;
}

export interface Chunk extends ChunkHeader {
  /** Where the engine goes on after this chunk. */
  cursor: Buffer;
  payload: Buffer;
}

const MAGIC = Buffer.from("HFC1");
const LAST = 1;
const STREAM_AT = 56;
const CRC_AT = 60;

export function encodeChunk(chunk: Chunk): Buffer {
  const { cursor, payload } = chunk;
  const head = Buffer.alloc(CHUNK_HEADER_BYTES);
  MAGIC.copy(head);
  head.writeUInt16LE(cursor.length, 4);
  head.writeUInt8(chunk.last ? LAST : 0, 6);
  head.write(chunk.group, 8, 16, "hex");
  head.write(chunk.epochId, 24, 8, "hex");
  head.writeBigUInt64LE(BigInt(chunk.base ?? 0), 32);
  head.writeBigUInt64LE(BigInt(chunk.target), 40);
  head.writeUInt32LE(chunk.sequence, 48);
  head.writeUInt32LE(payload.length, 52);
  head.writeUInt32LE(chunk.stream, STREAM_AT);
  head.writeUInt32LE(checksum(head, cursor, payload), CRC_AT);
  return Buffer.concat([head, cursor, payload]);
}

/** `Invalid` for anything but exactly what `encodeChunk` makes. The parts are views of `bytes`. */
export function decodeChunk(bytes: Buffer): Chunk {
  if (bytes.length < CHUNK_HEADER_BYTES || !bytes.subarray(0, 4).equals(MAGIC)) throw malformed("no header");
  const cursorBytes = bytes.readUInt16LE(4);
  const payloadBytes = bytes.readUInt32LE(52);
  const flags = bytes.readUInt8(6);
  const last = flags === LAST;
  if (bytes.readUInt8(7) !== 0 || flags > LAST) throw malformed("unknown bits");
  if (cursorBytes > CURSOR_BYTES_MAX || payloadBytes > CHUNK_BYTES_MAX || (payloadBytes === 0 && !last)) {
    throw malformed("a length out of range");
  }
  if (bytes.length !== CHUNK_HEADER_BYTES + cursorBytes + payloadBytes)
    throw malformed("not as long as it says");
  const cursor = bytes.subarray(CHUNK_HEADER_BYTES, CHUNK_HEADER_BYTES + cursorBytes);
  const payload = bytes.subarray(CHUNK_HEADER_BYTES + cursorBytes);
  if (checksum(bytes, cursor, payload) !== bytes.readUInt32LE(CRC_AT))
    throw malformed("the checksum is wrong");
  const base = lsnAt(bytes, 32);
  const target = lsnAt(bytes, 40);
  if (target <= base) throw malformed("it leads nowhere");
  return {
    group: bytes.toString("hex", 8, 24),
    epochId: bytes.toString("hex", 24, 32),
    base: base === 0 ? null : base,
    target,
    stream: bytes.readUInt32LE(STREAM_AT),
    sequence: bytes.readUInt32LE(48),
    last,
    cursor,
    payload,
  };
}

function checksum(head: Buffer, cursor: Buffer, payload: Buffer): number {
  return crc32(payload, crc32(cursor, crc32(head.subarray(0, CRC_AT))));
}

function lsnAt(bytes: Buffer, offset: number): number {
  const value = bytes.readBigUInt64LE(offset);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw malformed("an LSN out of range");
  return Number(value);
}

function malformed(why: string): HoldfastError {
  return new HoldfastError("Invalid", `malformed chunk: ${why}`);
}
