// A planned change of owner: the *giver* has the group, the *taker* its replica. REPLICATION.md 15.
//
// Giver                                          Taker
//   copies, round by round, until little is left
//   closes the gate: writers wait
//   ships the last recovery point                  has it, flushed
//   notes, durably, to whom it goes
//   relinquishes, durably: from here on it never
//     takes a change of a user again
//   grants, again and again                        promotes its replica, durably
//   settles: the note says who has it              tells that it is taken, as often as it is granted
//
// - The word that counts is the engine's, "given away": before it the giver goes on as if nothing had been, after it
//   never. The note beside it says to whom; it is written before, and means nothing without that word.
// - Writers wait for `FREEZE_MS` at most: a step that is late before that word ends the attempt. A change that slipped
//   in after the last recovery point makes another one.
// - A grant is given only by who relinquished, and says at which point; a taker without that point refuses it.
// - The taker needs no memory: what it is, its engine knows; a grant that comes again is answered again.
// - One effect at a time is under way at each side. Answers carry the `turn` of their question; those to an earlier one
//   are let go.

import type { ErrorCode } from "../../io-path/errors.js";
import { COPY_MS_MAX, FREEZE_MS, GRANT_RETRY_MS, LITTLE_MS, REQUEST_RETRY_MS } from "../limits.js";

export interface Problem {
  code: ErrorCode;
  message: string;
}

/** What the taker has become. */
export interface Taken {
  /** Uuid of its group, and the lineage that it goes on with. */
  uuid: string;
  epochId: string;
  /** The last recovery point that both have: the giver's LSN of it, and the taker's. */
  lsn: number;
  localLsn: number;
}

export interface Giver {
  /** `opening`: given up, and the gate opens. */
  phase:
    | "copying"
    | "closing"
    | "shipping"
    | "noting"
    | "relinquishing"
    | "granting"
    | "settling"
    | "opening"
    | "over";
  turn: number;
  beganMs: number;
  /** Since when writers wait; null: they do not. */
  closedMs: number | null;
  /** How long they did, when it was given. */
  waitedMs: number | null;
  /** Of the last recovery point. */
  lsn: number | null;
  grantedMs: number;
  taken: Taken | null;
  problem: Problem | null;
}

export type GiverEvent =
  /** All that was there a round ago is at the taker; the round took so long. */
  | { type: "copied"; turn: number; nowMs: number; tookMs: number }
  | { type: "closed"; turn: number; nowMs: number }
  | { type: "shipped"; turn: number; nowMs: number; lsn: number }
  | { type: "noted"; turn: number; nowMs: number }
  | { type: "relinquished"; turn: number; nowMs: number }
  | { type: "settled"; turn: number; nowMs: number }
  | { type: "opened"; turn: number; nowMs: number }
  | { type: "failed"; turn: number; nowMs: number; problem: Problem }
  | { type: "tick"; nowMs: number }
  /** The taker says so; of itself, not as an answer. */
  | { type: "taken"; nowMs: number; taken: Taken }
  | { type: "refused"; nowMs: number; problem: Problem }
  /** What was given is about to be taken back, on purpose. */
  | { type: "revoked"; nowMs: number };

export type GiverEffect =
  /** A recovery point of now is at the taker, flushed, when it is answered. */
  | { type: "copy"; turn: number }
  | { type: "close"; turn: number }
  /** The same as `copy`, behind the gate. */
  | { type: "ship"; turn: number }
  | { type: "note"; turn: number; lsn: number }
  | { type: "relinquish"; turn: number; lsn: number }
  | { type: "grant"; lsn: number }
  | { type: "settle"; turn: number; taken: Taken }
  /** Writers go on; then the note goes, if there is one. */
  | { type: "open"; turn: number }
  | { type: "end"; problem: Problem | null };

type GiverStep = [Giver, GiverEffect[]];

const START: Giver = {
  phase: "copying",
  turn: 1,
  beganMs: 0,
  closedMs: null,
  waitedMs: null,
  lsn: null,
  grantedMs: 0,
  taken: null,
  problem: null,
};

export function newGiver(nowMs: number): GiverStep {
  return [{ ...START, beganMs: nowMs }, [{ type: "copy", turn: 1 }]];
}

