// Which groups of this site go to which peers. Kept in protections.json, carried out by the worker.
//
// - The file is written before the worker is told, and before anybody is answered; taken back where the peer refuses.
// - Whatever the worker does not have that should be there (a start, a pool that opens late, a worker that failed) it
//   is told again, once a second.

import { HoldfastError } from "../io-path/errors.js";
import type { ErrorCode } from "../io-path/errors.js";
import type { Snapshot } from "../io-path/history.js";
import { encodeDescription } from "../nearsync-lws/description.js";
import { epochIdOf, groupIdOf, uuidOf } from "../nearsync-lws/engine-door.js";
import { BANDWIDTH_MIN, CUT_MS_MIN, OTHERS_MAX } from "../nearsync-lws/limits.js";
import type { FollowRequest } from "../nearsync-lws/replication/questions.js";
import { systemClock } from "../nearsync-lws/seams.js";
import type { ProtectionReport } from "../nearsync-lws/worker-api.js";
import { toErrorBody } from "./failure.js";
import { findGroup, unlessGone } from "./local-groups.js";
import type { LocalGroup } from "./local-groups.js";
import type { Log } from "./log.js";
import { checkName } from "./names.js";
import type { Peers } from "./peers.js";
import { EXIT_CODES } from "./protocol.js";
import type { ProtectRequest, ProtectionAnswer, VerificationAnswer } from "./protocol.js";
import { PROTECTIONS_MAX, protectionsFile } from "./protections-file.js";
import type { StoredProtection } from "./protections-file.js";
import type { StateFolder } from "./state-folder.js";
import type { Supervisor } from "./supervisor.js";
import { Turns } from "./turns.js";
import { parseDuration, parseSize } from "./units.js";

export interface ProtectionsOptions {
  folder: StateFolder;
  supervisor: Supervisor;
  peers: Peers;
  /** What this site calls itself. */
  site: string;
  log: Log;
}

const WATCH_MS = 1000;
/** A peer that is connected says within this whether it takes a group, or the answer does not wait for it. */
const VERDICT_MS = 5000;
const LOOK_MS = 50;
const RPO_MS_DEFAULT = 1000;
const RPO_MS_MAX = 86_400_000;
/** What a peer refuses with, and nothing but a change helps. */
const FINAL: readonly string[] = ["Conflict", "Denied", "Invalid", "Fenced"];
/** So much above what was promised somebody should know; below that it may be one slow batch. */
const LATE_FACTOR = 3;
/** What was protected before a start counts as unconfirmed until its peer has answered, or for so long. */
const CONFIRM_MS = 10_000;
const NO_HEADERS = { lsn: null, lagMs: null, bytesSent: 0 };
const NO_LAG = { rpoMs: null, cutMs: 0, shipMs: 0, applyMs: 0, flushMs: 0 };

export class Protections {
  readonly #options: ProtectionsOptions;
  /** How the newest comparison of one ended. */
  verified: (protection: StoredProtection) => VerificationAnswer | null = () => null;
  /** Why one could not be begun, by group and peer. */
  readonly #problems = new Map<string, string>();
  /** Since the start, no peer has said yet whether somebody else owns these now; by group and peer. */
  readonly #unconfirmed = new Set<string>();
  #stored: StoredProtection[];
  #watch: NodeJS.Timeout | undefined;
  #running = false;
  #round: Promise<void> = Promise.resolve();
  /** What is stored and what the worker is told change together, one after the other. */
  readonly #turns = new Turns();

  constructor(options: ProtectionsOptions) {
    this.#options = options;
    // Before anybody can ask.
    this.#stored = protectionsFile.read(options.folder);
  }

  get stored(): readonly StoredProtection[] {
    return this.#stored;
  }

