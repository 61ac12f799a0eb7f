// holdfast clone SOURCE NAME, clone list, clone promote

import { setTimeout as delay } from "node:timers/promises";
import type { Command } from "commander";
import type { CloneAnswer, PromoteAnswer, VolumeAnswer } from "../../daemon/protocol.js";
import type { Client } from "../client.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { bytes, print, table } from "../output.js";
import { Progress } from "../progress.js";

/** Between two looks at how far a promotion is. */
const LOOK_MS = 200;

export function addClone(program: Command): void {
  const clone = program
    .command("clone")
    .argument("<source>")
    .argument("<name>")
    .description("a writable copy of a volume or group, as it is or was; costs what is written to it")
    .option(
      "--at <point>",
      "a snapshot's name, or a moment that is kept: 10:31, -5m, 2026-11-22T10:31:07Z, lsn:N",
    )
    .action(async (source: string, name: string, options: { at?: string }, command: Command) => {
      const { client, output } = contextOf(command);
      const made = await client.post<VolumeAnswer[]>("/v1/clones", { source, name, ...options });
      const names = made.map((volume) => volume.name).join(", ");
      print(output, made, () => `${names}: a clone of ${source}, ready to be mounted`);
    });
  addList(clone);
  addPromote(clone);
}

function addList(clone: Command): void {
  clone
    .command("list [origin]")
    .description("clones, or those of a volume or group: what each lies on and holds")
    .option("--space", "with what each holds, however long it takes to find out (default: where it is quick)")
    .action(async (origin: string | undefined, options: { space?: boolean }, command: Command) => {
      const { client, output } = contextOf(command);
      const query = new URLSearchParams({
        space: options.space === true ? "whole" : "quick",
        ...(origin === undefined ? {} : { origin }),
      });
      const found = await client.get<CloneAnswer[]>(`/v1/clones?${query.toString()}`);
      print(output, found, () => cloneTable(found));
    });
}

function cloneTable(clones: readonly CloneAnswer[]): string {
  const rows = clones.map((clone) => [
    clone.name,
    clone.base.group,
    pointOf(clone),
    `${clone.base.depth}`,
    ...(clone.holds == null
      ? ["", "", ""]
      : [clone.holds.ownBytes, clone.holds.sharedBytes, clone.holds.keptBytes].map(bytes)),
    promotionOf(clone),
  ]);
  return table(["clone", "origin", "point", "depth", "own", "shared", "kept for it", ""], rows, "no clones");
}

/** `before-upgrade`, or its time, or its LSN. */
function pointOf({ base }: CloneAnswer): string {
  if (base.name !== "") return base.name;
  return base.time === null ? `lsn:${base.lsn}` : base.time.replace(/(\.\d{3})\d+Z$/, "$1Z");
}

export function promotionOf({ promotion }: VolumeAnswer): string {
  if (promotion === null) return "";
  const { doneBytes, totalBytes, problem } = promotion;
  const share = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100);
  return `becoming independent: ${share} %${problem === "" ? "" : `; waits: ${problem}`}`;
}

function addPromote(clone: Command): void {
  clone
    .command("promote <name>")
    .description("let a clone have everything of its own, so that what it was cloned from can go")
    .option("--background", "do not wait until it is done")
    .action(async (name: string, options: { background?: boolean }, command: Command) => {
      const { client, output } = contextOf(command);
      const url = `/v1/clones/${encodeURIComponent(name)}/promote`;
      let answer = await client.post<PromoteAnswer>(url, {});
      const { already } = answer;
      if (options.background !== true && !already) answer = await done(client, url, name);
      print(output, { ...answer, already }, () => told(name, already, answer));
    });
}

function told(name: string, already: boolean, { volumes }: PromoteAnswer): string {
  if (already) return `${name} has everything of its own already`;
  const under = volumes.map(promotionOf).find((words) => words !== "");
  return under === undefined ? `${name} has everything of its own now` : `${name} is ${under}`;
}

/** Asking again goes on with what was begun. Whoever gives up leaves it to the daemon. */
async function done(client: Client, url: string, name: string): Promise<PromoteAnswer> {
  const progress = new Progress();
  try {
    for (;;) {
      const answer = await client.post<PromoteAnswer>(url, {});
      const promotion = answer.volumes.find((volume) => volume.promotion !== null)?.promotion ?? null;
      if (answer.already || promotion === null) return answer;
      if (promotion.problem !== "") {
        throw new CliError(
          "Unavailable",
          `${name} does not become independent: ${promotion.problem}`,
          "the daemon goes on trying; how far it is: holdfast clone list",
        );
      }
      progress.tell(promotion.doneBytes, promotion.totalBytes, `${name} becomes independent`);
      await delay(LOOK_MS);
    }
  } finally {
    progress.end();
  }
}
