// holdfast volume create|list|show|rename|set|destroy

import { Option } from "commander";
import type { Command } from "commander";
import type { VolumeAnswer } from "../../daemon/protocol.js";
import { contextOf, requireYes, showPath } from "../context.js";
import { CliError } from "../errors.js";
import { bytes, duration, print, table } from "../output.js";
import { promotionOf } from "./clone.js";

export function addVolume(program: Command): void {
  const volume = program.command("volume").description("POSIX file systems in a pool");
  addCreate(volume);
  addList(volume);
  addShow(volume);
  addRename(volume);
  addSet(volume);
  addDestroy(volume);
}

interface CreateOptions {
  pool: string;
  rf: string;
  group?: string;
  ack: string;
  quota?: string;
  minWriteCopies?: string;
  below: string;
  domain: string;
}

const BELOW = ["block", "fail"];
const DOMAINS = ["drive", "node", "block", "rack"];
const COPIES = ["1", "2", "3"];

function addCreate(volume: Command): void {
  volume
    .command("create <name>")
    .description("make a volume")
    .requiredOption("--pool <pool>", "the pool it lies in")
    .addOption(new Option("--rf <n>", "copies on different drives").choices(COPIES).default("2"))
    .option("--group <group>", "protection group to join (default: one of its own)")
    .addOption(
      new Option("--ack <policy>", "when a write is answered").choices(["fsync", "write"]).default("fsync"),
    )
    .option("--quota <size>", "bytes it may hold at most")
    .addOption(
      new Option(
        "--min-write-copies <n>",
        "copies that a write needs to count (default: rf - 1, at least 1)",
      ).choices(COPIES),
    )
    .addOption(
      new Option("--below <policy>", "with fewer, writes wait or fail").choices(BELOW).default("block"),
    )
    .addOption(new Option("--domain <level>", "what no two copies share").choices(DOMAINS).default("drive"))
    .action(async (name: string, options: CreateOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const created = await client.post<VolumeAnswer>("/v1/volumes", {
        ...options,
        ...numbered(options),
        name,
      });
      print(output, created, () => `volume ${name} is ready: ${created.rf} copies, pool ${created.pool}`);
    });
}

function addList(volume: Command): void {
  volume
    .command("list")
    .description("all volumes of the daemon")
    .option("--pool <pool>", "only those of a pool")
    .action(async (options: { pool?: string }, command: Command) => {
      const { client, output } = contextOf(command);
      const query = options.pool === undefined ? "" : `?pool=${encodeURIComponent(options.pool)}`;
      const volumes = await client.get<VolumeAnswer[]>(`/v1/volumes${query}`);
      print(output, volumes, () => volumeTable(volumes));
    });
}

function addShow(volume: Command): void {
  volume
    .command("show <name>")
    .description("one volume")
    .action(async (name: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const found = await client.get<VolumeAnswer>(urlOf(name));
      print(output, found, () => describe(found));
    });
}

function addRename(volume: Command): void {
  volume
    .command("rename <name> <new-name>")
    .description("give a volume that is not mounted another name")
    .action(async (name: string, newName: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const renamed = await client.post<VolumeAnswer>(`${urlOf(name)}/rename`, { name: newName });
      print(output, renamed, () => `volume ${name} is now ${newName}`);
    });
}

interface SetOptions {
  rf?: string;
  minWriteCopies?: string;
  below?: string;
  domain?: string;
  quota?: string;
  past?: string;
  retention?: string;
  thin?: string;
  historyLimit?: string;
  yes?: boolean;
}

/** Counts as numbers. */
function numbered({ rf, minWriteCopies }: SetOptions): { rf?: number; minWriteCopies?: number } {
  return {
    ...(rf === undefined ? {} : { rf: Number(rf) }),
    ...(minWriteCopies === undefined ? {} : { minWriteCopies: Number(minWriteCopies) }),
  };
}

function addSet(volume: Command): void {
  volume
    .command("set <name>")
    .description("change a volume, mounted or not; what lies on the drives follows in the background")
    .addOption(new Option("--rf <n>", "copies on different drives").choices(COPIES))
    .addOption(
      new Option(
        "--min-write-copies <n>",
        "copies that a write needs to count; 0: rf - 1, at least 1",
      ).choices(["0", ...COPIES]),
    )
    .addOption(new Option("--below <policy>", "with fewer, writes wait or fail").choices(BELOW))
    .addOption(new Option("--domain <level>", "what no two copies share").choices(DOMAINS))
    .option("--quota <size>", "bytes it may hold at most; 0: no limit")
    .addOption(
      new Option("--past <who>", "who may look below .holdfast in its mount").choices([
        "all",
        "owner",
        "off",
      ]),
    )
    .option("--retention <time>", "of its group: every second is kept for so long; 0s: none")
    .option("--thin <steps>", "of its group: and then fewer, 1m:24h,1h:7d,1d:30d; none: nothing older")
    .option(
      "--history-limit <size>",
      "of its group: what history may take, 20GiB or 10%; none: the pool's limit",
    )
    .option("--yes", "also where nothing of the past is kept then")
    .action(async (name: string, options: SetOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const { retention, thin, historyLimit, yes, ...own } = options;
      const kept = { retention, thin, historyLimit };
      const ofGroup = Object.values(kept).some((value) => value !== undefined);
      const ofVolume = Object.keys(own).length > 0;
      if (!ofGroup && !ofVolume) {
        throw new CliError("Invalid", "nothing to set", "see: holdfast volume set --help");
      }
      let changed: VolumeAnswer[] = [];
      if (ofVolume) changed = [await client.patch<VolumeAnswer>(urlOf(name), { ...own, ...numbered(own) })];
      if (ofGroup) {
        const url = `/v1/retention/${encodeURIComponent(name)}`;
        changed = await client.patch<VolumeAnswer[]>(url, { ...kept, yes: yes === true });
      }
      const [first] = changed;
      print(output, changed.length === 1 ? first : changed, () => changed.map(describe).join("\n\n"));
    });
}

