// The configuration file: YAML, every key optional, unknown keys refused. Defaults are filled here, once.

import { readFile } from "node:fs/promises";
import { hostname } from "node:os";
import { parseDocument } from "yaml";
import { z } from "zod";
import { HoldfastError, fromSystem } from "../io-path/errors.js";
import { formatAddress, parseAddress } from "../nearsync-lws/address.js";
import { NAME, nameFrom } from "./names.js";
import { parseEvery } from "./policy/schedule.js";
import { parseDuration, parseSize, parseThin } from "./units.js";
import type { ThinStep } from "./units.js";

export interface Config {
  log: { level: LogLevel };
  memory: {
    /** Cache of metadata blocks. */
    metadataCacheBytes: number;
    dataCacheBytes: number;
    /** Changes of one group that are not drained yet. */
    memtableBytes: number;
    /** Changes of one group that are acknowledged and not yet on the drives. */
    ringBytes: number;
  };
  history: {
    /** Every second is kept for so long; then what the steps say. */
    windowSeconds: number;
    thin: ThinStep[];
    limitPercent: number;
  };
  rebuild: {
    /** Bytes a second beside other work. */
    limitBytes: number;
  };
  stop: {
    /** How long SIGTERM waits for busy mounts before it names the holders and detaches. */
    graceSeconds: number;
  };
  replication: {
    /** `HOST:PORT` where peers may connect; undefined: nothing listens. */
    listen: string | undefined;
    /** What peers are told instead of `listen`, behind a forwarded port. */
    advertise: string | undefined;
    /** What this site calls itself when it pairs. */
    site: string;
    /** Where replicas of other sites' groups are made; undefined: in the only pool there is. */
    pool: string | undefined;
    /** How often replicas are compared with what is here, as a policy has it; undefined: only when somebody asks. */
    verifyEvery: string | undefined;
  };
  /** Folder for the rings; `undefined`: chosen by the daemon, on a tmpfs where there is one. */
  runtimeDir: string | undefined;
}

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const size = (least: number, most: number, also: readonly number[] = []) =>
  z.union([z.string(), z.number()]).transform((value, context) => {
    try {
      const bytes = parseSize(value, "size");
      if ((bytes >= least && bytes <= most) || also.includes(bytes)) return bytes;
      const or = also.map((value) => `${value} or `).join("");
      context.addIssue(`must be ${or}from ${least} to ${most} bytes, is ${bytes}`);
    } catch {
      context.addIssue(`"${value}" is not a size; write it like 64MiB`);
    }
    return z.NEVER;
  });

const duration = (most: number) =>
  z.union([z.string(), z.number()]).transform((value, context) => {
    try {
      const seconds = parseDuration(value, "time");
      if (seconds <= most) return seconds;
      context.addIssue(`must be at most ${most} s`);
    } catch {
      context.addIssue(`"${value}" is not a time; write it like 5s or 1h`);
    }
    return z.NEVER;
  });

const thin = z.string().transform((value, context) => {
  try {
    return parseThin(value, "thin");
  } catch (error) {
    context.addIssue(error instanceof HoldfastError ? `${error.message}; ${error.hint}` : String(error));
    return z.NEVER;
  }
});

const percent = z
  .union([z.string().regex(/^\d{1,3}%$/, "write it like 20%"), z.number()])
  .transform((value, context) => {
    const number = typeof value === "number" ? value : Number(value.slice(0, -1));
    if (Number.isInteger(number) && number >= 0 && number <= 90) return number;
    context.addIssue("must be from 0% to 90%");
    return z.NEVER;
  });

const address = z.string().transform((value, context) => {
  try {
    return formatAddress(parseAddress(value));
  } catch (error) {
    context.addIssue(error instanceof HoldfastError ? `${error.message}; ${error.hint}` : String(error));
    return z.NEVER;
  }
});

const every = z.string().transform((value, context) => {
  try {
    if (value === "never") return undefined;
    parseEvery(value);
    return value;
  } catch (error) {
    context.addIssue(`${error instanceof Error ? error.message : String(error)}, or: never`);
    return z.NEVER;
  }
});

const MIB = 2 ** 20;
/** What a group can have points for; what is older can be thinned. */
const WINDOW_SECONDS_MAX = 36 * 3600;

