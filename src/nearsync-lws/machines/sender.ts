// Sends one group to one follower: batch after batch, each from what the follower has to the newest cut.
//
// - A batch is (base → target). `base` is where the follower is, or will be when what was sent before is applied; at
//   most two batches are under way, the second only when the first is sent whole.
// - Cuts that were skipped are skipped; a named point never is: each is the target of a batch of its own.
// - Bytes go only within the credit that the follower gave, and within the bandwidth limit.
// - After a break the follower says what it has; a batch that it has staged in part goes on after its cursor. Nothing
//   is remembered here across a break but which points there are.
// - Answers of the engine, and of the follower, carry the `turn` of their question, on the wire `stream`; those of an
//   earlier one are let go (a delta closed).

import type { ErrorCode } from "../../io-path/errors.js";
import { BATCHES_MAX, BULK_BYTES_MAX, NAMED_MAX, OFFER_RETRY_MS, TARGETS_MISSED_MAX } from "../limits.js";
import type { Bucket } from "./bucket.js";
import { chunkBytesMax, newBucket, refill, spend, waitMs } from "./bucket.js";
import type { Point, Staging } from "./door.js";

export interface Sending {
  base: number | null;
  target: number;
  /** Null: it is being opened. */
  delta: number | null;
  sequence: number;
  /** A chunk is being read. */
  reading: boolean;
}

export interface Sender {
  /** `down`: no session. `offered`: it was asked what it has. `stopped`: it cannot go on for now. */
  link: "down" | "offered" | "up" | "stopped";
  /** Counts offers, and their ends. */
  turn: number;
  /** What the follower has, flushed. */
  has: number | null;
  staging: Staging | null;
  /** Sent whole, not flushed there yet; oldest first. */
  sent: { base: number | null; target: number }[];
  sending: Sending | null;
  /** The newest cut. */
  newest: Point | null;
  /** Targets in a row that were not kept any more when their turn came. */
  missed: number;
  /** Named points that the follower does not have, oldest first. */
  named: Point[];
  creditMax: number;
  spent: number;
  bucket: Bucket;
  /** When a stopped one asks again; null: not by itself. */
  retryMs: number | null;
  /** Why it is stopped. */
  problem: { code: string; message: string } | null;
}

export interface AckVector {
  received: number | null;
  applied: number | null;
  flushed: number | null;
}

export type SenderEvent =
  | { type: "up"; nowMs: number }
  | { type: "down" }
  | {
      type: "state";
      nowMs: number;
      stream: number;
      last: number | null;
      staging: Staging | null;
      creditBytes: number;
    }
  /** A cut, or a named point. */
  | { type: "cut"; nowMs: number; point: Point }
  | { type: "opened"; nowMs: number; turn: number; delta: number; target: Point }
  | { type: "openFailed"; nowMs: number; turn: number; code: ErrorCode; message: string }
  | { type: "read"; nowMs: number; turn: number; delta: number; ref: number; bytes: number; done: boolean }
  | { type: "readFailed"; nowMs: number; turn: number; delta: number; code: ErrorCode; message: string }
  | { type: "credit"; nowMs: number; stream: number; bytesMax: number }
  | ({ type: "ack"; nowMs: number; stream: number } & AckVector)
  | { type: "stop"; nowMs: number; stream: number; code: string; message: string; retry: boolean }
  /** Something else went over the same link. */
  | { type: "paid"; nowMs: number; bytes: number }
  | { type: "tick"; nowMs: number };

export type SenderEffect =
  | { type: "offer"; stream: number }
  | { type: "open"; turn: number; base: number | null; target: number; cursor: string | null }
  | { type: "next"; turn: number; delta: number; bytesMax: number }
  | { type: "close"; delta: number }
  | { type: "begin"; base: number | null; target: Point }
  | { type: "chunk"; ref: number; base: number | null; target: number; sequence: number; last: boolean }
  | { type: "drop"; ref: number }
  /** History is kept for the follower from there on; `ifNone`: unless it is from somewhere already. */
  | { type: "follow"; lsn: number; ifNone: boolean }
  /** The other side broke the rules: the session has to end. */
  | { type: "violation"; reason: string }
  | { type: "wake"; atMs: number };

export function newSender(bytesPerSecond: number | null, nowMs: number): Sender {
  return {
    link: "down",
    turn: 0,
    has: null,
    staging: null,
    sent: [],
    sending: null,
    newest: null,
    missed: 0,
    named: [],
    creditMax: 0,
    spent: 0,
    bucket: newBucket(bytesPerSecond, nowMs),
    retryMs: null,
    problem: null,
  };
}

/** Where the follower will be when everything that was sent is applied. */
export function tipOf({ sending, sent, has }: Sender): number | null {
  return sending?.target ?? sent.at(-1)?.target ?? has;
}