function addDestroy(volume: Command): void {
  volume
    .command("destroy <name>")
    .description("remove a volume and everything in it")
    .option("--yes", "really do it")
    .action(async (name: string, options: { yes?: boolean }, command: Command) => {
      const { client, output } = contextOf(command);
      requireYes(options, `destroying volume ${name} and everything in it`);
      await client.delete(urlOf(name));
      print(output, { destroyed: name }, () => `volume ${name} is gone`);
    });
}

function urlOf(name: string): string {
  return `/v1/volumes/${encodeURIComponent(name)}`;
}

export function volumeTable(volumes: readonly VolumeAnswer[]): string {
  const rows = volumes.map((volume) => [
    volume.name,
    volume.pool,
    volume.group,
    `${volume.rf}`,
    volume.ack,
    quotaOf(volume),
    bytes(volume.space.availableBytes),
    bytes(volume.usage.liveBytes),
    bytes(volume.usage.historyBytes),
    bytes(volume.usage.snapshotBytes),
    whereOf(volume),
  ]);
  const space = ["available", "live", "history", "snapshots"];
  const head = ["volume", "pool", "group", "rf", "ack", "quota", ...space, "mounted at"];
  return table(head, rows, "no volumes; make one: holdfast volume create NAME --pool POOL");
}

function whereOf({ problem, mount, replicaOf }: VolumeAnswer): string {
  if (problem !== "") return "damaged";
  if (mount !== null) return showPath(mount);
  if (replicaOf === null) return "not mounted";
  return `replica, ${replicaOf.time === null ? "first sync" : `as of ${replicaOf.time.replace(/\.\d+Z$/, "Z")}`}`;
}

function quotaOf(volume: VolumeAnswer): string {
  return volume.quotaBytes === 0 ? "none" : bytes(volume.quotaBytes);
}

function usageOf({ usage }: VolumeAnswer): string {
  const parts = [
    ["live", usage.liveBytes],
    ["history", usage.historyBytes],
    ["snapshots", usage.snapshotBytes],
    ["log", usage.logBytes],
    ["metadata", usage.metadataBytes],
  ] as const;
  return parts.map(([what, count]) => `${what} ${bytes(count)}`).join(", ");
}

/** `1m for 1d, 1h for 7d` */
function thinOf({ thin }: VolumeAnswer["retention"]): string {
  return thin
    .map((step) => `one in ${duration(step.everySeconds)} for ${duration(step.forSeconds)}`)
    .join(", ");
}

function keptLines({ group, retention }: VolumeAnswer): string[] {
  const { windowSeconds, thin, limitBytes, heldWindowSeconds, heldOldestSeconds, ticks } = retention;
  const limit = limitBytes === null ? "" : `, history in at most ${bytes(limitBytes)} on drives`;
  const window = windowSeconds === 0 ? "no window of seconds" : `every second for ${duration(windowSeconds)}`;
  const steps = thin.length === 0 ? "" : `, then ${thinOf(retention)}`;
  const oldest = `${ticks} points up to ${duration(heldOldestSeconds)} old`;
  const held = `held: every second of the last ${duration(heldWindowSeconds)}, ${oldest}`;
  return [
    `group ${group} keeps ${window}${steps}${limit}`,
    ticks === 0 ? "held: nothing yet" : held,
    ...(retention.isShort ? ["seconds of that window went for want of space"] : []),
  ];
}

function baseLines(volume: VolumeAnswer): string[] {
  if (volume.base === null) return [];
  const { group, lsn, depth } = volume.base;
  const generations = depth === 1 ? "" : `, on ${depth} generations`;
  const promotion = promotionOf(volume);
  return [`a clone of group ${group} at LSN ${lsn}${generations}`, ...(promotion === "" ? [] : [promotion])];
}

const PAST = { all: "everybody, with the rights of then", owner: "the owner of its root", off: "nobody" };

function describe(volume: VolumeAnswer): string {
  return [
    `${volume.name}  ${volume.rf} copies in pool ${volume.pool}, group ${volume.group}, ack on ${volume.ack}`,
    `no two copies on one ${volume.domain}; a write needs ${volume.minWriteCopies} of them, with fewer it ` +
      (volume.below === "fail" ? "fails" : "waits"),
    ...(volume.trouble === "" ? [] : [`now: ${volume.trouble}`]),
    `its past (.holdfast in the mount) is for ${PAST[volume.past]}`,
    ...keptLines(volume),
    ...baseLines(volume),
    `quota ${quotaOf(volume)}; created ${new Date(volume.createdSeconds * 1000).toISOString()}`,
    `df: ${bytes(volume.space.availableBytes)} available of ${bytes(volume.space.totalBytes)}`,
    `group ${volume.group} on drives, all copies: ${usageOf(volume)}`,
    `log: newest ${volume.newestLsn}, durable ${volume.durableLsn}, drained ${volume.drainedLsn}`,
    volume.mount === null ? "not mounted" : `${volume.mount.state} at ${showPath(volume.mount)}`,
    ...(volume.problem === "" ? [] : [volume.problem]),
  ].join("\n");
}
