// The machines one by one, where a table says it better than a simulation.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BEAT_LOST_MS, BEAT_MS, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN } from "../../src/nearsync-lws/limits.js";
import { CUT_MS_MIN, RETRY_MS_MAX, RETRY_MS_MIN, STALL_MS } from "../../src/nearsync-lws/limits.js";
import { chunkBytesMax, newBucket, refill, spend, waitMs } from "../../src/nearsync-lws/machines/bucket.js";
import { heart, newHeart } from "../../src/nearsync-lws/machines/heart.js";
import { lag, newLag, reportLag } from "../../src/nearsync-lws/machines/lag.js";
import { retryAfterMs } from "../../src/nearsync-lws/machines/retry.js";
import { newSchedule, schedule } from "../../src/nearsync-lws/machines/schedule.js";

const point = (lsn: number, bootMs: number) => ({
  lsn,
  name: "",
  timeNs: 0n,
  bootNs: BigInt(bootMs) * 1_000_000n,
});

describe("schedule", () => {
  it("cuts every half RPO, 200 ms at least, and skips what nobody has room for", () => {
    let state = newSchedule(1000, 0);
    assert.equal(state.everyMs, 500);
    assert.equal(newSchedule(100, 0).everyMs, CUT_MS_MIN);
    const cuts: number[] = [];
    for (let nowMs = 0; nowMs <= 5000; nowMs += 50) {
      const wanting = nowMs > 1200 && nowMs < 2710 ? [] : ["b", "a"];
      const [next, effects] = schedule(state, { type: "tick", nowMs, wanting });
      state = next;
      if (effects.length === 0) continue;
      assert.deepEqual(effects, [{ type: "cut", followers: ["a", "b"] }]);
      cuts.push(nowMs);
      [state] = schedule(state, { type: "cut", nowMs, point: point(nowMs + 1, nowMs) });
    }
    assert.deepEqual(cuts, [0, 500, 1000, 2750, 3000, 3500, 4000, 4500, 5000]);
    assert.equal(state.skipped, 2);
  });

  it("cuts once at a time, and at once when it is forced", () => {
    let [state] = schedule(newSchedule(1000, 0), { type: "tick", nowMs: 0, wanting: ["b"] });
    [state] = schedule(state, { type: "force" });
    assert.deepEqual(schedule(state, { type: "tick", nowMs: 600, wanting: ["b"] })[1], []);
    [state] = schedule(state, { type: "cutFailed", nowMs: 610 });
    assert.equal(schedule(state, { type: "tick", nowMs: 620, wanting: ["b"] })[1].length, 1);
  });
});

describe("lag", () => {
  it("grows by a second a second, and its parts add up and name the place", () => {
    let state = lag(newLag(500), { type: "point", point: point(10, 1000) });
    assert.equal(reportLag(state, 5000).rpoMs, null);
    state = lag(state, { type: "ack", received: 10, applied: 10, flushed: 10 });
    assert.deepEqual(reportLag(state, 1300), { rpoMs: 300, cutMs: 300, shipMs: 0, applyMs: 0, flushMs: 0 });
    state = lag(state, { type: "point", point: point(20, 1500) });
    assert.deepEqual(reportLag(state, 1700), { rpoMs: 700, cutMs: 200, shipMs: 500, applyMs: 0, flushMs: 0 });
    // The pipe is full, so there is no cut: that is not the cut's fault.
    const frozen = reportLag(state, 61_500);
    assert.deepEqual([frozen.rpoMs, frozen.cutMs, frozen.shipMs], [60_500, 500, 60_000]);
    state = lag(state, { type: "ack", received: 20, applied: 10, flushed: 10 });
    assert.deepEqual(reportLag(state, 1700), { rpoMs: 700, cutMs: 200, shipMs: 0, applyMs: 500, flushMs: 0 });
    state = lag(state, { type: "ack", received: 20, applied: 20, flushed: 10 });
    assert.equal(reportLag(state, 1700).flushMs, 500);
    state = lag(state, { type: "ack", received: 20, applied: 20, flushed: 20 });
    assert.equal(reportLag(state, 1700).rpoMs, 200);
    // Nothing changed since: the same LSN, cut again.
    state = lag(state, { type: "point", point: point(20, 9000) });
    assert.equal(reportLag(state, 9100).rpoMs, 100);
  });

  it("never goes below nothing, and old news change nothing", () => {
    let state = lag(newLag(500), { type: "point", point: point(10, 1000) });
    state = lag(state, { type: "ack", received: 10, applied: 10, flushed: 10 });
    state = lag(state, { type: "ack", received: 5, applied: null, flushed: 3 });
    assert.equal(reportLag(state, 900).rpoMs, 0);
    assert.equal(state.flushed, 10);
  });
});