/** There is room for a batch, and no cut that could fill it: the schedule should make one. */
export function wantsCut(state: Sender): boolean {
  return hasRoom(state) && state.staging === null && targetAfter(state, tipOf(state)) === null;
}

function hasRoom({ link, sending, sent }: Sender): boolean {
  return link === "up" && sending === null && sent.length < BATCHES_MAX;
}

export function sender(state: Sender, event: SenderEvent): [Sender, SenderEffect[]] {
  if ("stream" in event && event.stream !== state.turn) return [state, []];
  switch (event.type) {
    case "up":
      return offered(state);
    case "down":
      return [{ ...reset(state), link: "down", turn: state.turn + 1 }, closing(state)];
    case "stop": {
      const { code, message, retry, nowMs } = event;
      return stopped(state, { code, message, retry, nowMs });
    }
    case "state":
      return onState(state, event);
    case "cut":
      return go(withPoint(state, event.point), event.nowMs);
    case "opened":
    case "openFailed":
      return onOpened(state, event);
    case "read":
    case "readFailed":
      return onRead(state, event);
    case "credit":
      // Counts in all, so a repeated or late one adds nothing.
      return go({ ...state, creditMax: Math.max(state.creditMax, event.bytesMax) }, event.nowMs);
    case "ack":
      return onAck(state, event);
    case "paid":
      return [{ ...state, bucket: spend(refill(state.bucket, event.nowMs), event.bytes) }, []];
    case "tick": {
      if (state.link === "stopped" && state.retryMs !== null) {
        // A timer may ring a little early.
        if (event.nowMs < state.retryMs) return [state, [{ type: "wake", atMs: state.retryMs }]];
        return offered(state);
      }
      return go(state, event.nowMs);
    }
  }
}

function offered(state: Sender): [Sender, SenderEffect[]] {
  const turn = state.turn + 1;
  return [{ ...reset(state), link: "offered", turn }, [...closing(state), { type: "offer", stream: turn }]];
}

/** Everything of a session forgotten; which points there are stays known. */
function reset(state: Sender): Sender {
  const none = { staging: null, sent: [], sending: null, creditMax: 0, spent: 0 };
  return { ...state, ...none, retryMs: null, problem: null };
}

function closing({ sending }: Sender): SenderEffect[] {
  return sending?.delta == null ? [] : [{ type: "close", delta: sending.delta }];
}

interface Stop {
  code: string;
  message: string;
  retry: boolean;
  nowMs: number;
}

function stopped(state: Sender, { code, message, retry, nowMs }: Stop): [Sender, SenderEffect[]] {
  if (state.link === "down") return [state, []];
  const retryMs = retry ? nowMs + OFFER_RETRY_MS : null;
  const halted: Sender = { ...reset(state), link: "stopped", turn: state.turn + 1, retryMs };
  const wake: SenderEffect[] = retryMs === null ? [] : [{ type: "wake", atMs: retryMs }];
  return [{ ...halted, problem: { code, message } }, [...closing(state), ...wake]];
}

function onState(
  state: Sender,
  { nowMs, last, staging, creditBytes }: Extract<SenderEvent, { type: "state" }>,
): [Sender, SenderEffect[]] {
  if (state.link !== "offered") return [state, [{ type: "violation", reason: "state without an offer" }]];
  // What was staged for another base leads nowhere.
  const usable = staging !== null && staging.base === last ? staging : null;
  const up: Sender = { ...state, link: "up", has: last, staging: usable, creditMax: creditBytes, spent: 0 };
  const [next, effects] = go(up, nowMs);
  return [next, last === null ? effects : [{ type: "follow", lsn: last, ifNone: false }, ...effects]];
}

function onOpened(
  state: Sender,
  event: Extract<SenderEvent, { type: "opened" | "openFailed" }>,
): [Sender, SenderEffect[]] {
  const { sending } = state;
  const mine = event.turn === state.turn && sending !== null && sending.delta === null;
  if (event.type === "opened") {
    if (!mine) return [state, [{ type: "close", delta: event.delta }]];
    const begun = { ...state, missed: 0, sending: { ...sending, delta: event.delta } };
    const [next, effects] = go(begun, event.nowMs);
    return [next, [{ type: "begin", base: sending.base, target: event.target }, ...effects]];
  }
  if (!mine) return [state, []];
  if (event.code === "NotFound" && state.missed < TARGETS_MISSED_MAX) {
    return go(without(state, sending.target), event.nowMs);
  }
  const retry = event.code === "Unavailable" || event.code === "Internal";
  return stopped(state, { code: event.code, message: event.message, retry, nowMs: event.nowMs });
}

