// What requests must look like; the types are the protocol's.

import { z } from "zod";
import { HoldfastError } from "../io-path/errors.js";
import { pathFromJson } from "../io-path/paths.js";
import { ADDRESSES_MAX, ADDRESS_CHARACTERS_MAX } from "../nearsync-lws/limits.js";
import { ROLES } from "../nearsync-lws/peers.js";
import { FILE_CHARACTERS_MAX } from "./policy/file.js";
import type { PathJson } from "./protocol.js";

const size = z.union([z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER), z.string().max(32)]);
const pathFields = { path: z.string().max(4096).optional(), path_base64: z.string().max(8192).optional() };
const name = z.string().max(4096);

/** A feed, or one who waits for an invite's end, is answered after so long at the latest. */
const FEED_WAIT_S_MAX = 25;

/** Drives that one request may name. */
const DRIVES_MAX = 1024;

export const poolCreate = z.strictObject({
  name,
  drives: z
    .array(z.strictObject({ ...pathFields, size: size.optional(), domain: z.string().max(256).optional() }))
    .min(1, "a pool needs at least one drive")
    .max(DRIVES_MAX),
});

export const poolImport = z.strictObject({
  drives: z.array(z.strictObject(pathFields)).min(1, "name the pool's drives").max(DRIVES_MAX),
});

export const driveAdd = z.strictObject({
  ...pathFields,
  size: size.optional(),
  domain: z.string().max(256).optional(),
});
export const driveReplace = driveAdd.extend({ old: name });

export const driveLabel = z.strictObject({ drive: name, label: z.string().max(256) });

const below = z.enum(["block", "fail"]);
const domain = z.enum(["drive", "node", "block", "rack"]);
const copies = z.number().int().max(3);

export const volumeCreate = z.strictObject({
  name,
  pool: name,
  rf: z.number().int().min(1).max(3).default(2),
  group: name.optional(),
  ack: z.enum(["fsync", "write"]).default("fsync"),
  quota: size.default(0),
  minWriteCopies: copies.min(1).optional(),
  below: below.default("block"),
  domain: domain.default("drive"),
});

export const volumeSet = z
  .strictObject({
    rf: copies.min(1).optional(),
    minWriteCopies: copies.min(0).optional(),
    below: below.optional(),
    domain: domain.optional(),
    quota: size.optional(),
    past: z.enum(["all", "owner", "off"]).optional(),
  })
  .refine((set) => Object.values(set).some((value) => value !== undefined), "nothing to set");
export const retentionSet = z
  .strictObject({
    retention: z.string().max(32).optional(),
    thin: z.string().max(256).optional(),
    historyLimit: size.optional(),
    yes: z.boolean().default(false),
  })
  .refine(
    ({ retention, thin, historyLimit }) =>
      [retention, thin, historyLimit].some((value) => value !== undefined),
    "nothing to set",
  );
export const volumeRename = z.strictObject({ name });

/** A snapshot's name, a time, an LSN. */
const words = z.string().min(1, "say which moment").max(256);

/** What each holds: only where that is quick, or however long it takes. */
const spaceOf = z.enum(["none", "quick", "whole"]).default("none");

export const snapshotCreate = z.strictObject({ target: name, name, at: words.optional() });
export const snapshotRename = z.strictObject({ name });
export const snapshotHold = z.strictObject({ held: z.boolean() });
export const snapshotList = z.strictObject({
  target: name,
  after: z.coerce.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER).default(0),
  limit: z.coerce.number().int().min(1).max(10_000).default(1000),
  seconds: z.enum(["true", "false"]).default("false"),
  space: spaceOf,
});
export const wouldFree = z.strictObject({ target: name, names: z.array(name).min(1).max(10_000) });
export const point = z.strictObject({ target: name, at: words });
export const difference = z.strictObject({
  from: words,
  to: words.optional(),
  first: z.coerce.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER).default(0),
  limit: z.coerce.number().int().min(1).max(10_000).default(1000),
});
const flag = z.enum(["true", "false"]).default("false");
export const feed = z.strictObject({
  from: words,
  limit: z.coerce.number().int().min(1).max(10_000).default(1000),
  /** Seconds. */
  wait: z.coerce.number().min(0).max(FEED_WAIT_S_MAX).default(0),
  latest: flag,
  coalesce: flag,
});
export const cloneList = z.strictObject({ origin: name.optional(), space: spaceOf });
export const clone = z.strictObject({ source: name, name, at: words.optional() });

export const mount = z.strictObject({
  ...pathFields,
  volume: name,
  at: words.optional(),
  options: z.array(z.string().max(64)).max(64),
  source: z.string().max(255).optional(),
});

const policyFile = { file: z.string().min(1).max(4096), text: z.string().max(FILE_CHARACTERS_MAX) };

export const policyApply = z.strictObject({ ...policyFile, yes: z.boolean().default(false) });
export const policyTest = z.strictObject({ ...policyFile, until: z.string().max(64).default("1d") });

export const umount = z.strictObject({ ...pathFields, detach: z.boolean().default(false) });

const roles = z.array(z.enum(ROLES)).max(ROLES.length).optional();
const address = z.string().max(ADDRESS_CHARACTERS_MAX);

export const peerInvite = z.strictObject({
  name: name.optional(),
  roles,
  listen: address.optional(),
  address: address.optional(),
});
export const peerJoin = z.strictObject({ name: name.optional(), roles, invite: z.string().max(1024) });
export const peerSet = z
  .strictObject({ name: name.optional(), roles, addresses: z.array(address).max(ADDRESSES_MAX).optional() })
  .refine((set) => Object.values(set).some((value) => value !== undefined), "nothing to set");
export const inviteWait = z.strictObject({ wait: z.coerce.number().min(0).max(FEED_WAIT_S_MAX).default(0) });

export const protect = z.strictObject({
  target: name,
  peer: name,
  rpo: z.string().max(32).optional(),
  bandwidth: size.optional(),
  rf: copies.min(1).optional(),
  name: name.optional(),
});
export const failover = z.strictObject({
  target: name,
  mode: z.enum(["unplanned"]),
  yes: z.boolean().default(false),
  force: z.boolean().default(false),
});
export const yields = z.strictObject({ target: name, to: name.optional(), yes: z.boolean().default(false) });
export const forkDrop = z.strictObject({ yes: flag });

export const plannedFailover = z.strictObject({ target: name, to: name.optional() });
export const testFailover = z.strictObject({ ...pathFields, target: name, name: name.optional() });

export const verify = z.strictObject({ target: name, peer: name, repair: z.boolean().default(false) });

/** Checks a body; the message names the field. */
export function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.map((issue) => `${issue.path.join(".") || "request"}: ${issue.message}`);
  throw new HoldfastError("Invalid", lines.join("; "));
}

/** The bytes of a path in a request. */
export function requirePath(what: string, json: PathJson): Buffer {
  const bytes = pathFromJson(json);
  if (bytes === undefined) throw new HoldfastError("Invalid", `${what}: an absolute path is needed`);
  return bytes;
}
