// Takes the batches of one group from its owner: stages chunks in order, commits whole batches, grants credit.
//
// - The two sockets are not in step with each other: a batch exists from the first that comes of it, `begin` or a
//   chunk, and is committed when its last chunk is staged *and* its `begin` is there (which has the point's times).
// - One call to the engine at a time, in the order in which things came; so the engine sees one batch after the other.
// - Chunks are held only within the credit; it is given back when a chunk is staged, so a slow engine slows the owner.
// - Nothing of a batch is visible before `commit`; an acknowledgement says what the engine said.
// - Whatever does not continue what is there is a violation: the session ends, and the next one begins with `state`.

import type { ErrorCode } from "../../io-path/errors.js";
import { BATCHES_MAX, CREDIT_BYTES } from "../limits.js";
import type { Point, Staging } from "./door.js";

export interface Receiving {
  epochId: string;
  base: number | null;
  target: number;
  /** From `begin`. */
  point: Point | null;
  /** The sequence of the chunk that is due. */
  due: number;
  /** The last chunk came. */
  whole: boolean;
}

export type ReceiverWork =
  | { work: "query" }
  | { work: "create"; ref: number }
  | {
      work: "stage";
      ref: number;
      bytes: number;
      epochId: string;
      base: number | null;
      target: number;
      last: boolean;
    }
  | { work: "commit"; target: number };

export interface Receiver {
  link: "down" | "asked" | "up" | "stopped";
  /** Counts what the engine is asked for; answers to an earlier turn are let go. */
  turn: number;
  /** The owner's offer that this follows. */
  stream: number;
  /** The newest recovery point that is visible, which is flushed. */
  last: number | null;
  /** Came or coming, not committed; oldest first, two at most. */
  batches: Receiving[];
  /** What is to be done with the engine, in order; the first one runs while `busy`. */
  queue: ReceiverWork[];
  busy: boolean;
  /** Bytes granted and used since `state`. */
  creditMax: number;
  used: number;
  granted: number;
}

export type ReceiverEvent =
  | { type: "down" }
  | { type: "offer"; stream: number; ref: number }
  | { type: "begin"; stream: number; epochId: string; base: number | null; target: Point }
  | {
      type: "chunk";
      stream: number;
      ref: number;
      bytes: number;
      epochId: string;
      base: number | null;
      target: number;
      sequence: number;
      last: boolean;
    }
  /** The engine has done the first of the queue. */
  | { type: "queried"; turn: number; epochId: string | null; last: number | null; staging: Staging | null }
  | { type: "done"; turn: number }
  | { type: "failed"; turn: number; code: ErrorCode; message: string };

export type ReceiverEffect =
  | { type: "run"; turn: number; work: ReceiverWork; batch: Receiving | null }
  | { type: "drop"; ref: number }
  | {
      type: "state";
      epochId: string | null;
      last: number | null;
      staging: Staging | null;
      creditBytes: number;
    }
  | {
      type: "ack";
      epochId: string;
      received: number | null;
      applied: number | null;
      flushed: number | null;
    }
  | { type: "credit"; bytesMax: number }
  | { type: "stop"; code: ErrorCode; message: string; retry: boolean }
  | { type: "violation"; reason: string };

/** Credit is told when so much of it came together. */
const GRANT_BYTES = CREDIT_BYTES / 8;

export function newReceiver(): Receiver {
  return {
    link: "down",
    turn: 0,
    stream: 0,
    last: null,
    batches: [],
    queue: [],
    busy: false,
    creditMax: 0,
    used: 0,
    granted: 0,
  };
}

