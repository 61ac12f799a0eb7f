// The API's routes: convert, call, convert back.

import type { z } from "zod";
import { HoldfastError } from "../io-path/errors.js";
import type { FeedChange, FileChange, History, SnapshotSpace } from "../io-path/history.js";
import { pathToJson } from "../io-path/paths.js";
import type { DriveRequest } from "../io-path/pool.js";
import type { FeedChangeAnswer, FileChangeAnswer } from "./protocol.js";
import type { Handovers } from "./handovers.js";
import type { Route } from "./route.js";
import { parseDuration, parseLimit, parseSize, parseThin } from "./units.js";
import { peerRoutes } from "./peer-routes.js";
import type { Peers } from "./peers.js";
import { protectionRoutes } from "./protection-routes.js";
import { protectionWarnings } from "./protections.js";
import type { Protections } from "./protections.js";
import type { Replicas } from "./replicas.js";
import type { Reconciliations } from "./reconciliations.js";
import type { Returns } from "./returns.js";
import * as requests from "./requests.js";
import type { Siblings } from "./siblings.js";
import type { Supervisor } from "./supervisor.js";
import { renderMetrics } from "./metrics.js";
import { verificationWarnings } from "./verifications.js";

/** Tables that are read to tell what something holds; the quick ones within about a second. */
const TABLE_BYTES = { none: 0, quick: 128 * 2 ** 20, whole: Number.MAX_SAFE_INTEGER };

export interface Served {
  supervisor: Supervisor;
  peers: Peers;
  protections: Protections;
  replicas: Replicas;
  handovers: Handovers;
  returns: Returns;
  reconciliations: Reconciliations;
  siblings: Siblings;
}

export function createRoutes(served: Served): Route[] {
  const { supervisor, peers, protections, replicas } = served;
  return [
    ...statusRoutes(served),
    ...poolRoutes(supervisor, protections),
    ...driveRoutes(supervisor),
    ...volumeRoutes(supervisor, protections),
    ...snapshotRoutes(supervisor),
    ...momentRoutes(supervisor),
    ...mountRoutes(supervisor),
    ...policyRoutes(supervisor),
    ...peerRoutes(peers, protections),
    ...protectionRoutes(protections, replicas, served.siblings),
  ];
}

function statusRoutes(served: Served): Route[] {
  const { supervisor, peers, protections, handovers, returns, reconciliations, siblings } = served;
  const status = async () => {
    const told = await supervisor.status();
    if (told.phase !== "running") return told;
    const sent = await protections.answers();
    const compared = verificationWarnings(sent.map(({ verified }) => verified));
    const ofSites = [...peers.warnings(), ...protectionWarnings(sent), ...compared];
    const ofOwners = [handovers, returns, reconciliations].flatMap((part) => part.warnings());
    const warnings = [...told.warnings, ...ofSites, ...ofOwners, ...(await siblings.warnings())];
    return { ...told, protections: sent, failovers: reconciliations.answers(), warnings };
  };
  return [
    {
      method: "GET",
      path: "/v1/status",
      run: async () => {
        const told = await status();
        return { status: told.ready ? 200 : 503, json: told };
      },
    },
    {
      method: "GET",
      path: "/metrics",
      run: async () => ({ text: await renderMetrics(await status()) }),
    },
    {
      method: "POST",
      path: "/v1/flush",
      run: async () => {
        await supervisor.pools.flush();
        return { json: {} };
      },
    },
  ];
}

