// holdfast verify GROUP --peer PEER [--repair]

import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import type { Mismatch, VerificationAnswer } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { CliError, exitCodeOf } from "../errors.js";
import { bytes, print, printable } from "../output.js";
import { Progress } from "../progress.js";

interface VerifyOptions {
  peer?: string;
  repair?: boolean;
  last?: boolean;
  stop?: boolean;
}

const LOOK_MS = 200;

export function addVerify(program: Command): void {
  program
    .command("verify <group>")
    .description("compare a group with its replica at a peer, at either site, byte by byte")
    .option("--peer <peer>", "the other site; see: holdfast protect list")
    .option(
      "--repair",
      "send again from the owner what the replica has otherwise, and compare that once more",
    )
    .option("--last", "do nothing: show how it fares, or how the last one ended")
    .option("--stop", "end the one that runs")
    .action(async (group: string, options: VerifyOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const { peer, repair = false } = options;
      if (peer === undefined) throw new CliError("Invalid", "say with which site: --peer PEER");
      const path = `/v1/verifications/${encodeURIComponent(group)}/${encodeURIComponent(peer)}`;
      const look = () => client.get<VerificationAnswer>(path);
      let told: VerificationAnswer;
      if (options.stop === true) told = await client.delete<VerificationAnswer>(path);
      else if (options.last === true) told = await look();
      else {
        const begun = await client.post<VerificationAnswer>("/v1/verifications", {
          target: group,
          peer,
          repair,
        });
        told = await ended(begun, look);
      }
      if (told.state === "failed" && options.last !== true) {
        throw new CliError("Unavailable", `${group} was not compared with ${peer}: ${told.problem}`);
      }
      print(output, told, () => describe(told));
      if (told.state === "different") process.exitCode = exitCodeOf("Different");
    });
}

/** Watches it until it ends; who gives up watching does not end it. */
async function ended(
  begun: VerificationAnswer,
  look: () => Promise<VerificationAnswer>,
): Promise<VerificationAnswer> {
  const progress = new Progress();
  let told = begun;
  while (told.state === "running") {
    const { entries, found, lsn } = told;
    progress.say(`LSN ${lsn}: ${entries} entries, ${bytes(told.bytes)} compared, ${found} differences`);
    await sleep(LOOK_MS);
    told = await look();
  }
  progress.end();
  return told;
}

function describe(told: VerificationAnswer): string {
  const { group, peer, lsn, ranges, entries, found, left, mismatches, isWhole, repair } = told;
  const what = `${entries} entries in ${ranges} ranges, ${bytes(told.bytes)}`;
  const at = `${group} and ${peer} at LSN ${lsn}`;
  const head = {
    running: `${at} are being compared: ${what} so far`,
    equal: `${at} are equal: ${what}`,
    different: `${at} differ: ${count(left)}${repair ? " left" : ""}${isWhole ? "" : " or more"}; ${what}`,
    repaired: `${at} are equal now: ${count(found)} repaired; ${what}`,
    failed: `${at} were not compared: ${told.problem}`,
    stopped: `${at} were not compared to the end: ${what}`,
  }[told.state];
  const hidden = found - mismatches.length;
  return [
    head,
    ...mismatches.map(line),
    ...(hidden > 0 && mismatches.length > 0 ? [`and more: ${count(found)} in all`] : []),
    ...(told.state === "different" && !repair
      ? [`repair from the owner: holdfast verify ${group} --peer … --repair`]
      : []),
  ].join("\n");
}

function line({ volume, inode, path, kind, what, detail, range }: Mismatch): string {
  const name = path === null ? "" : ` (${printable(`${volume}:/${path}`)})`;
  const where = inode === 0 ? `volume ${volume}` : `inode ${inode}${name}`;
  const of = range === null ? what : `${what} ${range.offset}–${range.offset + range.length - 1}`;
  const verb = kind === "differs" ? (range === null ? "differs" : "differ") : kind;
  return `${where}: ${printable(of)} ${verb}${detail === "" ? "" : ` (${printable(detail)})`}`;
}

function count(differences: number): string {
  return differences === 1 ? "1 difference" : `${differences} differences`;
}