  async start(): Promise<void> {
    this.#running = true;
    this.#options.supervisor.takeSnapshot = (create) => this.#takeSnapshot(create);
    for (const one of this.#stored) this.#unconfirmed.add(keyOf(one));
    setTimeout(() => this.#unconfirmed.clear(), CONFIRM_MS).unref();
    await this.#look();
  }

  /** Peers get a snapshot under its name: no batch leads past it. */
  async #takeSnapshot(create: () => Promise<Snapshot>): Promise<Snapshot> {
    const bootNs = systemClock.bootNs();
    const snapshot = await create();
    if (this.#stored.length === 0) return snapshot;
    const { lsn, name, group, wallSeconds } = snapshot;
    const { pool } = await this.#options.supervisor.resolve(group);
    const { uuid } = await pool.replication.identity(group);
    const point = { lsn, name, timeNs: BigInt(wallSeconds) * 1_000_000_000n, bootNs };
    await this.#options.peers.call("announce", { group: groupIdOf(uuid), point });
    return snapshot;
  }

  async stop(): Promise<void> {
    this.#running = false;
    clearTimeout(this.#watch);
    await this.#round;
  }

  /** Begins what should be there and is not. */
  #look(): Promise<void> {
    clearTimeout(this.#watch);
    this.#round = this.#turns
      .take(() => this.#reconcile())
      .catch((error: unknown) => this.#options.log.error(error, "looking after protections failed"))
      .finally(() => {
        if (!this.#running) return;
        this.#watch = setTimeout(() => void this.#look(), WATCH_MS);
      });
    return this.#round;
  }

  async #reconcile(): Promise<void> {
    if (this.#stored.length === 0) return;
    const reports = await this.#reports();
    for (const protection of this.#stored) {
      if (!this.#running) return;
      if (reports.has(keyOf(protection)) || !this.#stored.includes(protection)) continue;
      await this.#begin(protection).catch((error: unknown) => {
        this.#problems.set(keyOf(protection), toErrorBody(error).message);
      });
    }
  }

  async #reports(): Promise<Map<string, ProtectionReport>> {
    const reports = this.#stored.length === 0 ? [] : await this.#options.peers.call("reports", null);
    return new Map(reports.map((report) => [`${report.group} ${report.peer}`, report]));
  }

  async #begin(protection: StoredProtection): Promise<void> {
    const { peers, site } = this.#options;
    const { group, peer, rpoMs, bytesPerSecond, rf, name } = protection;
    peers.requireKey(peer);
    const local = await this.#local(group);
    const { replication } = local.pool;
    await requireOwner(local);
    const { lineage } = await replication.identity(local.name);
    const description = encodeDescription({
      name: name ?? local.name,
      isNameChosen: name !== null,
      ...{ rf, rpoMs, site, others: this.#others(protection) },
      engine: await replication.describe(local.name),
    });
    await peers.call("protect", {
      group: groupIdOf(group),
      epochId: epochIdOf(lineage),
      ...{ rpoMs, peer, bytesPerSecond, description },
      place: { pool: replication.pool, name: local.name },
    });
    this.#problems.delete(keyOf(protection));
  }

  /** Who else is sent a group. */
  #others({ group, peer }: StoredProtection): { site: string; fingerprint: string }[] {
    const all = this.peersOf(group).filter((one) => one !== peer);
    return all
      .slice(0, OTHERS_MAX)
      .map((one) => ({ site: this.#options.peers.nameOf(one).slice(0, 63), fingerprint: one }));
  }

  /** Whom else a group is sent to has changed: who is sent it is told. */
  async #tellOthers({ group, peer }: StoredProtection): Promise<void> {
    await this.#offerAnew(this.#stored.filter((one) => one.group === group && one.peer !== peer));
  }

  /** The group is of another epoch from now on: who is sent it is told. */
  async renew(group: string): Promise<void> {
    await this.#turns.take(() => this.#offerAnew(this.#stored.filter((one) => one.group === group)));
  }

  async #offerAnew(protections: readonly StoredProtection[]): Promise<void> {
    for (const one of protections) {
      const { group } = one;
      await this.#options.peers.call("unprotect", { group: groupIdOf(group), peer: one.peer });
      await this.#begin(one).catch((error: unknown) => {
        this.#problems.set(keyOf(one), toErrorBody(error).message);
      });
    }
  }

  /** Every group of open pools, by uuid. */
  async #locals(): Promise<Map<string, LocalGroup>> {
    const groups = await this.#options.supervisor.pools.groups();
    const found = groups.map(async (local) => {
      const identity = await unlessGone(local.pool.replication.identity(local.name));
      return identity === undefined ? [] : [[identity.uuid, local] as const];
    });
    return new Map((await Promise.all(found)).flat());
  }

  async #local(uuid: string): Promise<LocalGroup> {
    const local = await findGroup(this.#options.supervisor.pools, uuid);
    if (local !== undefined) return local;
    throw new HoldfastError("NotFound", `no open pool has the group ${uuid}`, "unprotect it if it is gone");
  }

  /** Fulfils when the peer has taken it, or is not there to be asked. */
  async protect(request: ProtectRequest): Promise<ProtectionAnswer> {
    const { supervisor, peers, folder } = this.#options;
    const { name: peerName, fingerprint: peer } = peers.require(request.peer);
    const { group: name, pool } = await supervisor.resolve(request.target);
    await requireOwner({ pool, name });
    const { uuid } = await pool.replication.identity(name);
    const stored: StoredProtection = { group: uuid, peer, ...filled(request) };
    await this.#turns.take(async () => {
      this.#requireNew(stored, { name, peerName });
      protectionsFile.write(folder, [...this.#stored, stored]);
      this.#stored = [...this.#stored, stored];
      await this.#begin(stored).catch(async (error: unknown) => {
        await this.#forget(stored);
        throw error;
      });
      await this.#tellOthers(stored);
    });
    try {
      await this.#verdict(stored, peerName);
    } catch (error) {
      await this.#drop(stored);
      throw error;
    }
    const answer = (await this.answers()).find((one) => one.group === name && one.peer === peerName);
    if (answer === undefined) throw new HoldfastError("Conflict", `${name} was unprotected meanwhile`);
    return answer;
  }

