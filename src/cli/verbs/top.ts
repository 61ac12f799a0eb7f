// holdfast top: rates of every pool and volume, once a second.

import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import type { StatusAnswer } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { bytes, print, table } from "../output.js";
import { fetchStatus } from "./status.js";

const INTERVAL_MS = 1000;
const CLEAR = "\x1b[H\x1b[2J";

export interface Rate {
  pool: string;
  name: string;
  perSecond: number;
}

export function addTop(program: Command): void {
  program
    .command("top")
    .description("what happens each second, until Ctrl-C")
    .option("--count <n>", "end after this many rounds")
    .action(async (options: { count?: string }, command: Command) => {
      const { client, output } = contextOf(command);
      const rounds = options.count === undefined ? Number.POSITIVE_INFINITY : Number(options.count);
      if (!(rounds >= 1))
        throw new CliError("Invalid", `--count: "${options.count}" is not a number from 1 up`);
      let before = await fetchStatus(client);
      let beforeAt = performance.now();
      for (let round = 0; round < rounds; round += 1) {
        await delay(INTERVAL_MS);
        const now = await fetchStatus(client);
        const nowAt = performance.now();
        const rates = ratesBetween(before, now, (nowAt - beforeAt) / 1000);
        if (process.stdout.isTTY && !output.json) process.stdout.write(CLEAR);
        print(output, rates, () => rateTable(rates));
        before = now;
        beforeAt = nowAt;
      }
    });
}

export function ratesBetween(before: StatusAnswer, now: StatusAnswer, seconds: number): Rate[] {
  return now.pools.flatMap(({ name: pool, status }) => {
    const old = before.pools.find((other) => other.name === pool)?.status?.counters ?? {};
    return Object.entries(status?.counters ?? {}).map(([name, value]) => ({
      pool,
      name,
      perSecond: Math.max(0, Math.round((value - (old[name] ?? 0)) / seconds)),
    }));
  });
}

function rateTable(rates: readonly Rate[]): string {
  const rows = rates.map(({ pool, name, perSecond }) => [
    pool,
    name,
    name.includes("bytes") ? bytes(perSecond) : `${perSecond}`,
  ]);
  return table(["pool", "what", "per second"], rows, "no pools");
}