export function receiver(state: Receiver, event: ReceiverEvent): [Receiver, ReceiverEffect[]] {
  switch (event.type) {
    case "down":
      return halt(state, "down");
    case "offer": {
      // A new offer, in this session or a new one, begins anew; what runs is waited for first.
      const [halted, drops] = halt(state, "asked");
      const queue: ReceiverWork[] = [{ work: "create", ref: event.ref }, { work: "query" }];
      const [next, effects] = run({ ...halted, stream: event.stream, queue });
      return [next, [...drops, ...effects]];
    }
    case "begin":
      return onBegin(state, event);
    case "chunk":
      return onChunk(state, event);
    case "queried":
    case "done":
      return onDone(state, event);
    case "failed": {
      const free = { ...state, busy: false };
      if (event.turn !== state.turn) return run(free);
      const [halted, drops] = halt({ ...free, queue: free.queue.slice(1) }, "stopped");
      const { code, message } = event;
      const retry = code === "NoSpace" || code === "Unavailable" || code === "Internal";
      return [halted, [...drops, { type: "stop", code, message, retry }]];
    }
  }
}

/** Everything that waits is let go; what runs in the engine ends by itself, and its answer is let go. */
function halt(state: Receiver, link: Receiver["link"]): [Receiver, ReceiverEffect[]] {
  const waiting = state.busy ? state.queue.slice(1) : state.queue;
  const none = { batches: [], queue: [], creditMax: 0, used: 0, granted: 0 };
  return [{ ...state, ...none, link, turn: state.turn + 1 }, waiting.flatMap(dropOf)];
}

function dropOf(work: ReceiverWork | undefined): ReceiverEffect[] {
  return work?.work === "stage" || work?.work === "create" ? [{ type: "drop", ref: work.ref }] : [];
}

function onBegin(
  state: Receiver,
  { stream, epochId, base, target }: Extract<ReceiverEvent, { type: "begin" }>,
): [Receiver, ReceiverEffect[]] {
  if (state.link !== "up" || stream !== state.stream) return [state, []];
  const there = state.batches.find((batch) => batch.target === target.lsn && batch.point === null);
  if (there !== undefined) {
    if (there.base !== base || there.epochId !== epochId)
      return violates(state, "begin and chunks of two batches");
    const batches = state.batches.map((batch) => (batch === there ? { ...batch, point: target } : batch));
    return finish({ ...state, batches });
  }
  const next = added(state, { epochId, base, target: target.lsn, point: target, due: 0, whole: false });
  return typeof next === "string" ? violates(state, next) : [next, []];
}

function onChunk(
  state: Receiver,
  event: Extract<ReceiverEvent, { type: "chunk" }>,
): [Receiver, ReceiverEffect[]] {
  const drop: ReceiverEffect = { type: "drop", ref: event.ref };
  if (state.link !== "up" || event.stream !== state.stream) return [state, [drop]];
  const { epochId, base, target, sequence, last, bytes, ref } = event;
  const used = state.used + bytes;
  if (used > state.creditMax) return violates(state, "more bytes than there was credit for", drop);
  const begun = state.batches.some((batch) => !batch.whole && batch.target === target);
  const next = begun ? state : added(state, { epochId, base, target, point: null, due: 0, whole: false });
  if (typeof next === "string") return violates(state, next, drop);
  // Chunks are in order among themselves: nothing of a batch comes before all of the one before it.
  const batch = next.batches.find((one) => !one.whole);
  const fits = batch?.target === target && batch.base === base && batch.epochId === epochId;
  if (!fits || batch.due !== sequence) {
    return violates(
      state,
      `chunk ${sequence} of batch ${base ?? "-"} to ${target} is not the one that is due`,
      drop,
    );
  }
  const batches = next.batches.map((one) =>
    one === batch ? { ...one, due: sequence + 1, whole: last } : one,
  );
  const work: ReceiverWork = { work: "stage", ref, bytes, epochId, base, target, last };
  return run({ ...next, batches, used, queue: [...next.queue, work] });
}

