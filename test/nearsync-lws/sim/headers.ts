// The header stream in the model: frames whose content is the ops themselves, and what a replica keeps of them.

import type { DoorAnswers, DoorCall } from "../../../src/nearsync-lws/machines/door.js";
import type { HeaderMark } from "../../../src/nearsync-lws/machines/headers.js";
import { HEADERS_REMEMBERED_MAX } from "../../../src/nearsync-lws/limits.js";
import type { OwnedModel } from "./engine.js";

const HEAD_BYTES = 40;
const OP_BYTES = 8;
/** What an op counts for against a frame's limit: so much that some streams go in parts. */
const OP_COST_BYTES = 256;

/** What a replica knows of its owner's ops; null: only that there was one. */
export interface HeadersModel {
  /** Where frames ended, the newest last. */
  marks: HeaderMark[];
  ops: Map<number, { key: number; value: number } | null>;
}

type Ask = Extract<DoorCall, { call: "headers" }>;

/** FNV-1a, twice as wide as it has to be. */
function hash(...parts: string[]): string {
  let state = 0xcbf29ce484222325n;
  for (const character of parts.join("|")) {
    state = ((state ^ BigInt(character.charCodeAt(0))) * 0x100000001b3n) & 0xffffffffffffffffn;
  }
  return state.toString(16).padStart(16, "0");
}

const startOf = (epochId: string, first: number) => hash("start", epochId, `${first}`);

export function tellHeaders(
  { ops, epochId }: OwnedModel,
  { from, chain, bytesMax, summarize }: Ask,
): DoorAnswers["headers"] {
  const newest = ops.length;
  if (from > newest) return { newest, frame: null };
  const room = Math.max(1, Math.floor((bytesMax - HEAD_BYTES) / OP_COST_BYTES));
  const isSummary = summarize && newest - from >= room;
  const last = isSummary ? newest : Math.min(newest, from + room - 1);
  const told = isSummary ? [] : ops.slice(from - 1, last);
  const previous = chain ?? startOf(epochId, from);
  const own = hash(previous, `${from}`, `${last}`, ...told.map(({ key, value }) => `${key}:${value}`));
  const bytes = Buffer.alloc(HEAD_BYTES + told.length * OP_BYTES);
  bytes.writeDoubleLE(from, 0);
  bytes.writeDoubleLE(last, 8);
  bytes.write(previous, 16, "hex");
  bytes.write(own, 24, "hex");
  bytes.writeUInt8(isSummary ? 1 : 0, 32);
  told.forEach(({ key, value }, index) => {
    bytes.writeUInt32LE(key, HEAD_BYTES + index * OP_BYTES);
    bytes.writeUInt32LE(value, HEAD_BYTES + index * OP_BYTES + 4);
  });
  return { newest, frame: { bytes, last, chain: own } };
}

/** Where the stream stands then; null: the frame neither continues what is there nor begins a stream. */
export function keepHeaders(model: HeadersModel, frame: Uint8Array, epochId: string): HeaderMark | null {
  const bytes = Buffer.from(frame);
  const [first, last] = [bytes.readDoubleLE(0), bytes.readDoubleLE(8)];
  const [previous, chain] = [bytes.toString("hex", 16, 24), bytes.toString("hex", 24, 32)];
  const continues = model.marks.some((mark) => mark.chain === previous && mark.lsn + 1 === first);
  if (!continues && previous !== startOf(epochId, first)) return null;
  for (const lsn of model.ops.keys()) if (lsn >= first) model.ops.delete(lsn);
  for (let lsn = first; lsn <= last; lsn += 1) {
    const at = HEAD_BYTES + (lsn - first) * OP_BYTES;
    const isTold = bytes.readUInt8(32) === 0;
    model.ops.set(lsn, isTold ? { key: bytes.readUInt32LE(at), value: bytes.readUInt32LE(at + 4) } : null);
  }
  const mark = { lsn: last, chain };
  model.marks = [...model.marks.filter(({ lsn }) => lsn < first), mark].slice(-HEADERS_REMEMBERED_MAX);
  return mark;
}

/** What is wrong with what a replica knows up to an LSN, beyond its recovery point; undefined: nothing. */
export function wrongHeaders(
  model: HeadersModel,
  { ops }: OwnedModel,
  from: number,
  to: number,
): string | undefined {
  for (let lsn = from; lsn <= to; lsn += 1) {
    const [told, truth] = [model.ops.get(lsn), ops[lsn - 1]];
    if (told === undefined) return `LSN ${lsn} is not known`;
    if (told !== null && (told.key !== truth?.key || told.value !== truth.value)) {
      return `LSN ${lsn} is told as ${JSON.stringify(told)}, and was ${JSON.stringify(truth)}`;
    }
  }
  return undefined;
}
