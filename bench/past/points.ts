// A hundred thousand recovery points of one volume: the engine itself, through the example `points` of native/store.

import { mkdirSync, rmSync } from "node:fs";
import { Figures } from "../ground.js";
import { runExample } from "../example.js";
import type { Figure } from "../report.js";
import type { Place } from "../special.js";
import { FULL } from "./ground.js";
import type { Wishes } from "./ground.js";

/** As the example says it: how far it is, then what it found. Times are milliseconds. */
type Said =
  | { made: number }
  | {
      points: number;
      create_us: number;
      create_one_durable_ms: number;
      pages_ms: number[];
      deletes_ms: number[];
      find_ms: number;
      resident_mib: number;
      open_ms: number;
    };

export async function measurePoints(place: Place, wishes: Wishes = FULL): Promise<Figure[]> {
  const { root, folder, say } = place;
  const figures = new Figures();
  mkdirSync(folder, { recursive: true });
  try {
    await runExample(root, "points", folder, [String(wishes.points)], (line) => {
      const said = line as Said;
      if ("made" in said) return say(`${said.made}/${wishes.points} points`);
      const sorted = [...said.deletes_ms].sort((one, two) => one - two);
      said.pages_ms.forEach((ms, page) => figures.note("points-page-ms", page, ms));
      said.deletes_ms.forEach((ms, turn) => figures.note("points-delete", turn, ms));
      figures.note("points-delete-p99", 0, sorted[Math.ceil(sorted.length * 0.99) - 1] ?? NaN);
      figures.note("points-create-us", 0, said.create_us);
      figures.note("points-create-durable-ms", 0, said.create_one_durable_ms);
      figures.note("points-find-ms", 0, said.find_ms);
      figures.note("points-resident-mib", 0, said.resident_mib);
      figures.note("points-open-ms", 0, said.open_ms);
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return figures.all;
}