/** After a start of one that had relinquished, as the engine says. */
export function resumedGiver(lsn: number, nowMs: number): GiverStep {
  return grant({ ...START, beganMs: nowMs, phase: "granting", lsn }, nowMs);
}

export function giver(state: Giver, event: GiverEvent): GiverStep {
  if ("turn" in event && event.turn !== state.turn) return [state, []];
  switch (event.type) {
    case "copied": {
      if (event.tookMs <= LITTLE_MS) return next({ ...state, closedMs: event.nowMs }, "closing", "close");
      const late = event.nowMs - state.beganMs > COPY_MS_MAX;
      return late ? givenUp(state, tooMuch()) : next(state, "copying", "copy");
    }
    case "closed":
      return next(state, "shipping", "ship");
    case "shipped": {
      const { lsn } = event;
      const turn = state.turn + 1;
      return [{ ...state, phase: "noting", turn, lsn }, [{ type: "note", turn, lsn }]];
    }
    case "noted": {
      const turn = state.turn + 1;
      const lsn = state.lsn ?? 0;
      return [{ ...state, phase: "relinquishing", turn }, [{ type: "relinquish", turn, lsn }]];
    }
    case "relinquished":
      return relinquished(state, event.nowMs);
    case "settled":
      return [{ ...state, phase: "over", turn: state.turn + 1 }, [{ type: "end", problem: null }]];
    case "opened":
      return [{ ...state, phase: "over", turn: state.turn + 1 }, [{ type: "end", problem: state.problem }]];
    case "failed":
      return onFailed(state, event.nowMs, event.problem);
    case "tick":
      return onTick(state, event.nowMs);
    case "taken": {
      if (state.phase !== "granting") return [state, []];
      return settle({ ...state, taken: event.taken });
    }
    case "refused":
      // Only for who asks: it is the taker's until somebody takes it back on purpose.
      return state.phase === "granting" ? [{ ...state, problem: event.problem }, []] : [state, []];
    case "revoked": {
      // A grant that is on its way may still arrive: whoever takes back says that nobody else goes on.
      if (state.phase !== "granting" && state.phase !== "settling") return [state, []];
      const problem: Problem = { code: "Conflict", message: "the group was taken back" };
      return [{ ...state, phase: "over", turn: state.turn + 1, problem }, [{ type: "end", problem }]];
    }
  }
}

function next(state: Giver, phase: Giver["phase"], type: "copy" | "close" | "ship"): GiverStep {
  const turn = state.turn + 1;
  return [{ ...state, phase, turn }, [{ type, turn }]];
}

function grant(state: Giver, nowMs: number): GiverStep {
  return [{ ...state, grantedMs: nowMs }, [{ type: "grant", lsn: state.lsn ?? 0 }]];
}

function relinquished(state: Giver, nowMs: number): GiverStep {
  const waitedMs = state.closedMs === null ? null : nowMs - state.closedMs;
  return grant({ ...state, phase: "granting", turn: state.turn + 1, waitedMs }, nowMs);
}

function settle(state: Giver): GiverStep {
  const turn = state.turn + 1;
  const { taken } = state;
  return taken === null
    ? [state, []]
    : [{ ...state, phase: "settling", turn }, [{ type: "settle", turn, taken }]];
}

function givenUp(state: Giver, problem: Problem): GiverStep {
  const turn = state.turn + 1;
  return [{ ...state, phase: "opening", turn, problem }, [{ type: "open", turn }]];
}

function isLate({ closedMs }: Giver, nowMs: number): boolean {
  return closedMs !== null && nowMs - closedMs >= FREEZE_MS;
}

function onFailed(state: Giver, nowMs: number, problem: Problem): GiverStep {
  switch (state.phase) {
    case "copying":
    case "closing":
    case "shipping":
    case "noting":
      return givenUp(state, problem);
    case "relinquishing":
      // Something changed after the last recovery point: it was not the last one.
      return problem.code === "Conflict" && !isLate(state, nowMs)
        ? next(state, "shipping", "ship")
        : givenUp(state, problem);
    case "opening":
      // The gate opens by itself in any case, and a note alone means nothing.
      return [{ ...state, phase: "over", turn: state.turn + 1 }, [{ type: "end", problem: state.problem }]];
    case "settling":
      // The taker tells it again.
      return [{ ...state, phase: "granting", turn: state.turn + 1, problem }, []];
    case "granting":
    case "over":
      return [state, []];
  }
}