  #requireNew(wanted: StoredProtection, { name, peerName }: { name: string; peerName: string }): void {
    const same = this.#stored.filter(({ group }) => group === wanted.group);
    if (same.some(({ peer }) => peer === wanted.peer)) {
      throw new HoldfastError(
        "Conflict",
        `${name} is protected to ${peerName} already`,
        `to change how, first: holdfast unprotect ${name} --to ${peerName}`,
      );
    }
    const other = same.find(({ rpoMs }) => rpoMs !== wanted.rpoMs);
    if (other !== undefined) {
      throw new HoldfastError(
        "Conflict",
        `${name} is protected with an RPO of ${other.rpoMs} ms already, and a group is cut for all peers at once`,
        `take the same: --rpo ${other.rpoMs}ms`,
      );
    }
    if (this.#stored.length >= PROTECTIONS_MAX) {
      throw new HoldfastError("Conflict", `a daemon has at most ${PROTECTIONS_MAX} protections`);
    }
  }

  /** Fails with what a peer refuses it with; a peer that is not there refuses nothing. */
  async #verdict(stored: StoredProtection, peerName: string): Promise<void> {
    const end = performance.now() + VERDICT_MS;
    while (performance.now() < end) {
      const report = (await this.#reports()).get(keyOf(stored));
      if (report === undefined || report.link === "up" || report.link === "down") return;
      const { link, problem } = report;
      if (link === "stopped" && problem !== null && FINAL.includes(problem.code)) {
        const code = problem.code in EXIT_CODES ? (problem.code as ErrorCode) : "Conflict";
        throw new HoldfastError(code, `${peerName} does not take it: ${problem.message}`);
      }
      if (link === "stopped") return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** Nothing is kept for the peer any more; its replica stays as it is. A group that is gone is named by its uuid. */
  async unprotect(target: string, peerName: string): Promise<void> {
    const { supervisor, peers } = this.#options;
    const { fingerprint: peer, name: known } = peers.require(peerName);
    const gone = this.#stored.find((one) => one.group === target && one.peer === peer);
    if (gone !== undefined) return await this.#drop(gone);
    const { group: name, pool } = await supervisor.resolve(target);
    const { uuid } = await pool.replication.identity(name);
    const stored = this.#stored.find((one) => one.group === uuid && one.peer === peer);
    if (stored === undefined) {
      const to = this.#stored.filter(({ group }) => group === uuid).map((one) => peers.nameOf(one.peer));
      throw new HoldfastError(
        "NotFound",
        `${name} is not protected to ${known}`,
        to.length === 0 ? "it is protected to nobody" : `it is protected to: ${to.join(", ")}`,
      );
    }
    await this.#drop(stored);
    await pool.replication.forgetFollower(name, peer);
  }

  #drop(stored: StoredProtection): Promise<void> {
    return this.#turns.take(async () => {
      await this.#forget(stored);
      await this.#tellOthers(stored);
    });
  }

  /** The file first: a start must not bring it back. */
  async #forget(stored: StoredProtection): Promise<void> {
    const others = this.#stored.filter((one) => one !== stored);
    protectionsFile.write(this.#options.folder, others);
    this.#stored = others;
    this.#problems.delete(keyOf(stored));
    await this.#options.peers.call("unprotect", { group: groupIdOf(stored.group), peer: stored.peer });
  }

  /** How a group is protected to a peer; undefined: it is not. */
  find(group: string, peer: string): StoredProtection | undefined {
    return this.#stored.find((one) => one.group === group && one.peer === peer);
  }

  /** Whom a group is protected to. */
  peersOf(group: string): string[] {
    return this.#stored.flatMap((one) => (one.group === group ? [one.peer] : []));
  }

  /** A peer asks for a group that is owned here: it is protected to it as it says, or as it is already. Idempotent. */
  async follow({ peer, group: id, rpoMs, bytesPerSecond, rf }: FollowRequest): Promise<void> {
    const { folder, peers } = this.#options;
    if (rpoMs < CUT_MS_MIN || rpoMs > RPO_MS_MAX) throw new HoldfastError("Invalid", `an RPO of ${rpoMs} ms`);
    const group = uuidOf(id);
    const local = await this.#local(group);
    await requireOwner(local);
    await this.#turns.take(async () => {
      const same = this.#stored.filter((one) => one.group === group);
      if (same.some((one) => one.peer === peer)) return await peers.call("offerAgain", { group: id, peer });
      const [other] = same;
      // A group is cut for all peers at once.
      const stored = { group, peer, rpoMs: other?.rpoMs ?? rpoMs, bytesPerSecond, rf, name: null };
      this.#requireNew(stored, { name: local.name, peerName: peers.nameOf(peer) });
      protectionsFile.write(folder, [...this.#stored, stored]);
      this.#stored = [...this.#stored, stored];
      this.#options.log.info(
        { group: local.name, peer: peers.nameOf(peer) },
        "protected to one that follows",
      );
      await this.#begin(stored).catch((error: unknown) => {
        this.#problems.set(keyOf(stored), toErrorBody(error).message);
      });
      await this.#tellOthers(stored);
    });
  }

  /** The group is not owned here any more, and sent to nobody; the worker knows. Names of the peers that got it. */
  async dropGroup(group: string): Promise<string[]> {
    return await this.#turns.take(async () => {
      const gone = this.#stored.filter((one) => one.group === group);
      if (gone.length === 0) return [];
      const others = this.#stored.filter((one) => one.group !== group);
      protectionsFile.write(this.#options.folder, others);
      this.#stored = others;
      for (const one of gone) this.#problems.delete(keyOf(one));
      return gone.map(({ peer }) => this.#options.peers.nameOf(peer));
    });
  }

  /** `Conflict` while something is sent to the peer. */
  requireUnused(peerName: string): void {
    const { fingerprint } = this.#options.peers.require(peerName);
    const count = this.#stored.filter(({ peer }) => peer === fingerprint).length;
    if (count === 0) return;
    throw new HoldfastError(
      "Conflict",
      `${count} groups are protected to ${peerName}`,
      `see: holdfast protect list; then: holdfast unprotect GROUP --to ${peerName}`,
    );
  }

  /** `Conflict` while one of these groups is sent to anybody: it is about to be destroyed. */
  async requireUnprotected(groups: readonly string[]): Promise<void> {
    if (this.#stored.length === 0) return;
    const found = (await this.answers()).find(({ group }) => groups.includes(group));
    if (found === undefined) return;
    const { group, peer } = found;
    throw new HoldfastError(
      "Conflict",
      `${group} is protected to ${peer}`,
      `its replica stays; first: holdfast unprotect ${group} --to ${peer}`,
    );
  }

  async answers(): Promise<ProtectionAnswer[]> {
    if (this.#stored.length === 0) return [];
    const [reports, locals] = [await this.#reports(), await this.#locals()];
    const volumes = await this.#options.supervisor.pools.volumes();
    const newest = new Map(volumes.map(({ volume }) => [volume.group, volume.newestLsn]));
    return this.#stored.map((stored) => {
      const group = locals.get(stored.group)?.name;
      const newestLsn = (group === undefined ? undefined : newest.get(group)) ?? 0;
      return this.#answer(stored, { group, newestLsn, report: reports.get(keyOf(stored)) });
    });
  }

  #answer(
    stored: StoredProtection,
    {
      group,
      newestLsn,
      report,
    }: { group?: string | undefined; newestLsn: number; report?: ProtectionReport | undefined },
  ): ProtectionAnswer {
    const { rpoMs, bytesPerSecond } = stored;
    const peer = this.#options.peers.nameOf(stored.peer);
    if (report?.link === "up" || report?.link === "stopped") this.#unconfirmed.delete(keyOf(stored));
    const isUnconfirmed = this.#unconfirmed.has(keyOf(stored));
    const verified = this.verified(stored);
    const told = {
      ...{ group: group ?? stored.group, peer, rpoMs, bytesPerSecond },
      verified: verified === null ? null : { ...verified, group: group ?? stored.group },
    };
    if (report === undefined) {
      const problem = this.#problems.get(keyOf(stored)) ?? "it is about to begin";
      const backlog = { ops: newestLsn, batches: 0 };
      const link = isUnconfirmed ? "unconfirmed" : "waiting";
      return {
        ...told,
        link,
        lag: NO_LAG,
        has: null,
        backlog,
        roundTripMs: null,
        bytesSent: 0,
        headers: NO_HEADERS,
        problem,
      };
    }
    const { has, batches, roundTripMs, bytesSent, headers, cutMs, shipMs, applyMs, flushMs } = report;
    const link = isUnconfirmed ? "unconfirmed" : report.link;
    const lag = { rpoMs: report.rpoMs, cutMs, shipMs, applyMs, flushMs };
    // The record that keeps the peer's point is the one after it, and nothing to send.
    const backlog = { ops: Math.max(0, newestLsn - (has ?? 0) - 1), batches };
    const gone = group === undefined ? "no open pool has the group" : "";
    const problem = report.problem?.message ?? gone;
    return { ...told, link, lag, has, backlog, roundTripMs, bytesSent, headers, problem };
  }
}

