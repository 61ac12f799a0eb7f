// Tells one follower what is done, ahead of the batches: frames of the group's header stream, each chained to the one
// before.
//
// - A stream begins after the follower's recovery point, and again there whenever the two sides do not agree on where
//   it stands: the follower says the newest frame that it has durably (LSN and chain), and only what was sent by this
//   process is continued. What the follower has as a recovery point is not told any more.
// - One frame is read at a time; at most so many bytes are under way that the follower has not acknowledged.
// - With a bandwidth limit, a tenth of it is for headers; where that is too little, a frame is a summary of all that is
//   new.
// - While nothing is new it looks again after 50 ms, else 25 ms after the frame before.

import {
  HEADERS_BYTES_MAX,
  HEADERS_BYTES_MIN,
  HEADERS_EVERY_MS,
  HEADERS_IDLE_MS,
  HEADERS_REMEMBERED_MAX,
  HEADERS_SHARE,
  HEADERS_UNACKED_MAX,
} from "../limits.js";
import { newBucket, refill, spend, waitMs } from "./bucket.js";
import type { Bucket } from "./bucket.js";

/** Where a stream stands. */
export interface HeaderMark {
  lsn: number;
  /** 16 hexadecimal digits. */
  chain: string;
}

interface SentFrame extends HeaderMark {
  bytes: number;
  /** When it was made everything that there was is in it or before it; null: there was more. */
  coversMs: number | null;
}

export interface HeaderSender {
  /** Null: no session, or the follower has no recovery point yet. */
  turn: number | null;
  /** LSN of the next frame; `chain` null: it begins a stream. */
  next: number;
  chain: string | null;
  reading: boolean;
  /** Not before then. */
  dueMs: number;
  /** Not acknowledged yet, oldest first. */
  sent: SentFrame[];
  /** Of what this process has sent to the follower, newest last. */
  remembered: HeaderMark[];
  /** Everything up to here the follower has durably. */
  acked: number;
  /** Everything that was done until then the follower has durably; null: not known. */
  coveredMs: number | null;
  bucket: Bucket;
}

export interface HeaderFrameInfo {
  last: number;
  chain: string;
  bytes: number;
}

export type HeaderEvent =
  /** The follower says what it has: its recovery point, and its headers. */
  | { type: "up"; nowMs: number; turn: number; last: number | null; headers: HeaderMark | null }
  | { type: "down" }
  | { type: "tick"; nowMs: number }
  /** `newest`: what there was; null: nothing new, or nothing that can be told yet. */
  | {
      type: "read";
      nowMs: number;
      /** When it was asked for. */
      askedMs: number;
      turn: number;
      ref: number;
      newest: number;
      frame: HeaderFrameInfo | null;
    }
  | { type: "readFailed"; nowMs: number; turn: number }
  /** The newest frame that it has durably, maybe one of an earlier stream; `last`: its recovery point. */
  | { type: "ack"; nowMs: number; headers: HeaderMark | null; last: number | null };

export type HeaderEffect =
  | {
      type: "read";
      turn: number;
      from: number;
      chain: string | null;
      bytesMax: number;
      summarize: boolean;
    }
  | { type: "send"; ref: number; from: number; to: number }
  | { type: "drop"; ref: number }
  /** It goes over the same link as the batches. */
  | { type: "paid"; bytes: number }
  | { type: "wake"; atMs: number };

const RETRY_MS = 250;

export function newHeaderSender(bytesPerSecond: number | null, nowMs: number): HeaderSender {
  const share = bytesPerSecond === null ? null : Math.max(1, Math.floor(bytesPerSecond * HEADERS_SHARE));
  return {
    turn: null,
    next: 0,
    chain: null,
    reading: false,
    dueMs: nowMs,
    sent: [],
    remembered: [],
    acked: 0,
    coveredMs: null,
    bucket: newBucket(share, nowMs),
  };
}

export function headerSender(state: HeaderSender, event: HeaderEvent): [HeaderSender, HeaderEffect[]] {
  switch (event.type) {
    case "up":
      return onUp(state, event);
    case "down":
      return [{ ...state, turn: null, sent: [], reading: false }, []];
    case "tick":
      return go(state, event.nowMs);
    case "read":
      return onRead(state, event);
    case "readFailed":
      if (event.turn !== state.turn) return [state, []];
      return go({ ...state, reading: false, dueMs: event.nowMs + RETRY_MS }, event.nowMs);
    case "ack":
      return onAck(state, event);
  }
}

function onUp(
  state: HeaderSender,
  { nowMs, turn, last, headers }: Extract<HeaderEvent, { type: "up" }>,
): [HeaderSender, HeaderEffect[]] {
  // Without a recovery point nothing could be recovered, so nothing is missing.
  if (last === null) return [{ ...state, turn: null, sent: [], reading: false }, []];
  const known = state.remembered.some((mark) => mark.lsn === headers?.lsn && mark.chain === headers.chain);
  const goesOn = headers !== null && known && headers.lsn >= last;
  const acked = goesOn ? headers.lsn : last;
  const begun = { ...state, turn, reading: false, sent: [], dueMs: nowMs, acked, next: acked + 1 };
  return go({ ...begun, chain: goesOn ? headers.chain : null, coveredMs: null }, nowMs);
}

