// How long to wait before a peer is called again: doubled each time, and drawn, so that two sites that lost each other
// do not call in step.

import { RETRY_MS_MAX, RETRY_MS_MIN } from "../limits.js";

/** `failures` in a row, at least one; `draw` from 0 to 1. */
export function retryAfterMs(failures: number, draw: number): number {
  const whole = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(failures - 1, 16));
  return Math.round(whole * (0.5 + draw / 2));
}