function poolRoutes(supervisor: Supervisor, protections: Protections): Route[] {
  return [
    { method: "GET", path: "/v1/pools", run: async () => ({ json: await supervisor.pools.answers() }) },
    {
      method: "POST",
      path: "/v1/pools",
      run: async ({ body }) => {
        const { name, drives } = requests.parse(requests.poolCreate, body);
        return { status: 201, json: await supervisor.createPool(name, drives.map(driveOf)) };
      },
    },
    {
      method: "POST",
      path: "/v1/pools/import",
      run: async ({ body }) => {
        const { drives } = requests.parse(requests.poolImport, body);
        const paths = drives.map((drive) => requests.requirePath("drive", drive));
        return { status: 201, json: await supervisor.importPool(paths) };
      },
    },
    {
      method: "GET",
      path: "/v1/pools/:name",
      run: async ({ params: [name = ""] }) => ({ json: await supervisor.pools.answer(name) }),
    },
    {
      method: "POST",
      path: "/v1/pools/:name/scrub",
      run: async ({ params: [name = ""] }) => ({ json: await supervisor.pools.get(name).scrub() }),
    },
    {
      method: "DELETE",
      path: "/v1/pools/:name",
      run: async ({ params: [name = ""] }) => {
        const volumes = await supervisor.volumes(name);
        await protections.requireUnprotected(volumes.map(({ group }) => group));
        await supervisor.destroyPool(name);
        return { json: {} };
      },
    },
  ];
}

function driveRoutes(supervisor: Supervisor): Route[] {
  return [
    {
      method: "POST",
      path: "/v1/pools/:name/drives",
      run: async ({ params: [name = ""], body }) => ({
        status: 201,
        json: await supervisor.addDrive(name, driveOf(requests.parse(requests.driveAdd, body))),
      }),
    },
    {
      method: "POST",
      path: "/v1/pools/:name/replace-drive",
      run: async ({ params: [name = ""], body }) => {
        const { old, ...drive } = requests.parse(requests.driveReplace, body);
        return { json: await supervisor.replaceDrive(name, old, driveOf(drive)) };
      },
    },
    {
      method: "POST",
      path: "/v1/pools/:name/label",
      run: async ({ params: [name = ""], body }) => {
        const { drive, label } = requests.parse(requests.driveLabel, body);
        return { json: await supervisor.labelDrive(name, drive, label) };
      },
    },
    {
      method: "DELETE",
      path: "/v1/pools/:name/drives/:drive",
      run: async ({ params: [name = "", drive = ""] }) => ({
        json: await supervisor.removeDrive(name, drive),
      }),
    },
  ];
}

function driveOf(drive: z.infer<typeof requests.driveAdd>): DriveRequest {
  return {
    path: requests.requirePath("drive", drive),
    bytes: drive.size === undefined ? undefined : parseSize(drive.size, "size"),
    domain: drive.domain ?? "",
  };
}

function volumeRoutes(supervisor: Supervisor, protections: Protections): Route[] {
  return [
    {
      method: "GET",
      path: "/v1/volumes",
      run: async ({ query }) => ({ json: await supervisor.volumes(query.get("pool") ?? undefined) }),
    },
    {
      method: "POST",
      path: "/v1/volumes",
      run: async ({ body }) => {
        const { pool, quota, ...volume } = requests.parse(requests.volumeCreate, body);
        const request = { ...volume, quotaBytes: parseSize(quota, "quota") };
        return { status: 201, json: await supervisor.createVolume(pool, request) };
      },
    },
    {
      method: "GET",
      path: "/v1/volumes/:name",
      run: async ({ params: [name = ""] }) => ({ json: await supervisor.volume(name) }),
    },
    {
      method: "PATCH",
      path: "/v1/volumes/:name",
      run: async ({ params: [name = ""], body }) => {
        const { quota, ...set } = requests.parse(requests.volumeSet, body);
        const quotaBytes = quota === undefined ? undefined : parseSize(quota, "quota");
        return { json: await supervisor.setVolume(name, { ...set, quotaBytes }) };
      },
    },
    {
      method: "PATCH",
      path: "/v1/retention/:target",
      run: async ({ params: [target = ""], body }) => {
        const { retention, thin, historyLimit, yes } = requests.parse(requests.retentionSet, body);
        const change = {
          windowSeconds:
            retention === undefined ? undefined : Math.ceil(parseDuration(retention, "retention")),
          thin: thin === undefined ? undefined : parseThin(thin, "thin"),
          limit: historyLimit === undefined ? undefined : parseLimit(historyLimit),
        };
        return { json: await supervisor.setRetention(target, change, { yes }) };
      },
    },
    {
      method: "POST",
      path: "/v1/volumes/:name/rename",
      run: async ({ params: [name = ""], body }) => {
        const renamed = requests.parse(requests.volumeRename, body);
        return { json: await supervisor.renameVolume(name, renamed.name) };
      },
    },
    {
      method: "POST",
      path: "/v1/volumes/:name/scrub",
      run: async ({ params: [name = ""] }) => {
        const { pool } = await supervisor.pools.findVolume(name);
        return { json: await supervisor.pools.get(pool).scrub(name) };
      },
    },
    {
      method: "DELETE",
      path: "/v1/volumes/:name",
      run: async ({ params: [name = ""] }) => {
        await destroyVolume(supervisor, protections, name);
        return { json: {} };
      },
    },
  ];
}

