// What the past costs: the same random overwrites with every second of a minute kept, and with nothing kept.

import { Figures, withDaemon } from "../ground.js";
import { runLoad } from "../load.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { driveSize } from "./ground.js";
import type { Wishes } from "./ground.js";

/**
 * The file is small so that the minute is really held: where every block is written in every second, a minute of 32 MiB
 * is 3.8 GiB with both copies, which the limit of the pool's history allows.
 */
const DRIVE_GIB = 3;
const SLICE_SECONDS = 10;
const RETENTIONS = [0, 60] as const;

export async function measureCost(place: Place, wishes: Wishes): Promise<Figure[]> {
  const figures = new Figures();
  const rates: number[] = [];
  for (const retention of RETENTIONS) {
    const { last, window } = await overwrite(place, wishes, figures, retention);
    rates.push(last);
    figures.note(`cost-window-held-${retention}`, 0, window);
  }
  const [without = NaN, kept = NaN] = rates;
  const shortened = wishes.minutes < 10 ? 1 : 0;
  figures.note("cost", 0, without / kept, {
    without,
    kept,
    mib: wishes.costMib,
    minutes: wishes.minutes,
    shortened,
  });
  return figures.all;
}

/** Writes a second in the last third, and the seconds of the past that are held at the end. */
async function overwrite(
  place: Place,
  wishes: Wishes,
  figures: Figures,
  retention: number,
): Promise<{ last: number; window: number }> {
  const { minutes } = wishes;
  const history = `history: {window: ${retention}s, thin: none, limit: 75%}`;
  const slices = Math.max(3, Math.round((minutes * 60) / SLICE_SECONDS));
  const seconds = Math.min(SLICE_SECONDS, (minutes * 60) / slices);
  return withDaemon(
    place,
    { config: `log: {level: warn}\n${history}\n`, size: driveSize(wishes, DRIVE_GIB) },
    async (daemon) => {
      const rates: number[] = [];
      for (let slice = 0; slice < slices; slice += 1) {
        const args = ["--mib", String(wishes.costMib), "--seconds", String(seconds)];
        const given = { work: "write", directory: daemon.mount, jobs: 1, seed: slice + 1, args };
        const [measure] = await runLoad(place.program, given);
        const rate = measure?.operationsPerSecond ?? NaN;
        place.say(`retention ${retention} s, slice ${slice + 1}/${slices}: ${Math.round(rate)} writes/s`);
        figures.note(`cost-writes-${retention}`, slice, rate);
        rates.push(rate);
      }
      const third = rates.slice(-Math.ceil(slices / 3));
      const { volumes } = await daemon.status();
      const { paced_ms = NaN, drive_bytes_written = NaN, payload_copy_bytes = NaN } = await daemon.counters();
      figures.note(`cost-paced-ms-${retention}`, 0, paced_ms);
      figures.note(`cost-amplification-${retention}`, 0, drive_bytes_written / payload_copy_bytes);
      const window = volumes[0]?.retention.heldWindowSeconds ?? NaN;
      return { last: third.reduce((sum, rate) => sum + rate, 0) / third.length, window };
    },
  );
}