function keyOf({ group, peer }: StoredProtection): string {
  return `${groupIdOf(group)} ${peer}`;
}

async function requireOwner({ pool, name }: LocalGroup): Promise<void> {
  const state = await pool.replication.state(name);
  if (state?.isReplica === true) {
    throw new HoldfastError(
      "Fenced",
      `${name} is a replica here`,
      "protect it at the site that owns it, or fail over to it first",
    );
  }
  if (state?.isFork === true) {
    throw new HoldfastError("Fenced", `${name} is a fork: it stays as it is`, "clone it, and protect that");
  }
}

/** Defaults filled, everything checked. */
function filled({ rpo, bandwidth, rf, name }: ProtectRequest): Omit<StoredProtection, "group" | "peer"> {
  const rpoMs = rpo === undefined ? RPO_MS_DEFAULT : Math.round(parseDuration(rpo, "rpo") * 1000);
  if (rpoMs < CUT_MS_MIN || rpoMs > RPO_MS_MAX) {
    throw new HoldfastError("Invalid", `rpo: ${rpo} is not from ${CUT_MS_MIN} ms to 1 day`);
  }
  const bytesPerSecond = bandwidth === undefined ? null : parseSize(bandwidth, "bandwidth");
  if (bytesPerSecond !== null && bytesPerSecond < BANDWIDTH_MIN) {
    throw new HoldfastError("Invalid", `bandwidth: at least ${BANDWIDTH_MIN} bytes a second`);
  }
  if (name !== undefined) checkName("replica", name);
  return { rpoMs, bytesPerSecond, rf: rf ?? 0, name: name ?? null };
}

/** Sentences for the administrator. */
export function protectionWarnings(protections: readonly ProtectionAnswer[]): string[] {
  return protections.flatMap(({ group, peer, rpoMs, lag, problem }) => {
    const late = lag.rpoMs !== null && lag.rpoMs > LATE_FACTOR * rpoMs;
    const behind = `${((lag.rpoMs ?? 0) / 1000).toFixed(1)} s behind, ${rpoMs / 1000} s are promised`;
    return [
      ...(problem === "" ? [] : [`group ${group} is not replicated to ${peer}: ${problem}`]),
      ...(late ? [`group ${group} at ${peer} is ${behind}`] : []),
    ];
  });
}