async function destroyVolume(
  supervisor: Supervisor,
  protections: Protections,
  volume: string,
): Promise<void> {
  const named = (await supervisor.volumes()).filter(({ name }) => name === volume);
  await protections.requireUnprotected(named.map(({ group }) => group));
  await supervisor.destroyVolume(volume);
}

function snapshotRoutes(supervisor: Supervisor): Route[] {
  return [
    {
      method: "POST",
      path: "/v1/snapshots",
      run: async ({ body }) => {
        const { target, name, at } = requests.parse(requests.snapshotCreate, body);
        const history = await supervisor.history(target);
        const create = () => history.create(target, name, at);
        // One of an earlier moment is behind what peers have already.
        const made = at === undefined ? await supervisor.takeSnapshot(create) : await create();
        return { status: 201, json: made };
      },
    },
    {
      method: "GET",
      path: "/v1/snapshots",
      run: async ({ query }) => {
        const { target, space, ...asked } = requests.parse(requests.snapshotList, Object.fromEntries(query));
        const history = await supervisor.history(target);
        const found = await history.list(target, { ...asked, seconds: asked.seconds === "true" });
        if (space === "none") return { json: found };
        const spaces = await spacesOf(history, target, { ...asked, whole: space === "whole" });
        return { json: found.map((one) => ({ ...one, space: spaces.get(one.lsn) ?? null })) };
      },
    },
    {
      method: "POST",
      path: "/v1/would-free",
      run: async ({ body }) => {
        const { target, names } = requests.parse(requests.wouldFree, body);
        return { json: await (await supervisor.history(target)).wouldFree(target, names) };
      },
    },
    {
      method: "DELETE",
      path: "/v1/snapshots/:target/:name",
      run: async ({ params: [target = "", name = ""] }) => {
        await (await supervisor.history(target)).delete(target, name);
        return { json: {} };
      },
    },
    {
      method: "POST",
      path: "/v1/snapshots/:target/:name/rename",
      run: async ({ params: [target = "", name = ""], body }) => {
        const renamed = requests.parse(requests.snapshotRename, body);
        await (await supervisor.history(target)).rename(target, name, renamed.name);
        return { json: {} };
      },
    },
    {
      method: "POST",
      path: "/v1/snapshots/:target/:name/hold",
      run: async ({ params: [target = "", name = ""], body }) => {
        const { held } = requests.parse(requests.snapshotHold, body);
        await (await supervisor.history(target)).hold(target, name, held);
        return { json: {} };
      },
    },
  ];
}

/** What snapshots hold; of none, where it would take seconds and nobody asked for that. */
async function spacesOf(
  history: History,
  target: string,
  { after, limit, whole }: { after: number; limit: number; whole: boolean },
): Promise<Map<number, SnapshotSpace>> {
  const tableBytesMax = TABLE_BYTES[whole ? "whole" : "quick"];
  try {
    return await history.space(target, { after, limit, tableBytesMax });
  } catch (error) {
    if (error instanceof HoldfastError && error.code === "Unavailable" && !whole) return new Map();
    throw error;
  }
}

