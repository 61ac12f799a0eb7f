// holdfast status: exits 3 until replay and remounts are done.

import type { Command } from "commander";
import type { ErrorBody, MountAnswer, StatusAnswer } from "../../daemon/protocol.js";
import { contextOf, showPath } from "../context.js";
import { CliError, exitCodeOf } from "../errors.js";
import type { Client } from "../client.js";
import { duration, print, table } from "../output.js";
import { policyTable } from "./policy.js";
import { poolTable } from "./pool.js";
import { protectionTable } from "./protect.js";
import { volumeTable } from "./volume.js";

export function addStatus(program: Command): void {
  program
    .command("status")
    .description("pools, volumes and mounts; exits 3 until replay and remounts are done")
    .action(async (_options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const status = await fetchStatus(client);
      print(output, status, () => describe(status));
      if (!status.ready) process.exitCode = exitCodeOf("Unavailable");
    });
}

/** The status, also while the daemon is not ready. */
export async function fetchStatus(client: Client): Promise<StatusAnswer> {
  const { body } = await client.send<StatusAnswer | ErrorBody>("GET", "/v1/status");
  if ("ready" in body) return body;
  throw new CliError(body.code, body.message, body.hint);
}

export function describe(status: StatusAnswer): string {
  const phase = status.ready ? "ready" : status.phase === "running" ? "not everything is up" : status.phase;
  return [
    `${phase}; version ${status.version}, process ${status.pid}, up ${duration(status.uptimeSeconds)}`,
    "",
    poolTable(status.pools),
    "",
    volumeTable(status.volumes),
    "",
    mountTable(status.mounts),
    ...(status.policies.length === 0 ? [] : ["", policyTable(status.policies)]),
    ...(status.protections.length === 0 ? [] : ["", protectionTable(status.protections)]),
    ...status.warnings.map((warning) => `warning: ${warning}`),
  ].join("\n");
}

function mountTable(mounts: readonly MountAnswer[]): string {
  const rows = mounts.map((mount) => [
    mount.volume,
    showPath(mount),
    mount.state,
    mount.transport,
    mount.options.join(","),
    mount.problem?.message ?? remarkOn(mount),
  ]);
  return table(
    ["volume", "mounted at", "state", "transport", "options", "remark"],
    rows,
    "nothing is mounted",
  );
}

/** Why a mount goes without the faster door; nothing when it has it, or was made so. */
function remarkOn(mount: MountAnswer): string {
  const chosen = mount.options.includes("transport=dev");
  return mount.transport === "dev" && !chosen ? `not uring: ${mount.transportReason}` : "";
}
