// A bandwidth limit as a bucket of tokens, one a byte. What was sent is taken after the fact, so the bucket may owe;
// the next chunk waits until it does not.

import { CHUNK_BYTES_MAX, CHUNK_BYTES_MIN } from "../limits.js";

export interface Bucket {
  /** Null: no limit. */
  bytesPerSecond: number | null;
  tokens: number;
  atMs: number;
}

/** What a pause lets through at once, in time. */
const BURST_MS = 100;
/** A chunk takes so long at most, so that what else goes over the link is not held up. */
const CHUNK_MS = 50;

export function newBucket(bytesPerSecond: number | null, nowMs: number): Bucket {
  return { bytesPerSecond, tokens: 0, atMs: nowMs };
}

export function refill(bucket: Bucket, nowMs: number): Bucket {
  const { bytesPerSecond, tokens, atMs } = bucket;
  if (bytesPerSecond === null || nowMs <= atMs) return bucket;
  const burst = (bytesPerSecond * BURST_MS) / 1000;
  return {
    ...bucket,
    atMs: nowMs,
    tokens: Math.min(burst, tokens + ((nowMs - atMs) * bytesPerSecond) / 1000),
  };
}

export function spend(bucket: Bucket, bytes: number): Bucket {
  return bucket.bytesPerSecond === null ? bucket : { ...bucket, tokens: bucket.tokens - bytes };
}

/** How long to wait before the next chunk; 0: not at all. */
export function waitMs({ bytesPerSecond, tokens }: Bucket): number {
  return bytesPerSecond === null || tokens >= 0 ? 0 : Math.ceil((-tokens * 1000) / bytesPerSecond);
}

export function chunkBytesMax({ bytesPerSecond }: Bucket): number {
  if (bytesPerSecond === null) return CHUNK_BYTES_MAX;
  const bytes = Math.floor((bytesPerSecond * CHUNK_MS) / 1000);
  return Math.min(CHUNK_BYTES_MAX, Math.max(CHUNK_BYTES_MIN, bytes));
}
