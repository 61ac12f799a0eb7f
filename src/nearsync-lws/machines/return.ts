// A former owner returns: it finds that another site has taken its group over, keeps what only it has as a fork, and
// follows. One that has given the group away, or did nothing more, follows as it is.
//
// - Nothing is done before the plan is stored, and the plan is forgotten last: a crash at any step begins again with
//   the step after the plan, and every step that was done does nothing.
// - The fence is the first step, in the engine and durable: from then on nobody changes the group here, whatever
//   happens to the rest. Nothing is given up: what was acknowledged is in the fork, or in the follower.
// - A step that fails is tried again; nothing is skipped.

import { RETURN_RETRY_MS } from "../limits.js";

/** Who owns a group now, and where the two part. */
export interface Successor {
  /** The successor's group, which is another one. */
  group: string;
  epochId: string;
  /** Its own LSN of the last recovery point that both have; null: none is left. */
  lsn: number | null;
  /** The epoch that the two had in common, and the same point in it. */
  of: string;
  at: number | null;
  timeNs: bigint;
}

export interface ReturnPlan {
  /** The group that was owned here. */
  group: string;
  /** What it was called. */
  name: string;
  /** Who owns it now. */
  peer: string;
  successor: Successor;
  /** What is here of the last common point; null: none is left, all of it is the fork. */
  at: number | null;
  /** What it will be called, if there is one. */
  fork: string;
  /** How it was protected: the other direction gets the same. */
  back: { rpoMs: number; bytesPerSecond: number | null; rf: number };
}

export const STEPS = [
  /** The plan is stored. */
  "save",
  /** Nobody changes the group any more. */
  "fence",
  /** Nobody is sent it any more. */
  "release",
  /** Nobody has it mounted any more. */
  "unmount",
  /** Did users do anything here that the owner of now does not have? */
  "look",
  /** They did not: it follows as it is, with its past. */
  "turn",
  /** They did: what is here becomes the fork, and a follower takes its name. */
  "rejoin",
  /** What was sent to whom is not any more, also after a start. */
  "unprotect",
  /** The owner of now is asked to send. */
  "follow",
  "forget",
] as const;
export type Step = (typeof STEPS)[number];

export interface Return {
  step: Step | "done";
  /** The step is being carried out. */
  busy: boolean;
  problem: { code: string; message: string } | null;
  retryMs: number | null;
}

export type ReturnEvent =
  | { type: "begin" }
  | { type: "done"; step: Step; isEmpty?: boolean }
  | { type: "failed"; step: Step; code: string; message: string; nowMs: number }
  | { type: "tick"; nowMs: number };

export type ReturnEffect = { type: "run"; step: Step } | { type: "wake"; atMs: number };

/** `stored`: the plan is there already, after a start. */
export function newReturn(how: { stored: boolean }): Return {
  return { step: how.stored ? "fence" : "save", busy: false, problem: null, retryMs: null };
}

export function returning(state: Return, event: ReturnEvent): [Return, ReturnEffect[]] {
  switch (event.type) {
    case "begin":
      return run(state);
    case "done":
      if (!state.busy || event.step !== state.step) return [state, []];
      return run({
        step: after(event.step, event.isEmpty === true),
        busy: false,
        problem: null,
        retryMs: null,
      });
    case "failed": {
      if (!state.busy || event.step !== state.step) return [state, []];
      const { code, message, nowMs } = event;
      const retryMs = nowMs + RETURN_RETRY_MS;
      return [
        { ...state, busy: false, problem: { code, message }, retryMs },
        [{ type: "wake", atMs: retryMs }],
      ];
    }
    case "tick":
      if (state.busy || state.retryMs === null) return [state, []];
      // A timer may ring a little early.
      if (event.nowMs < state.retryMs) return [state, [{ type: "wake", atMs: state.retryMs }]];
      return run(state);
  }
}

function run(state: Return): [Return, ReturnEffect[]] {
  if (state.busy || state.step === "done") return [state, []];
  return [{ ...state, busy: true, retryMs: null }, [{ type: "run", step: state.step }]];
}

function after(step: Step, isEmpty: boolean): Step | "done" {
  // One of the two.
  if (step === "look" && !isEmpty) return "rejoin";
  if (step === "turn") return "unprotect";
  return STEPS[STEPS.indexOf(step) + 1] ?? "done";
}

/** An answer of a peer to who owns now what a replica is of. */
export interface Claim {
  peer: string;
  successor: Successor;
  /** It may own the group, as the replica's site sees it. */
  mayOwn: boolean;
}

/** What the site of a replica makes of them, when nobody sends it any more. */
export type Adoption =
  /** Nobody else, or the owner goes on: it waits. */
  | { adoption: "wait" }
  | { adoption: "follow"; claim: Claim }
  /** It follows nobody who may not own. */
  | { adoption: "denied"; claim: Claim }
  /** Two have gone on: it does not choose. */
  | { adoption: "contested" };

/** `source`: the group that the replica is of, as the wire has it; `epochId`: the epoch of it. */
export function adopt(source: string, epochId: string, claims: readonly Claim[]): Adoption {
  const fitting = claims.filter(({ successor }) => successor.of === epochId);
  const isSame = ({ successor }: Claim) => successor.group === source;
  if (fitting.some((claim) => isSame(claim) && claim.successor.epochId === epochId))
    return { adoption: "wait" };
  // One that has given the group away and taken it back is its owner still, in another epoch.
  const able = fitting.filter((claim) => claim.mayOwn || isSame(claim));
  const [claim] = able;
  if (claim === undefined) {
    const [denied] = fitting;
    return denied === undefined ? { adoption: "wait" } : { adoption: "denied", claim: denied };
  }
  const isAlone = able.every(({ successor }) => successor.group === claim.successor.group);
  return isAlone ? { adoption: "follow", claim } : { adoption: "contested" };
}

/** What a site that owned a group makes of an answer to who owns it now. */
export type Verdict =
  /** Nobody else: it stays. */
  | { verdict: "stay" }
  | { verdict: "follow" }
  /** It stops at nobody's word who may not own. */
  | { verdict: "denied" }
  /** Both have gone on from an epoch that is no one's any more: neither yields by itself. */
  | { verdict: "split" }
  /** Two peers have taken it over: it does not choose between them. */
  | { verdict: "contested" };

/**
 * `epochId`: in which the asker owns the group; `mayOwn`: the peer may own it, as this site sees it; `others`: what
 * other peers say that were sent the group.
 */
export function judge(
  epochId: string,
  successor: Successor | null,
  { mayOwn, others }: { mayOwn: boolean; others: readonly Successor[] },
): Verdict {
  if (successor === null) return { verdict: "stay" };
  if (!mayOwn) return { verdict: "denied" };
  if (others.some(({ group }) => group !== successor.group)) return { verdict: "contested" };
  // The successor went on from the very epoch in which this site owns the group: it is the newer one.
  return successor.of === epochId ? { verdict: "follow" } : { verdict: "split" };
}
