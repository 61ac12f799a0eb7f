// The policy file: YAML with named policies. Every mistake is named by file, line, column and field, with what is
// allowed there. Defaults are filled here, once.
//
//   policies:
//     home:
//       targets: [home]                  # groups, or volumes that are alone in theirs
//       every: 1h                        # or cron: "0 3 * * *", timezone: Europe/Berlin
//       keep: 24x1h 14x1d 8x1w           # or hold: true
//       prefix: home                     # the policy's name where it is not given
//       before: {run: [/usr/local/bin/freeze, now], timeout: 30s, on_failure: abort}
//       after: {run: [/usr/local/bin/thaw], timeout: 30s, on_failure: continue}

import { LineCounter, isAlias, isMap, isNode, isSeq, parseDocument } from "yaml";
import type { Document } from "yaml";
import { z } from "zod";
import { HoldfastError } from "../../io-path/errors.js";
import { checkName } from "../names.js";
import { parseDuration } from "../units.js";
import { GRID_LIKE, parseGrid } from "./grid.js";
import type { Rule } from "./grid.js";
import { CRON_LIKE, EVERY_LIKE, checkZone, parseCron, parseEvery } from "./schedule.js";
import type { Schedule } from "./schedule.js";
import { PREFIX_CHARACTERS_MAX, isPrefix } from "./snapshot-name.js";

export interface Hook {
  /** The program and its arguments; no shell. */
  run: readonly string[];
  timeoutSeconds: number;
  /** What its failure means: no snapshot (`before`), or a failed run (`after`). */
  abort: boolean;
}

export interface Policy {
  name: string;
  targets: readonly string[];
  schedule: Schedule;
  /** None: nothing but the newest stays. */
  rules: readonly Rule[];
  /** Its snapshots are held, and never pruned. */
  hold: boolean;
  prefix: string;
  before: Hook | undefined;
  after: Hook | undefined;
}

export const FILE_CHARACTERS_MAX = 256 * 1024;
const POLICIES_MAX = 64;
const TARGETS_MAX = 64;
const ARGUMENTS_MAX = 64;
const TIMEOUT_SECONDS_MAX = 3600;
const PROBLEMS_SHOWN_MAX = 10;

/** Text that `parse` takes; its failure becomes the issue. */
const parsed = <T>(like: string, parse: (text: string) => T) =>
  z.string(`must be text: ${like}`).transform((text, context) => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      context.addIssue(error.message);
      return z.NEVER;
    }
  });

const TIMEOUT_LIKE = "write it like 30s or 5m, at most 1h";
const timeout = parsed(TIMEOUT_LIKE, (text) => {
  let seconds = Number.NaN;
  try {
    seconds = parseDuration(text, "timeout");
  } catch {
    // Said below, with what is allowed.
  }
  if (seconds > 0 && seconds <= TIMEOUT_SECONDS_MAX) return seconds;
  throw new HoldfastError("Invalid", `"${text}" is not a time limit: ${TIMEOUT_LIKE}`);
});

const RUN_LIKE = "a list: the program, then its arguments, as in [/usr/local/bin/freeze, now]";
const hook = (onFailure: "abort" | "continue") =>
  z.strictObject(
    {
      run: z
        .array(z.string(`must be text in ${RUN_LIKE}`).max(4096), `must be ${RUN_LIKE}`)
        .min(1, `must be ${RUN_LIKE}`)
        .max(ARGUMENTS_MAX, `at most ${ARGUMENTS_MAX} arguments`)
        .refine((run) => run[0] !== "", "the program has no name")
        .refine((run) => run.every((word) => !word.includes("\0")), "no argument has a NUL"),
      timeout: timeout.default(60),
      on_failure: z.enum(["abort", "continue"], "must be abort or continue").default(onFailure),
    },
    { error: (issue) => (issue.code === "invalid_type" ? `must have run: ${RUN_LIKE}` : undefined) },
  );

const TARGETS_LIKE = "a list of volumes and groups, as in [home, mail]";
const KEEP = z.union([z.string(), z.array(z.string())], `must be text: ${GRID_LIKE}`);

const policyShape = z.strictObject(
  {
    targets: z
      .array(
        parsed("a name", (text) => checkName("target", text)),
        `must be ${TARGETS_LIKE}`,
      )
      .min(1, `must be ${TARGETS_LIKE}`)
      .max(TARGETS_MAX, `at most ${TARGETS_MAX} targets`)
      .refine((targets) => new Set(targets).size === targets.length, "a target is named twice"),
    every: parsed(EVERY_LIKE, parseEvery).optional(),
    cron: z.string(`must be text: ${CRON_LIKE}`).optional(),
    timezone: parsed("a time zone, like Europe/Berlin", checkZone).optional(),
    keep: KEEP.transform((text) => (Array.isArray(text) ? text.join(" ") : text))
      .pipe(parsed(GRID_LIKE, parseGrid))
      .optional(),
    hold: z.boolean("must be true or false").default(false),
    prefix: z
      .string("must be text")
      .refine(
        isPrefix,
        `must have 1 to ${PREFIX_CHARACTERS_MAX} letters, digits, dots, underscores or hyphens and begin with a ` +
          "letter or a digit",
      )
      .optional(),
    before: hook("abort").optional(),
    after: hook("continue").optional(),
  },
  {
    error: (issue) =>
      issue.code === "invalid_type" ? "must have targets, every or cron, and keep or hold" : undefined,
  },
);

type RawPolicy = z.infer<typeof policyShape>;