function momentRoutes(supervisor: Supervisor): Route[] {
  return [
    {
      method: "GET",
      path: "/v1/point",
      run: async ({ query }) => {
        const { target, at } = requests.parse(requests.point, Object.fromEntries(query));
        return { json: await (await supervisor.history(target)).find(target, at) };
      },
    },
    {
      method: "GET",
      path: "/v1/volumes/:name/difference",
      run: async ({ params: [name = ""], query }) => {
        const { from, to, ...range } = requests.parse(requests.difference, Object.fromEntries(query));
        const page = await (await supervisor.history(name)).difference(name, { from, to }, range);
        return { json: { ...page, changes: page.changes.map(toChangeAnswer) } };
      },
    },
    {
      method: "GET",
      path: "/v1/volumes/:name/feed",
      run: async ({ params: [name = ""], query }) => {
        const asked = requests.parse(requests.feed, Object.fromEntries(query));
        const page = await (
          await supervisor.history(name)
        ).feed(name, {
          from: asked.from,
          limit: asked.limit,
          waitMs: Math.round(asked.wait * 1000),
          latest: asked.latest === "true",
          coalesce: asked.coalesce === "true",
        });
        return { json: { ...page, changes: page.changes.map(toFeedAnswer) } };
      },
    },
    {
      method: "GET",
      path: "/v1/clones",
      run: async ({ query }) => {
        const { origin, space } = requests.parse(requests.cloneList, Object.fromEntries(query));
        return { json: await supervisor.clones(origin, TABLE_BYTES[space]) };
      },
    },
    {
      method: "POST",
      path: "/v1/clones",
      run: async ({ body }) => {
        const { source, name, at } = requests.parse(requests.clone, body);
        return { status: 201, json: await supervisor.clone(source, name, at) };
      },
    },
    {
      method: "POST",
      path: "/v1/clones/:target/promote",
      run: async ({ params: [target = ""] }) => ({ json: await supervisor.promote(target) }),
    },
  ];
}

function toFeedAnswer({ seenAt, ...told }: FeedChange): FeedChangeAnswer {
  const { kind: op, ...change } = toChangeAnswer(told);
  return { ...change, op, seenAt };
}

function toChangeAnswer({ path, oldPath, ...change }: FileChange): FileChangeAnswer {
  return { ...change, ...pathToJson(path), old: oldPath === null ? null : pathToJson(oldPath) };
}

function mountRoutes(supervisor: Supervisor): Route[] {
  return [
    { method: "GET", path: "/v1/mounts", run: async () => ({ json: supervisor.mounts.answers() }) },
    {
      method: "POST",
      path: "/v1/mounts",
      run: async ({ body }) => {
        const request = requests.parse(requests.mount, body);
        const { volume, options, source = volume, at } = request;
        const dir = requests.requirePath("mount point", request);
        return { json: await supervisor.mount({ volume, dir, options, source, at }) };
      },
    },
    {
      method: "POST",
      path: "/v1/umount",
      run: async ({ body }) => {
        const request = requests.parse(requests.umount, body);
        return { json: await supervisor.unmount(requests.requirePath("mount point", request), request) };
      },
    },
  ];
}

function policyRoutes(supervisor: Supervisor): Route[] {
  return [
    { method: "GET", path: "/v1/policy", run: async () => ({ json: supervisor.policies.answer() }) },
    {
      method: "POST",
      path: "/v1/policy",
      run: async ({ body }) => {
        const { file, text, yes } = requests.parse(requests.policyApply, body);
        return { json: await supervisor.applyPolicies(file, text, { yes }) };
      },
    },
    {
      method: "POST",
      path: "/v1/policy/test",
      run: async ({ body }) => {
        const { file, text, until } = requests.parse(requests.policyTest, body);
        return { json: await supervisor.policies.test(file, text, until) };
      },
    },
  ];
}