describe("bandwidth", () => {
  it("comes to what is allowed over any second, in chunks of 50 ms", () => {
    const rate = 1 << 20;
    let bucket = newBucket(rate, 0);
    let sent = 0;
    const size = chunkBytesMax(bucket);
    assert.equal(size, Math.floor(rate / 20));
    for (let nowMs = 0; nowMs < 10_000; nowMs += 1) {
      bucket = refill(bucket, nowMs);
      if (waitMs(bucket) > 0) continue;
      bucket = spend(bucket, size);
      sent += size;
    }
    assert.ok(Math.abs(sent / 10 - rate) < 2 * size, `${sent / 10} a second`);
    assert.ok(refill(bucket, 1e9).tokens <= rate / 10, "a pause does not save up more than 100 ms");
  });

  it("without a limit nothing waits; a low one has chunks that are not mostly headers", () => {
    const free = spend(newBucket(null, 0), 1e9);
    assert.deepEqual([waitMs(free), chunkBytesMax(free)], [0, CHUNK_BYTES_MAX]);
    assert.equal(chunkBytesMax(newBucket(1000, 0)), CHUNK_BYTES_MIN);
  });
});

describe("heartbeats", () => {
  const ms = (value: number) => BigInt(value) * 1_000_000n;
  it("are sent on time, count when answered, and end a link that is silent, or that only speaks", () => {
    let state = newHeart(ms(0));
    let effects: ReturnType<typeof heart>[1];
    [state, effects] = heart(state, { type: "tick", nowNs: ms(1) });
    assert.deepEqual(effects, [{ type: "beat", sentNs: ms(1) }]);
    [state, effects] = heart(state, { type: "tick", nowNs: ms(BEAT_MS) });
    assert.deepEqual(effects, []);
    const bulk = { bulkSent: 0, bulkArrived: 0 };
    [state] = heart(state, { type: "answer", sentNs: ms(1), nowNs: ms(21), ...bulk });
    assert.equal(state.roundTripMs, 20);
    for (const forged of [ms(1), ms(99_999), ms(0)]) {
      assert.equal(heart(state, { type: "answer", sentNs: forged, nowNs: ms(50), ...bulk })[0], state);
    }
    [state, effects] = heart(state, { type: "tick", nowNs: ms(1 + BEAT_LOST_MS) });
    assert.deepEqual(effects, [{ type: "lost", reason: "no answer to a heartbeat for 3000 ms" }]);
  });

  it("end a session whose bulk socket is dead without saying so, and no other", () => {
    const play = (arrives: (beat: number) => number) => {
      let state = newHeart(ms(0));
      for (let beat = 1; beat <= 100; beat += 1) {
        const sentNs = ms(beat * BEAT_MS);
        [state] = heart(state, { type: "tick", nowNs: sentNs });
        const bulk = { bulkSent: 1000, bulkArrived: arrives(beat) };
        const [next, effects] = heart(state, { type: "answer", sentNs, nowNs: sentNs + 1n, ...bulk });
        state = next;
        if (effects.length > 0) return beat * BEAT_MS;
      }
      return undefined;
    };
    assert.equal(
      play(() => 1000),
      undefined,
    );
    assert.equal(
      play((beat) => beat),
      undefined,
    );
    assert.equal(
      play((beat) => Math.min(beat, 10)),
      10 * BEAT_MS + STALL_MS,
    );
    assert.equal(
      play(() => 0),
      STALL_MS,
    );
  });
});

describe("retries", () => {
  it("are doubled and drawn, and stay between the limits", () => {
    assert.deepEqual([retryAfterMs(1, 1), retryAfterMs(2, 1), retryAfterMs(3, 1)], [250, 500, 1000]);
    for (let failures = 1; failures < 100; failures += 1) {
      for (const draw of [0, 0.5, 1]) {
        const wait = retryAfterMs(failures, draw);
        assert.ok(wait >= RETRY_MS_MIN / 2 && wait <= RETRY_MS_MAX, `${wait} ms`);
      }
    }
  });
});