function onTick(state: Giver, nowMs: number): GiverStep {
  switch (state.phase) {
    case "closing":
    case "shipping":
    case "noting":
      return isLate(state, nowMs) ? givenUp(state, late(state.phase)) : [state, []];
    case "granting":
      return nowMs - state.grantedMs < GRANT_RETRY_MS ? [state, []] : grant(state, nowMs);
    case "copying":
    case "relinquishing":
    case "settling":
    case "opening":
    case "over":
      return [state, []];
  }
}

function late(phase: "closing" | "shipping" | "noting"): Problem {
  const what = {
    closing: "requests that were under way did not end",
    shipping: "the last recovery point did not arrive at the peer",
    noting: "the state folder did not take the note",
  };
  const message = `${what[phase]} within ${FREEZE_MS} ms: writers go on here, nothing has changed`;
  return { code: "Unavailable", message };
}

function tooMuch(): Problem {
  const message = `more is written here than the line takes: the peer was not close behind for ${COPY_MS_MAX} ms`;
  return { code: "Unavailable", message };
}

export interface Taker {
  /** `asking`: somebody here wants it, and the giver is at work. */
  phase: "idle" | "asking" | "promoting";
  turn: number;
  /** Somebody here waits for the outcome. */
  wanted: boolean;
  askedMs: number;
}

export type TakerEvent =
  | { type: "ask"; nowMs: number }
  | { type: "tick"; nowMs: number }
  | { type: "granted"; epochId: string; lsn: number }
  | { type: "promoted"; turn: number; taken: Taken }
  | { type: "failed"; turn: number; problem: Problem }
  /** The giver has given up. */
  | { type: "refused"; problem: Problem }
  | { type: "down" };

export type TakerEffect =
  | { type: "request" }
  /** `Conflict` unless the replica has that point of that lineage; done before: the same answer. */
  | { type: "promote"; turn: number; epochId: string; lsn: number }
  | { type: "tell"; taken: Taken }
  | { type: "complain"; problem: Problem }
  | { type: "end"; problem: Problem | null };

export function newTaker(): Taker {
  return { phase: "idle", turn: 0, wanted: false, askedMs: 0 };
}

export function taker(state: Taker, event: TakerEvent): [Taker, TakerEffect[]] {
  if ("turn" in event && event.turn !== state.turn) return [state, []];
  switch (event.type) {
    case "ask":
      return state.phase === "idle"
        ? request({ ...state, wanted: true }, event.nowMs)
        : [{ ...state, wanted: true }, []];
    case "tick":
      // The answer to the first may have been lost; the giver joins the two.
      return state.phase === "asking" && event.nowMs - state.askedMs >= REQUEST_RETRY_MS
        ? request(state, event.nowMs)
        : [state, []];
    case "granted": {
      if (state.phase === "promoting") return [state, []];
      const turn = state.turn + 1;
      const { epochId, lsn } = event;
      return [{ ...state, phase: "promoting", turn }, [{ type: "promote", turn, epochId, lsn }]];
    }
    case "promoted":
      return over(state, null, { type: "tell", taken: event.taken });
    case "failed":
      return over(state, event.problem, { type: "complain", problem: event.problem });
    case "refused":
      return state.phase === "asking" ? over(state, event.problem) : [state, []];
    case "down": {
      if (state.phase !== "asking") return [state, []];
      const message = "the owner's connection broke: it may have given the group away, or go on with it";
      return over(state, { code: "Unavailable", message });
    }
  }
}

function request(state: Taker, nowMs: number): [Taker, TakerEffect[]] {
  return [{ ...state, phase: "asking", askedMs: nowMs }, [{ type: "request" }]];
}

function over(state: Taker, problem: Problem | null, ...first: TakerEffect[]): [Taker, TakerEffect[]] {
  const end: TakerEffect[] = state.wanted ? [{ type: "end", problem }] : [];
  return [{ ...state, phase: "idle", turn: state.turn + 1, wanted: false }, [...first, ...end]];
}