function onRead(
  state: Sender,
  event: Extract<SenderEvent, { type: "read" | "readFailed" }>,
): [Sender, SenderEffect[]] {
  const { sending, turn, nowMs } = { ...state, nowMs: event.nowMs };
  const mine = event.turn === turn && sending !== null && sending.delta === event.delta && sending.reading;
  if (event.type === "readFailed") {
    if (!mine) return [state, []];
    return stopped(state, { code: event.code, message: event.message, retry: true, nowMs });
  }
  if (!mine) return [state, [{ type: "drop", ref: event.ref }]];
  const { base, target, sequence } = sending;
  const chunk: SenderEffect = { type: "chunk", ref: event.ref, base, target, sequence, last: event.done };
  const spent = state.spent + event.bytes;
  const paid = { ...state, spent, bucket: spend(refill(state.bucket, nowMs), event.bytes) };
  if (!event.done) {
    const [next, effects] = go(
      { ...paid, sending: { ...sending, sequence: sequence + 1, reading: false } },
      nowMs,
    );
    return [next, [chunk, ...effects]];
  }
  const sent = [...state.sent, { base, target }];
  const [next, effects] = go({ ...paid, sending: null, staging: null, sent }, nowMs);
  return [next, [chunk, { type: "close", delta: event.delta }, ...effects]];
}

function onAck(
  state: Sender,
  { nowMs, flushed }: Extract<SenderEvent, { type: "ack" }>,
): [Sender, SenderEffect[]] {
  if (state.link !== "up" || flushed === null || flushed <= (state.has ?? 0)) return [state, []];
  // A follower can only have what was sent whole.
  if (!state.sent.some(({ target }) => target === flushed)) {
    return [
      state,
      [{ type: "violation", reason: `an acknowledgement of LSN ${flushed}, which was not sent` }],
    ];
  }
  const sent = state.sent.filter(({ target }) => target > flushed);
  const [next, effects] = go({ ...state, has: flushed, sent }, nowMs);
  return [next, [{ type: "follow", lsn: flushed, ifNone: false }, ...effects]];
}

/** Does the next thing, if there is one and nothing has to be waited for. */
function go(state: Sender, nowMs: number): [Sender, SenderEffect[]] {
  const { sending, staging } = state;
  if (sending !== null) return sending.delta === null || sending.reading ? [state, []] : read(state, nowMs);
  if (!hasRoom(state)) return [state, []];
  const base = tipOf(state);
  // What the follower has in part comes first; its target was pinned for it.
  if (staging !== null && staging.base === base) {
    return open(state, base, staging.target, staging.cursor);
  }
  const target = targetAfter(state, base);
  return target === null ? [state, []] : open(state, base, target, null);
}

function open(
  state: Sender,
  base: number | null,
  target: number,
  cursor: string | null,
): [Sender, SenderEffect[]] {
  const sending: Sending = { base, target, delta: null, sequence: 0, reading: false };
  // A first sync needs its target now, and the differences from there on later. Of an earlier one the commit may be on
  // its way still: what that needs stays.
  const follow: SenderEffect[] = base === null ? [{ type: "follow", lsn: target, ifNone: true }] : [];
  return [{ ...state, sending }, [...follow, { type: "open", turn: state.turn, base, target, cursor }]];
}

function read(state: Sender, nowMs: number): [Sender, SenderEffect[]] {
  const { sending, creditMax, spent } = state;
  const bucket = refill(state.bucket, nowMs);
  const next = { ...state, bucket };
  if (sending?.delta == null || creditMax - spent < BULK_BYTES_MAX) return [next, []];
  const wait = waitMs(bucket);
  if (wait > 0) return [next, [{ type: "wake", atMs: nowMs + wait }]];
  const bytesMax = chunkBytesMax(bucket);
  const reading = { ...next, sending: { ...sending, reading: true } };
  return [reading, [{ type: "next", turn: state.turn, delta: sending.delta, bytesMax }]];
}

/** The next named point, else the newest cut; null: there is nothing newer. */
function targetAfter({ named, newest }: Sender, base: number | null): number | null {
  const from = base ?? 0;
  const lsn = named.find((point) => point.lsn > from)?.lsn ?? newest?.lsn ?? 0;
  return lsn > from ? lsn : null;
}

/** A point may go before its turn comes: a snapshot is deleted, a cut thinned. Then the next one has to do. */
function without(state: Sender, target: number): Sender {
  const missed = state.missed + 1;
  // What was staged of it may be of no use, and the point still be there.
  if (state.staging !== null) return { ...state, missed, sending: null, staging: null };
  const named = state.named.filter(({ lsn }) => lsn !== target);
  const newest = state.newest?.lsn === target ? null : state.newest;
  return { ...state, missed, sending: null, named, newest };
}

function withPoint(state: Sender, point: Point): Sender {
  const newest = state.newest !== null && state.newest.lsn > point.lsn ? state.newest : point;
  if (point.name === "") return { ...state, newest };
  const others = state.named.filter(({ lsn }) => lsn !== point.lsn && lsn > (state.has ?? 0));
  const named = [...others, point].sort((left, right) => left.lsn - right.lsn).slice(-NAMED_MAX);
  return { ...state, newest, named };
}
