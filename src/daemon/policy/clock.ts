// Time for policies. When something is due is told by the wall clock; how long to wait by the monotonic one.

export interface Clock {
  /** Milliseconds since 1970; may jump. */
  wallMs(): number;
  /** Never goes back; may stand still while the machine sleeps. */
  monotonicMs(): number;
  /** Calls once, after some time of the monotonic clock; the result takes it back. */
  wake(afterMs: number, call: () => void): () => void;
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  wake: (afterMs, call) => {
    const timer = setTimeout(call, Math.ceil(afterMs));
    return () => clearTimeout(timer);
  },
};
