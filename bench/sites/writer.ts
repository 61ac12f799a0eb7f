// Changes a file at a steady rate, by itself: node writer.js FILE MIB MIB_A_SECOND SECONDS SEED. Writes of 4 KiB to 1 MiB,
// each size (a power of two) as often as the others in bytes, at aligned places; nothing in them can be compressed or
// was there before. Says at the end what it did.

import { randomBytes } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";

const TICK_MS = 5;
const BLOCK = 4096;
const SIZES = 9;
/** Pieces of it are what is written; larger than what any cache of duplicates could find. */
const NOISE_BYTES = 16 * 2 ** 20;

const [path = "", mib, rate, seconds, seed] = process.argv.slice(2);
const blocks = (Number(mib) * 2 ** 20) / BLOCK;
const bytesPerMs = (Number(rate) * 2 ** 20) / 1000;
const noise = randomBytes(NOISE_BYTES);
const touched = new Uint8Array(blocks);

let state = Number(seed) >>> 0;
const random = (below: number): number => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};

let [bytes, writes, longestMs] = [0, 0, 0];
/** Bytes that each size has got: the one with the least is next. */
const shares = new Array<number>(SIZES).fill(0);
const file = openSync(path, "r+");
const begun = performance.now();

function writeOne(): void {
  const size = shares.indexOf(Math.min(...shares));
  const count = Math.min(2 ** size, blocks);
  const length = count * BLOCK;
  const block = random(blocks - count + 1);
  const at = random(NOISE_BYTES - length + 1);
  const before = performance.now();
  writeSync(file, noise, at, length, block * BLOCK);
  longestMs = Math.max(longestMs, performance.now() - before);
  touched.fill(1, block, block + count);
  shares[size] = (shares[size] ?? 0) + length;
  bytes += length;
  writes += 1;
}

function tick(): void {
  const elapsed = performance.now() - begun;
  const due = Math.min(elapsed, Number(seconds) * 1000) * bytesPerMs;
  while (bytes < due) writeOne();
  if (elapsed < Number(seconds) * 1000) return void setTimeout(tick, TICK_MS);
  closeSync(file);
  const distinct = touched.reduce((sum, one) => sum + one, 0) * BLOCK;
  process.stdout.write(
    `${JSON.stringify({ bytes, writes, distinct, longestMs, seconds: elapsed / 1000 })}\n`,
  );
}

tick();
