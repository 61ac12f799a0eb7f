// holdfast pool create|list|show|import|add-drive|remove-drive|replace-drive|label|destroy

import type { Command } from "commander";
import type { PoolAnswer } from "../../daemon/protocol.js";
import { toPathJson } from "../argv.js";
import { collect, contextOf, requireYes, showPath } from "../context.js";
import { CliError } from "../errors.js";
import { bar, bytes, duration, print, table } from "../output.js";

export function addPool(program: Command): void {
  const pool = program.command("pool").description("sets of drives");
  addCreate(pool);
  addList(pool);
  addShow(pool);
  addImport(pool);
  addDriveVerbs(pool);
  addLabel(pool);
  addDestroy(pool);
}

interface CreateOptions {
  drive: string[];
  size?: string;
  domain?: string[];
}

function addCreate(pool: Command): void {
  pool
    .command("create <name>")
    .description("make a pool of empty directories, each on a disk of its own where you can")
    .requiredOption("--drive <path>", "a drive; repeat the option for each", collect)
    .option("--size <size>", "bytes to use on each drive (default: 95 % of what is free)")
    .option("--domain <path>", "failure domain rack/block/node/drive; one for each drive, in order", collect)
    .action(async (name: string, options: CreateOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const domains = options.domain ?? [];
      if (domains.length > 0 && domains.length !== options.drive.length) {
        throw new CliError(
          "Invalid",
          `${domains.length} domains for ${options.drive.length} drives`,
          "one for each drive",
        );
      }
      const drives = options.drive.map((drive, index) => ({
        ...toPathJson(drive),
        ...(options.size === undefined ? {} : { size: options.size }),
        ...(domains[index] === undefined ? {} : { domain: domains[index] }),
      }));
      const created = await client.post<PoolAnswer>("/v1/pools", { name, drives });
      print(output, created, () => `pool ${name} is ready\n${describe(created)}`);
    });
}

function addList(pool: Command): void {
  pool
    .command("list")
    .description("all pools of the daemon")
    .action(async (_options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const pools = await client.get<PoolAnswer[]>("/v1/pools");
      print(output, pools, () => poolTable(pools));
    });
}

function addShow(pool: Command): void {
  pool
    .command("show <name>")
    .description("one pool with its drives")
    .action(async (name: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const found = await client.get<PoolAnswer>(`/v1/pools/${encodeURIComponent(name)}`);
      print(output, found, () => describe(found));
    });
}

function addImport(pool: Command): void {
  pool
    .command("import")
    .description("bring a pool back from its drives, after a lost state folder or on another machine")
    .requiredOption("--drive <path>", "a drive of the pool; repeat the option for each", collect)
    .action(async (options: { drive: string[] }, command: Command) => {
      const { client, output } = contextOf(command);
      const imported = await client.post<PoolAnswer>("/v1/pools/import", {
        drives: options.drive.map(toPathJson),
      });
      print(output, imported, () => `pool ${imported.name} is back\n${describe(imported)}`);
    });
}

interface DriveOptions {
  drive: string;
  size?: string;
  domain?: string;
}

function driveOf({ drive, size, domain }: DriveOptions): object {
  return {
    ...toPathJson(drive),
    ...(size === undefined ? {} : { size }),
    ...(domain === undefined ? {} : { domain }),
  };
}

function addDriveVerbs(pool: Command): void {
  const urlOf = (name: string): string => `/v1/pools/${encodeURIComponent(name)}`;
  pool
    .command("add-drive <name>")
    .description("give a pool one more empty directory; copies that are short come to it")
    .requiredOption("--drive <path>", "the drive")
    .option("--size <size>", "bytes to use on it (default: 95 % of what is free)")
    .option("--domain <path>", "failure domain rack/block/node/drive")
    .action(async (name: string, options: DriveOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const answer = await client.post<PoolAnswer>(`${urlOf(name)}/drives`, driveOf(options));
      print(output, answer, () => describe(answer));
    });
  pool
    .command("remove-drive <name> <drive>")
    .description("empty a drive (path or uuid), then let go of it; one that is away is given up")
    .action(async (name: string, drive: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const answer = await client.delete<PoolAnswer>(`${urlOf(name)}/drives/${encodeURIComponent(drive)}`);
      print(output, answer, () => describe(answer));
    });
  pool
    .command("replace-drive <name> <old>")
    .description("add a drive and empty another (path or uuid), which then leaves the pool")
    .requiredOption("--drive <path>", "the new drive")
    .option("--size <size>", "bytes to use on it (default: 95 % of what is free)")
    .option("--domain <path>", "failure domain rack/block/node/drive")
    .action(async (name: string, old: string, options: DriveOptions, command: Command) => {
      const { client, output } = contextOf(command);
      const request = { ...driveOf(options), old };
      const answer = await client.post<PoolAnswer>(`${urlOf(name)}/replace-drive`, request);
      print(output, answer, () => describe(answer));
    });
}