/** The list with one batch more, or why it does not belong there. */
function added(state: Receiver, batch: Receiving): Receiver | string {
  const before = state.batches.at(-1);
  const tip = before?.target ?? state.last;
  if (before !== undefined && !before.whole) {
    // Its last chunk may be on the way still, on the other socket.
    if (batch.point === null || before.point === null) return "a batch before the one before it is whole";
  }
  if (batch.base !== tip || batch.target <= (tip ?? 0))
    return `a batch from ${batch.base ?? "-"} where ${tip ?? "-"} is`;
  if (state.batches.length >= BATCHES_MAX) return `more than ${BATCHES_MAX} batches that are not applied`;
  return { ...state, batches: [...state.batches, batch] };
}

function violates(state: Receiver, reason: string, ...also: ReceiverEffect[]): [Receiver, ReceiverEffect[]] {
  const [halted, drops] = halt(state, "stopped");
  return [halted, [...drops, ...also, { type: "violation", reason }]];
}

function onDone(
  state: Receiver,
  event: Extract<ReceiverEvent, { type: "queried" | "done" }>,
): [Receiver, ReceiverEffect[]] {
  const free = { ...state, busy: false };
  if (event.turn !== state.turn) return run(free);
  const [done, ...queue] = free.queue;
  const rest = { ...free, queue };
  if (event.type === "queried") {
    const up: Receiver = {
      ...rest,
      link: "up",
      last: event.last,
      creditMax: CREDIT_BYTES,
      granted: CREDIT_BYTES,
    };
    const { epochId, last, staging } = event;
    return [up, [{ type: "state", epochId, last, staging, creditBytes: CREDIT_BYTES }]];
  }
  if (done?.work === "stage") return onStaged(rest, done);
  if (done?.work !== "commit") return run(rest);
  const [batch, ...batches] = rest.batches;
  const last = done.target;
  const [next, effects] = finish({ ...rest, last, batches });
  const ack = { received: newestWhole(rest), applied: last, flushed: last };
  return [next, [{ type: "ack", epochId: batch?.epochId ?? "", ...ack }, ...effects]];
}

function onStaged(
  state: Receiver,
  done: Extract<ReceiverWork, { work: "stage" }>,
): [Receiver, ReceiverEffect[]] {
  const creditMax = state.creditMax + done.bytes;
  const tells = creditMax - state.granted >= GRANT_BYTES || done.last;
  const credit: ReceiverEffect[] = tells ? [{ type: "credit", bytesMax: creditMax }] : [];
  const paid = { ...state, creditMax, granted: tells ? creditMax : state.granted };
  const received: ReceiverEffect[] = done.last
    ? [
        {
          type: "ack",
          epochId: done.epochId,
          received: done.target,
          applied: paid.last,
          flushed: paid.last,
        },
      ]
    : [];
  const [next, effects] = finish(paid);
  return [next, [...credit, ...received, ...effects]];
}

function newestWhole({ batches, last }: Receiver): number | null {
  return batches.findLast(({ whole }) => whole)?.target ?? last;
}

/** The first batch is committed when it is staged as a whole and its point is known. */
function finish(state: Receiver): [Receiver, ReceiverEffect[]] {
  const [first] = state.batches;
  const staging = state.queue.some((work) => work.work === "stage" && work.target === first?.target);
  const queued = state.queue.some((work) => work.work === "commit");
  if (first === undefined || !first.whole || first.point === null || staging || queued) return run(state);
  // Before the chunks of the batch after it.
  const running = state.busy ? state.queue.slice(0, 1) : [];
  const waiting = state.busy ? state.queue.slice(1) : state.queue;
  return run({ ...state, queue: [...running, { work: "commit", target: first.target }, ...waiting] });
}

/** Starts the first of the queue; a stage of the second batch waits until the first one is committed. */
function run(state: Receiver): [Receiver, ReceiverEffect[]] {
  const [work] = state.queue;
  if (state.busy || work === undefined) return [state, []];
  const [first] = state.batches;
  if (work.work === "stage" && first !== undefined && work.target !== first.target) return [state, []];
  const batch = work.work === "commit" ? (first ?? null) : null;
  return [{ ...state, busy: true }, [{ type: "run", turn: state.turn, work, batch }]];
}