const policy = policyShape.transform((raw, context) => {
  const say = (message: string, path: string[] = []) => context.addIssue({ code: "custom", message, path });
  if ((raw.every === undefined) === (raw.cron === undefined)) say("needs one of every and cron");
  if (raw.every !== undefined && raw.timezone !== undefined) {
    say("goes with cron only; every is aligned in UTC", ["timezone"]);
  }
  if (raw.hold && raw.keep !== undefined) {
    say("goes without hold: what is held is never pruned", ["keep"]);
  }
  return { raw, schedule: scheduleOf(raw, say) };
});

function scheduleOf(
  { every, cron, timezone = "UTC" }: RawPolicy,
  say: (message: string, path: string[]) => void,
): Schedule | undefined {
  if (cron === undefined) return every;
  try {
    const schedule = parseCron(cron, timezone);
    schedule.after(Date.UTC(2026, 0, 1));
    return schedule;
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    say(error.message, ["cron"]);
    return undefined;
  }
}

const schema = z.strictObject(
  {
    policies: z
      .record(z.string(), policy, "must be a map from names to policies")
      .refine((all) => Object.keys(all).length <= POLICIES_MAX, `at most ${POLICIES_MAX} policies`),
  },
  {
    error: (issue) =>
      issue.code === "invalid_type" ? "the file must have policies: a map from names to policies" : undefined,
  },
);

/** `file` is for messages. */
export function parsePolicies(text: string, file: string): Policy[] {
  if (text.length > FILE_CHARACTERS_MAX) {
    throw new HoldfastError("Invalid", `${file}: at most ${FILE_CHARACTERS_MAX} characters`);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { prettyErrors: false, uniqueKeys: true, lineCounter: lines });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const broken = [...document.errors, ...document.warnings].map(
    ({ pos, message }) => `${at(pos[0])}: ${message}`,
  );
  if (broken.length > 0) throw refused(broken);
  const checked = schema.safeParse(toData(document, at));
  if (!checked.success) {
    throw refused(checked.error.issues.flatMap((issue) => describe(issue, document, at)));
  }
  const policies = Object.entries(checked.data.policies).map(([name, { raw, schedule }]) =>
    fill(name, raw, schedule),
  );
  const problems = namesIn(policies).map(([path, message]) => {
    const where = at(offsetOf(document, path, "key"));
    return `${where}: ${path.join(".")}: ${message}`;
  });
  if (problems.length > 0) throw refused(problems);
  return policies;
}

function toData(document: Document.Parsed, at: (offset: number) => string): unknown {
  try {
    return document.toJS() ?? {};
  } catch (error) {
    // More aliases than the library unfolds.
    throw refused([`${at(0)}: ${error instanceof Error ? error.message : String(error)}`]);
  }
}

function refused(problems: readonly string[]): HoldfastError {
  const more = problems.length - PROBLEMS_SHOWN_MAX;
  const shown = problems.slice(0, PROBLEMS_SHOWN_MAX).join("\n");
  return new HoldfastError("Invalid", more > 0 ? `${shown}\nand ${more} more` : shown);
}

function fill(name: string, raw: RawPolicy, schedule: Schedule | undefined): Policy {
  if (schedule === undefined) throw new HoldfastError("Internal", `policy ${name} has no schedule`);
  const { targets, keep = [], hold, prefix = name } = raw;
  const hookOf = (given: RawPolicy["before"]): Hook | undefined =>
    given === undefined
      ? undefined
      : { run: given.run, timeoutSeconds: given.timeout, abort: given.on_failure === "abort" };
  const hooks = { before: hookOf(raw.before), after: hookOf(raw.after) };
  return Object.freeze({ name, targets, schedule, rules: keep, hold, prefix, ...hooks });
}

/** Names that are none, and prefixes that two policies have: each would prune what is the other's. */
function namesIn(policies: readonly Policy[]): [string[], string][] {
  const prefixes = new Map<string, string>();
  return policies.flatMap(({ name, prefix }): [string[], string][] => {
    const path = ["policies", name];
    const other = prefixes.get(prefix);
    prefixes.set(prefix, name);
    if (!isPrefix(name)) {
      return [[path, `a policy's name has 1 to ${PREFIX_CHARACTERS_MAX} letters, digits, ".", "_" or "-"`]];
    }
    return other === undefined ? [] : [[path, `the prefix ${prefix} is that of policy ${other} already`]];
  });
}

type Issue = z.core.$ZodIssue;

function describe(issue: Issue, document: Document.Parsed, at: (offset: number) => string): string[] {
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => {
      const where = at(offsetOf(document, [...path, key], "key"));
      return `${where}: ${[...path, key].join(".")}: unknown field; allowed: ${fieldsAt(path).join(", ")}`;
    });
  }
  const field = path.length === 0 ? "" : `${path.join(".")}: `;
  return [`${at(offsetOf(document, path, "value"))}: ${field}${issue.message}`];
}

function fieldsAt(path: readonly string[]): string[] {
  if (path.length === 0) return Object.keys(schema.shape);
  if (path.length === 2) return Object.keys(policyShape.shape);
  return Object.keys(policyShape.shape.before.unwrap().shape);
}

/** Where a field stands; where it is missing, what should have it. */
function offsetOf(document: Document.Parsed, path: readonly string[], want: "key" | "value"): number {
  let node: unknown = document.contents;
  let offset = startOf(node) ?? 0;
  for (const [index, part] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    if (isSeq(node)) {
      node = node.items[Number(part)];
      offset = startOf(node) ?? offset;
      continue;
    }
    const pair = isMap(node) ? node.items.find(({ key }) => String(key) === part) : undefined;
    if (pair === undefined) return offset;
    const last = index === path.length - 1;
    node = pair.value;
    const key = startOf(pair.key) ?? offset;
    // A map begins at its first field, which is not where somebody looks for what is missing in it.
    offset = last && want === "value" && !isMap(node) ? (startOf(node) ?? key) : key;
  }
  return offset;
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined;
}