function addLabel(pool: Command): void {
  pool
    .command("label <name> <drive> <label>")
    .description("say where a drive (path or uuid) is: rack/block/node/drive; copies move apart accordingly")
    .action(async (name: string, drive: string, label: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const answer = await client.post<PoolAnswer>(`/v1/pools/${encodeURIComponent(name)}/label`, {
        drive,
        label,
      });
      print(output, answer, () => describe(answer));
    });
}

function addDestroy(pool: Command): void {
  pool
    .command("destroy <name>")
    .description("remove a pool, every volume in it and everything on its drives")
    .option("--yes", "really do it")
    .action(async (name: string, options: { yes?: boolean }, command: Command) => {
      const { client, output } = contextOf(command);
      requireYes(options, `destroying pool ${name} and every volume in it`);
      await client.delete(`/v1/pools/${encodeURIComponent(name)}`);
      print(output, { destroyed: name }, () => `pool ${name} is gone`);
    });
}

export function poolTable(pools: readonly PoolAnswer[]): string {
  const rows = pools.map(({ name, state, status, problem }) =>
    status === null
      ? [name, state, "", "", "", "", "", "", "", "", problem?.message ?? ""]
      : [
          name,
          state,
          `${status.drives.length}`,
          bytes(status.totalBytes),
          bytes(status.freeBytes),
          ...[status.usage.liveBytes, status.usage.cloneBytes].map(bytes),
          ...[status.usage.historyBytes, status.usage.snapshotBytes, status.logBytes].map(bytes),
          bar(status.totalBytes - status.freeBytes, status.totalBytes),
        ],
  );
  return table(
    ["pool", "state", "drives", "size", "free", "live", "clones", "history", "snapshots", "log", "used"],
    rows,
    "no pools; make one: holdfast pool create",
  );
}

function describe(pool: PoolAnswer): string {
  const { status } = pool;
  if (status === null) {
    const drives = pool.drives.map(showPath).join(", ");
    return `pool ${pool.name} (${pool.uuid}) is not open: ${pool.problem?.message ?? ""}\ndrives: ${drives}`;
  }
  const rows = status.drives.map((drive) => [
    drive.path,
    drive.state,
    bytes(drive.totalBytes),
    bytes(drive.freeBytes),
    drive.domain,
    drive.sinceSeconds === 0 ? drive.reason : `${drive.reason} (since ${time(drive.sinceSeconds)})`,
  ]);
  return [
    `${pool.name}  ${pool.uuid}`,
    `${bytes(status.freeBytes)} free of ${bytes(status.totalBytes)}; data ${bytes(status.dataBytes)}, ` +
      `metadata ${bytes(status.metadataBytes)}, log ${bytes(status.logBytes)}`,
    table(["drive", "state", "size", "free", "domain", "remark"], rows, "no drives"),
    ...healingLines(status),
    ...scrubLines(status),
    ...status.warnings.map((warning) => `warning: ${warning}`),
  ].join("\n");
}

function scrubLines({ scrub }: NonNullable<PoolAnswer["status"]>): string[] {
  if (scrub.pass === 0) return [];
  const found = `${scrub.badCopies} bad copies, ${scrub.repaired} repaired, ${scrub.lost} lost`;
  const eta = scrub.etaSeconds === null ? "complete" : `about ${duration(scrub.etaSeconds)} to go`;
  return [`scrub: pass ${scrub.pass}, ${eta}; ${found}`];
}

function time(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}

function healingLines({ healing }: NonNullable<PoolAnswer["status"]>): string[] {
  const { bytesLeft, bytesDone, etaSeconds, thingsLost, thingsSingle, bytesSingle, stuck } = healing;
  const eta = etaSeconds === null ? "" : `, about ${etaSeconds} s to go`;
  return [
    ...(bytesLeft === 0 ? [] : [`healing: ${bytes(bytesDone)} done, ${bytes(bytesLeft)} left${eta}`]),
    ...(healing.bytesUnbalanced === 0 ? [] : [`balancing: ${bytes(healing.bytesUnbalanced)} are to move`]),
    ...(thingsSingle === 0
      ? []
      : [`at risk: ${thingsSingle} pieces (${bytes(bytesSingle)}) have one copy left`]),
    ...(healing.thingsMisplaced === 0
      ? []
      : [`too close: ${healing.thingsMisplaced} pieces have copies that share a failure domain`]),
    ...(thingsLost === 0 ? [] : [`lost: ${thingsLost} pieces have no copy on any drive that is there`]),
    ...stuck.map((what) => `cannot be healed: ${what}`),
  ];
}