const schema = z.strictObject({
  log: z.strictObject({ level: z.enum(LOG_LEVELS).default("info") }).prefault({}),
  memory: z
    .strictObject({
      metadata_cache: size(8 * MIB, 2 ** 40).default(128 * MIB),
      data_cache: size(8 * MIB, 2 ** 40, [0]).default(256 * MIB),
      memtable: size(4 * MIB, 4096 * MIB).default(32 * MIB),
      ring: size(8 * MIB, 4096 * MIB).default(64 * MIB),
    })
    .prefault({}),
  history: z
    .strictObject({
      window: duration(WINDOW_SECONDS_MAX).default(3600),
      thin: thin.prefault("1m:24h,1h:7d,1d:30d"),
      limit: percent.default(20),
    })
    .prefault({}),
  rebuild: z.strictObject({ limit: size(MIB, 2 ** 40).default(32 * MIB) }).prefault({}),
  stop: z.strictObject({ grace: duration(3600).default(5) }).prefault({}),
  replication: z
    .strictObject({
      listen: address.optional(),
      advertise: address.optional(),
      site: z
        .string()
        .regex(NAME, "a name has 1 to 63 letters, digits, dots, underscores or hyphens")
        .default(() => nameFrom(hostname())),
      pool: z.string().regex(NAME, "is not a name").optional(),
      verify: z.strictObject({ every: every.prefault("7d") }).prefault({}),
    })
    .prefault({}),
  runtime_dir: z.string().startsWith("/", "must be an absolute path").optional(),
});

/** Reads and checks a file; no file: the defaults. Every mistake is named by its path in the file. */
export async function loadConfig(file: string | undefined): Promise<Config> {
  if (file === undefined) return parseConfig("", "defaults");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw fromSystem(error, `configuration ${file}`);
  }
  return parseConfig(text, file);
}

export function parseConfig(text: string, file: string): Config {
  const document = parseDocument(text, { prettyErrors: true, uniqueKeys: true });
  const problem = document.errors[0];
  if (problem !== undefined) throw new HoldfastError("Invalid", `configuration ${file}: ${problem.message}`);
  const parsed = schema.safeParse(document.toJS() ?? {});
  if (!parsed.success) {
    const lines = parsed.error.issues.map(describe);
    throw new HoldfastError(
      "Invalid",
      `configuration ${file}: ${lines.join("; ")}`,
      allowedNear(parsed.error.issues),
    );
  }
  const { log, memory, history, rebuild, stop, replication, runtime_dir } = parsed.data;
  return Object.freeze({
    log,
    memory: {
      metadataCacheBytes: memory.metadata_cache,
      dataCacheBytes: memory.data_cache,
      memtableBytes: memory.memtable,
      ringBytes: memory.ring,
    },
    history: {
      windowSeconds: history.window,
      // A longer window leaves the steps out that it covers.
      thin: history.thin.filter((step) => step.forSeconds > history.window),
      limitPercent: history.limit,
    },
    rebuild: { limitBytes: rebuild.limit },
    stop: { graceSeconds: stop.grace },
    replication: {
      listen: replication.listen,
      advertise: replication.advertise,
      site: replication.site,
      pool: replication.pool,
      verifyEvery: replication.verify.every,
    },
    runtimeDir: runtime_dir,
  });
}

type Issue = z.core.$ZodIssue;

function describe(issue: Issue): string {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => `unknown key ${[...issue.path, key].join(".")}`).join(", ");
  }
  return `${issue.path.length === 0 ? "the file" : issue.path.join(".")}: ${issue.message}`;
}

function allowedNear(issues: readonly Issue[]): string {
  const unknown = issues.find((issue) => issue.code === "unrecognized_keys");
  if (unknown === undefined) return "";
  const section = unknown.path.map(String).join(".");
  return `allowed ${section === "" ? "at the top" : `in ${section}`}: ${allowedKeys(section).join(", ")}`;
}

function allowedKeys(section: string): string[] {
  const top = schema.shape;
  if (section === "") return Object.keys(top);
  const inner = top[section as keyof typeof top];
  const object = "unwrap" in inner ? inner.unwrap() : inner;
  return object instanceof z.ZodObject ? Object.keys(object.shape) : [];
}