function onRead(
  state: HeaderSender,
  { nowMs, askedMs, turn, ref, newest, frame }: Extract<HeaderEvent, { type: "read" }>,
): [HeaderSender, HeaderEffect[]] {
  const mine = state.turn === turn && state.reading;
  if (!mine) return [state, frame === null ? [] : [{ type: "drop", ref }]];
  const free = { ...state, reading: false };
  if (frame === null) {
    const later = { ...free, dueMs: nowMs + HEADERS_IDLE_MS };
    return go(newest < state.next ? nothingNew(later, askedMs) : later, nowMs);
  }
  const { last, chain, bytes } = frame;
  // What overtook the stream meanwhile is a recovery point of the follower.
  if (last < state.next) return go({ ...free, dueMs: nowMs }, nowMs, [{ type: "drop", ref }]);
  const isAll = last >= newest;
  const sent = [...state.sent, { lsn: last, chain, bytes, coversMs: isAll ? askedMs : null }];
  const remembered = [...state.remembered, { lsn: last, chain }].slice(-HEADERS_REMEMBERED_MAX);
  const bucket = spend(refill(state.bucket, nowMs), bytes);
  const dueMs = isAll ? nowMs + HEADERS_EVERY_MS : nowMs;
  const next: HeaderSender = { ...free, sent, remembered, bucket, dueMs, next: last + 1, chain };
  return go(next, nowMs, [
    { type: "send", ref, from: state.next, to: last },
    { type: "paid", bytes },
  ]);
}

/** What was sent before is all that there is. */
function nothingNew(state: HeaderSender, askedMs: number): HeaderSender {
  const newest = state.sent.at(-1);
  if (newest === undefined) return { ...state, coveredMs: askedMs };
  return { ...state, sent: [...state.sent.slice(0, -1), { ...newest, coversMs: askedMs }] };
}

function onAck(
  state: HeaderSender,
  { nowMs, headers, last }: Extract<HeaderEvent, { type: "ack" }>,
): [HeaderSender, HeaderEffect[]] {
  if (state.turn === null) return [state, []];
  const told = state.sent.find(({ lsn, chain }) => lsn === headers?.lsn && chain === headers.chain);
  const has = Math.max(told?.lsn ?? 0, last ?? 0);
  const arrived = state.sent.filter(({ lsn }) => lsn <= has);
  const coveredMs = arrived.findLast(({ coversMs }) => coversMs !== null)?.coversMs ?? state.coveredMs;
  const sent = state.sent.filter(({ lsn }) => lsn > has);
  const acked = Math.max(state.acked, has);
  const next = { ...state, sent, coveredMs, acked };
  // The batches were faster: the stream begins anew behind them.
  if (last !== null && last >= state.next && !state.reading) {
    return go({ ...next, next: last + 1, chain: null, sent: [] }, nowMs);
  }
  return go(next, nowMs);
}

/** Looks for what is new, if it is time, and nothing has to be waited for. */
function go(state: HeaderSender, nowMs: number, before: HeaderEffect[] = []): [HeaderSender, HeaderEffect[]] {
  const unacked = state.sent.reduce((sum, { bytes }) => sum + bytes, 0);
  if (state.turn === null || state.reading || unacked >= HEADERS_UNACKED_MAX) return [state, before];
  const bucket = refill(state.bucket, nowMs);
  const wait = Math.max(state.dueMs - nowMs, waitMs(bucket));
  if (wait > 0) return [{ ...state, bucket }, [...before, { type: "wake", atMs: nowMs + wait }]];
  const { turn, next: from, chain } = state;
  const isLimited = bucket.bytesPerSecond !== null;
  const bytesMax = isLimited ? bytesOf(bucket) : HEADERS_BYTES_MAX;
  const read: HeaderEffect = { type: "read", turn, from, chain, bytesMax, summarize: isLimited };
  return [{ ...state, bucket, reading: true }, [...before, read]];
}

/** What 50 ms of the headers' share carry. */
function bytesOf({ bytesPerSecond }: Bucket): number {
  const bytes = Math.floor(((bytesPerSecond ?? 0) * HEADERS_IDLE_MS) / 1000);
  return Math.min(HEADERS_BYTES_MAX, Math.max(HEADERS_BYTES_MIN, bytes));
}

/** How long ago the moment is up to which the follower knows everything that was done; null: not known. */
export function headerLagMs(state: HeaderSender, nowMs: number): number | null {
  return state.turn === null || state.coveredMs === null ? null : Math.max(0, nowMs - state.coveredMs);
}
