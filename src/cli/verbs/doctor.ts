// holdfast doctor: looks at this machine and at the daemon, and says what is missing and what to do.

import { accessSync, constants, statSync } from "node:fs";
import type { Command } from "commander";
import { contextOf } from "../context.js";
import type { Context } from "../context.js";
import { exitCodeOf, toBody } from "../errors.js";
import { print } from "../output.js";
import { isTold, poolFindings } from "./pool-health.js";
import type { Finding } from "./pool-health.js";
import { fetchStatus } from "./status.js";
import { policyFindings } from "./policy.js";

export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("check this machine and the daemon, and say what to do")
    .action(async (_options: object, command: Command) => {
      const context = contextOf(command);
      const findings = [fuseDevice(), ...fuseHelper(), stateFolder(context), ...(await daemon(context))];
      print(context.output, findings, () => findings.map(line).join("\n"));
      if (findings.some(({ ok }) => !ok)) process.exitCode = exitCodeOf("Damage");
    });
}

function line({ check, ok, detail, hint }: Finding): string {
  return `${ok ? "ok  " : "FAIL"}  ${check}: ${detail}${ok || hint === "" ? "" : `\n      ${hint}`}`;
}

function fuseDevice(): Finding {
  const check = "/dev/fuse";
  try {
    accessSync("/dev/fuse", constants.R_OK | constants.W_OK);
    return { check, ok: true, detail: "there, readable and writable", hint: "" };
  } catch (error) {
    const hint = "load the module (modprobe fuse); in a container: --device /dev/fuse --cap-add SYS_ADMIN";
    return { check, ok: false, detail: (error as Error).message, hint };
  }
}

/** Only those who are not root need it. */
function fuseHelper(): Finding[] {
  if (process.geteuid?.() === 0) return [];
  const check = "fusermount3";
  const found = (process.env.PATH ?? "").split(":").find((dir) => isFile(`${dir}/fusermount3`));
  const hint = "install the package fuse3";
  return [{ check, ok: found !== undefined, detail: found ?? "not found on PATH", hint }];
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

function stateFolder({ state }: Context): Finding {
  const check = `state folder ${state}`;
  const stats = statSync(state, { throwIfNoEntry: false });
  if (stats === undefined) {
    return { check, ok: false, detail: "missing", hint: "the daemon makes it; or name another with --state" };
  }
  const closed = (stats.mode & 0o077) === 0;
  const mode = (stats.mode & 0o7777).toString(8).padStart(4, "0");
  return { check, ok: closed, detail: `mode ${mode}`, hint: `chmod 700 ${state}` };
}

async function daemon({ client }: Context): Promise<Finding[]> {
  try {
    const status = await fetchStatus(client);
    const up = `process ${status.pid}, version ${status.version}, ${status.ready ? "ready" : status.phase}`;
    const pools = status.pools.flatMap((pool) => poolFindings(pool, status.volumes));
    const untold = status.warnings.filter((warning) => !isTold(warning) && !/^policy \S+: /.test(warning));
    const policies = status.policies.flatMap(policyFindings);
    const warnings = untold.map((warning) => ({
      check: "warning",
      ok: false,
      detail: warning,
      hint: "",
    }));
    const hint = "what it waits for is in the warnings below and in its log";
    return [{ check: "daemon", ok: status.ready, detail: up, hint }, ...pools, ...policies, ...warnings];
  } catch (error) {
    const body = toBody(error);
    return [{ check: "daemon", ok: false, detail: body.message, hint: body.hint }];
  }
}
