// holdfast protect GROUP --to PEER, protect list, unprotect

import type { Command } from "commander";
import type { ProtectionAnswer } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { bytes, duration, print, table } from "../output.js";

interface ProtectOptions {
  to?: string;
  rpo?: string;
  bandwidth?: string;
  rf?: string;
  name?: string;
}

export function addProtect(program: Command): void {
  const protect = program
    .command("protect")
    .argument("<group>")
    .description(
      "replicate a group, or a volume that is alone in its, to a peer: always, and again after a restart",
    )
    .option("--to <peer>", "who gets it; see: holdfast peer list")
    .option("--rpo <time>", "how far the peer may be behind (default: 1s)")
    .option("--bandwidth <size>", "bytes a second at most (default: no limit)")
    .option("--rf <n>", "copies at the peer (default: as many as here)")
    .option("--name <name>", "what the replica is called there (default: as here, or NAME-SITE)")
    .action(async (group: string, options: ProtectOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const { to, rf, ...rest } = options;
      const copies = rf === undefined ? {} : { rf: Number(rf) };
      const request = { target: group, peer: requireTo(to), ...rest, ...copies };
      const made = await client.post<ProtectionAnswer>("/v1/protections", request);
      print(output, made, () => `${made.group} is protected to ${made.peer}: ${stateOf(made)}`);
    });
  protect
    .command("list")
    .description("what is protected to whom, and how far behind each peer is")
    .action(async (_options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const found = await client.get<ProtectionAnswer[]>("/v1/protections");
      print(output, found, () => protectionTable(found));
    });
}

export function addUnprotect(program: Command): void {
  program
    .command("unprotect <group>")
    .description("stop replicating a group to a peer; its replica stays as it is")
    .option("--to <peer>", "who gets it no more")
    .action(async (group: string, options: { to?: string }, command: Command) => {
      const { client, output } = contextOf(command);
      const peer = requireTo(options.to);
      await client.delete(`/v1/protections/${encodeURIComponent(group)}/${encodeURIComponent(peer)}`);
      print(output, { group, peer }, () => `${group} is not protected to ${peer} any more`);
    });
}

function requireTo(peer: string | undefined): string {
  if (peer !== undefined) return peer;
  throw new CliError("Invalid", "say which peer: --to PEER", "they are listed by: holdfast peer list");
}

export function protectionTable(protections: readonly ProtectionAnswer[]): string {
  const rows = protections.map((protection) => {
    const { group, peer, rpoMs, lag, backlog, bytesSent, problem } = protection;
    return [
      group,
      peer,
      protection.link,
      milliseconds(rpoMs),
      lag.rpoMs === null ? "none yet" : milliseconds(lag.rpoMs),
      [lag.cutMs, lag.shipMs, lag.applyMs, lag.flushMs].map(milliseconds).join(" + "),
      `${backlog.ops}`,
      bytes(bytesSent),
      problem,
    ];
  });
  const head = [
    "group",
    "peer",
    "link",
    "rpo",
    "behind",
    "cut + ship + apply + flush",
    "ops",
    "sent",
    "problem",
  ];
  return table(head, rows, "nothing is protected; see: holdfast protect --help");
}

/** Below ten seconds with a digit: `0.3s`; then `1m 20s`. */
function milliseconds(count: number): string {
  return count < 10_000 ? `${(count / 1000).toFixed(1)}s` : duration(count / 1000);
}

function stateOf({ link, problem }: ProtectionAnswer): string {
  if (problem !== "") return problem;
  return link === "up" ? "the peer takes it" : "it begins when the peer is connected";
}
