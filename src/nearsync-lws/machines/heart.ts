// Is the peer there? Heartbeats go through the pipe that everything else goes through, and count only when they are
// answered: a link that works in one direction is down for both ends.

import { BEAT_LOST_MS, BEAT_MS, STALL_MS } from "../limits.js";

export interface Heart {
  /** When the newest beat was sent, on our clock since boot; null: none yet. */
  sentNs: bigint | null;
  /** Of the newest beat that was answered, when it was sent; at first the session's begin. */
  answeredNs: bigint;
  /** Of the newest answer. */
  roundTripMs: number | null;
  /** Bytes that came at the other end of the bulk socket, and when that grew last, or all had come. */
  bulkArrived: number;
  bulkMovedNs: bigint;
}

export type HeartEvent =
  | { type: "tick"; nowNs: bigint }
  /** The peer answers the beat of `sentNs`. */
  | { type: "answer"; sentNs: bigint; nowNs: bigint; bulkSent: number; bulkArrived: number };

export type HeartEffect = { type: "beat"; sentNs: bigint } | { type: "lost"; reason: string };

const NS_IN_MS = 1_000_000n;

export function newHeart(nowNs: bigint): Heart {
  return { sentNs: null, answeredNs: nowNs, roundTripMs: null, bulkArrived: 0, bulkMovedNs: nowNs };
}

export function heart(state: Heart, event: HeartEvent): [Heart, HeartEffect[]] {
  switch (event.type) {
    case "tick": {
      const silentMs = Number((event.nowNs - state.answeredNs) / NS_IN_MS);
      if (silentMs >= BEAT_LOST_MS)
        return [state, [{ type: "lost", reason: `no answer to a heartbeat for ${silentMs} ms` }]];
      const due = state.sentNs === null || event.nowNs - state.sentNs >= BigInt(BEAT_MS) * NS_IN_MS;
      if (!due) return [state, []];
      return [{ ...state, sentNs: event.nowNs }, [{ type: "beat", sentNs: event.nowNs }]];
    }
    case "answer": {
      // Answers come in order; one to a beat that was never sent, or was answered, tells nothing.
      const known = state.sentNs !== null && event.sentNs <= state.sentNs && event.sentNs > state.answeredNs;
      const first = state.roundTripMs === null && event.sentNs === state.answeredNs;
      if (!known && !first) return [state, []];
      const roundTripMs = Number(event.nowNs - event.sentNs) / Number(NS_IN_MS);
      return watchBulk({ ...state, answeredNs: event.sentNs, roundTripMs }, event);
    }
  }
}

/**
 * A firewall may forget one of the two connections; the kernel would say so after a quarter of an hour. Beats are
 * answered, and of what was sent on the bulk socket nothing more arrives: that is the end, too.
 */
function watchBulk(
  state: Heart,
  { nowNs, bulkSent, bulkArrived }: Extract<HeartEvent, { type: "answer" }>,
): [Heart, HeartEffect[]] {
  const moves = bulkArrived > state.bulkArrived || bulkArrived >= bulkSent;
  if (moves) return [{ ...state, bulkArrived, bulkMovedNs: nowNs }, []];
  const stalledMs = Number((nowNs - state.bulkMovedNs) / NS_IN_MS);
  if (stalledMs < STALL_MS) return [state, []];
  return [state, [{ type: "lost", reason: `nothing arrives on the bulk socket for ${stalledMs} ms` }]];
}
