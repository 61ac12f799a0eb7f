// holdfast policy apply|show|test

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import type { PolicyAnswer, PolicyForecast, PolicyStatus } from "../../daemon/protocol.js";
import { contextOf } from "../context.js";
import { CliError } from "../errors.js";
import { print, table } from "../output.js";
import type { Finding } from "./pool-health.js";

/** Kept snapshots that are shown to people; `--json` has all. */
const KEPT_SHOWN_MAX = 20;

export function addPolicy(program: Command): void {
  const policy = program.command("policy").description("snapshots by schedule, and how long they stay");
  addApply(policy);
  addShow(policy);
  addTest(policy);
}

function addApply(policy: Command): void {
  policy
    .command("apply <file>")
    .description("put the policies of a YAML file in place of those that there are")
    .option("--yes", "also with a policy that keeps nothing")
    .action(async (file: string, options: { yes?: boolean }, command: Command) => {
      const { client, output } = contextOf(command);
      const request = { ...readPolicies(file), yes: options.yes === true };
      const answer = await client.post<PolicyAnswer>("/v1/policy", request);
      print(output, answer, () => policyTable(answer.policies));
    });
}

function addShow(policy: Command): void {
  policy
    .command("show")
    .description("what is applied, when it runs next, how it fares")
    .action(async (_options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const answer = await client.get<PolicyAnswer>("/v1/policy");
      print(output, answer, () => describe(answer));
    });
}

function addTest(policy: Command): void {
  policy
    .command("test <file>")
    .description("what the policies of a file would take and prune, without doing it")
    .option("--until <time>", "look ahead to 7d from now, or to 2026-12-24T18:00:00Z", "1d")
    .action(async (file: string, options: { until: string }, command: Command) => {
      const { client, output } = contextOf(command);
      const request = { ...readPolicies(file), until: options.until };
      const forecasts = await client.post<PolicyForecast[]>("/v1/policy/test", request);
      print(output, forecasts, () => forecasts.map(describeForecast).join("\n\n") || "no policies");
    });
}

/** The daemon may run as somebody else, elsewhere: it gets the text, and the name for its messages. */
function readPolicies(file: string): { file: string; text: string } {
  try {
    return { file: resolve(file), text: readFileSync(file, "utf8") };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const missing = code === "ENOENT";
    throw new CliError(
      missing ? "NotFound" : "Invalid",
      `policy file ${file}: ${missing ? "no such file" : message}`,
    );
  }
}

function describe({ applied, policies }: PolicyAnswer): string {
  if (applied === null) return "no policies; make a file (see the README), then: holdfast policy apply FILE";
  const problems = policies.flatMap(({ name, problems }) => problems.map((text) => `${name}: ${text}`));
  return [
    `${applied.file}, applied ${time(applied.appliedSeconds)}`,
    "",
    policyTable(policies),
    ...problems,
  ].join("\n");
}

export function policyTable(policies: readonly PolicyStatus[]): string {
  const rows = policies.map((policy) => [
    policy.name,
    policy.targets.join(" "),
    policy.schedule,
    policy.hold ? "everything (held)" : policy.keep.join(" ") || "the newest",
    policy.running ? "now" : time(policy.nextSeconds),
    policy.lastSuccessSeconds === null ? "never" : time(policy.lastSuccessSeconds),
    policy.failures > 0 ? `failed ${policy.failures}×` : policy.problems.length > 0 ? "with problems" : "",
  ]);
  return table(
    ["policy", "targets", "schedule", "keeps", "next", "last success", "remark"],
    rows,
    "no policies",
  );
}

function describeForecast(forecast: PolicyForecast): string {
  const { policy, target, schedule, runs, there, prunedCount, pruned, kept } = forecast;
  const atOnce = pruned.filter(({ exists }) => exists);
  const shown = kept.slice(-KEPT_SHOWN_MAX);
  const rows = shown.map(({ name, exists, because }) => [
    name,
    exists ? "there" : "to come",
    because.join(" ") || "nothing: the next run prunes it",
  ]);
  return [
    `${policy} on ${target}, ${schedule}; next: ${forecast.nextRunsSeconds.map(time).join(", ")}`,
    `${there} there, ${runs} to come, ${prunedCount} pruned, ${kept.length} left then`,
    ...(atOnce.length === 0
      ? []
      : [`of those that are there, pruned: ${atOnce.map(({ name }) => name).join(", ")}`]),
    ...(kept.length > shown.length ? [`the newest ${shown.length} of what is left:`] : []),
    table(["snapshot", "", "kept by"], rows, "nothing left"),
  ].join("\n");
}

function time(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(".000Z", "Z");
}

/** What `doctor` says of a policy. */
export function policyFindings(policy: PolicyStatus): Finding[] {
  const { name, failures, problems, lastSuccessSeconds } = policy;
  const check = `policy ${name}`;
  const last = lastSuccessSeconds === null ? "no success yet" : `last success ${time(lastSuccessSeconds)}`;
  const next = `next ${time(policy.nextSeconds)}`;
  if (problems.length === 0) return [{ check, ok: true, detail: `${last}, ${next}`, hint: "" }];
  const often = failures > 0 ? `failed ${failures} times in a row, ` : "";
  const hint =
    failures > 0
      ? "it is tried again by itself; put right what is named, or apply a policy file without it"
      : "the snapshot was taken; the daemon's log has what the hook said";
  return [{ check, ok: false, detail: `${problems.join("; ")} (${often}${last}, ${next})`, hint }];
}
