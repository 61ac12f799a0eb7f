// Replicas of other sites' groups here: found or made when an owner calls, promoted when it is gone.
//
// - Which group is whose replica is the engine's to know; replicas.json has the owner's key beside it, because the
//   point where a promoted group leaves its owner's history is kept under that name.

import { HoldfastError } from "../io-path/errors.js";
import { isoTime } from "../io-path/history.js";
import type { Pool } from "../io-path/pool.js";
import type { Replication } from "../io-path/replica.js";
import { decodeDescription } from "../nearsync-lws/description.js";
import type { Description } from "../nearsync-lws/description.js";
import { groupIdOf } from "../nearsync-lws/engine-door.js";
import type { Place } from "../nearsync-lws/engine-door.js";
import { unlessGone } from "./local-groups.js";
import { checkName } from "./names.js";
import type { Pools } from "./pools.js";
import type { FailoverAnswer, FailoverRequest, LossStatement, OtherReplica } from "./protocol.js";
import { untold } from "./statements.js";
import type { Promoting, Statements } from "./statements.js";
import { replicasFile } from "./protections-file.js";
import type { StoredReplica } from "./protections-file.js";
import type { StateFolder } from "./state-folder.js";
import type { Supervisor } from "./supervisor.js";

export interface ReplicasOptions {
  folder: StateFolder;
  supervisor: Supervisor;
  /** Where new replicas are made; undefined: in the only pool there is. */
  pool: string | undefined;
  /** Whether there is a session with a peer, by its fingerprint. */
  isConnected: (peer: string) => boolean;
  /** The replica of a group (as the wire has it) was promoted: its owner has to know. */
  promoted: (group: string) => Promise<void>;
  statements: Statements;
  /** A group (its uuid) that is owned here is of another epoch: who is sent it has to know. */
  renewed: (group: string) => Promise<void>;
  /** Other replicas of what a group (its uuid) was one of, by the uuid of that. */
  others: (group: string, source: string) => Promise<OtherReplica[]>;
}

export interface Wanted {
  /** The group as the wire has it. */
  group: string;
  /** The owner's fingerprint. */
  peer: string;
  description: Uint8Array;
}

interface Found {
  replication: Replication;
  /** Of the group. */
  name: string;
  source: string;
}

export class Replicas {
  readonly #options: ReplicasOptions;
  /** Nobody is granted a group (its uuid) any more; whoever grants puts itself here. */
  revoke: (uuid: string) => void = () => undefined;
  #owners: StoredReplica[];

  constructor(options: ReplicasOptions) {
    this.#options = options;
    this.#owners = replicasFile.read(options.folder);
  }

  /** Where the replica of a group is; it is made where there is none. */
  async place({ group, peer, description }: Wanted): Promise<Place> {
    const told = decodeDescription(description);
    return await this.#options.supervisor.exclusively(async () => {
      const there = await this.#find(group);
      const found = there ?? (await this.#create(group, told));
      const { rpoMs, others } = told;
      this.note({ group: found.source, peer, rpoMs, others });
      return { pool: found.replication.pool, name: found.name };
    });
  }

  async #find(group: string): Promise<Found | undefined> {
    for (const { pool, name } of await this.#options.supervisor.pools.groups()) {
      const { replication } = pool;
      const state = await replication.state(name);
      // Of a fork it is the successor's.
      if (state === null || state.isFork) continue;
      const { source } = state;
      if (groupIdOf(source) === group) return { replication, name, source };
    }
    return undefined;
  }

  async #create(group: string, told: Description): Promise<Found> {
    const { pools } = this.#options.supervisor;
    const name = await freeName(pools, told);
    const { replication } = pools.get(this.#poolName());
    await replication.create(told.engine, name, told.rf);
    const state = await replication.state(name);
    if (state !== null && groupIdOf(state.source) === group)
      return { replication, name, source: state.source };
    throw new HoldfastError("Invalid", `the description is of another group than ${group}`);
  }

  #poolName(): string {
    const { pool, supervisor } = this.#options;
    const names = supervisor.pools.known().map((known) => known.name);
    const [only, ...more] = names;
    if (pool !== undefined) return pool;
    if (only !== undefined && more.length === 0) return only;
    const why =
      only === undefined ? "this site has no pool" : `this site has several pools: ${names.join(", ")}`;
    const way =
      only === undefined ? "create one there" : "name one there: replication.pool in its configuration";
    throw new HoldfastError("Unavailable", why, way);
  }

  /** Whose group it is, by the group's uuid there. */
  note({ group, peer, ...told }: Pick<StoredReplica, "group" | "peer"> & Partial<StoredReplica>): void {
    const known = this.#owners.find((one) => one.group === group && one.peer === peer);
    const noted: StoredReplica = { rpoMs: null, others: [], ...known, group, peer, ...told };
    if (known !== undefined && JSON.stringify(known) === JSON.stringify(noted)) return;
    this.#store([...this.#owners.filter((one) => one.group !== group), noted]);
  }

  #store(owners: StoredReplica[]): void {
    replicasFile.write(this.#options.folder, owners);
    this.#owners = owners;
  }

  /** Who else was sent the group of this uuid, as its owner told. */
  othersOf(source: string): StoredReplica["others"] {
    return this.#owners.find(({ group }) => group === source)?.others ?? [];
  }

  /** What its owner promised of the group of this uuid; null: not known. */
  rpoOf(source: string): number | null {
    return this.#owners.find(({ group }) => group === source)?.rpoMs ?? null;
  }

  /** False: nobody told of such a one. */
  forgetOther(source: string, site: string): boolean {
    const known = this.#owners.find(({ group }) => group === source);
    const others = known?.others.filter((one) => one.site !== site) ?? [];
    if (known === undefined || others.length === known.others.length) return false;
    this.#store(this.#owners.map((one) => (one === known ? { ...known, others } : one)));
    return true;
  }

  /** The fingerprint of the site that owns the group of this uuid, as far as it ever called. */
  ownerOf(source: string): string | undefined {
    return this.#owners.find(({ group }) => group === source)?.peer;
  }

  /** What was given away goes on here, of another epoch: for when nobody else can. */
  async #takeBack(promoting: Promoting, yes: boolean): Promise<FailoverAnswer> {
    const { pool, name: group, recovered } = promoting;
    if (!yes) {
      throw new HoldfastError(
        "NeedsYes",
        `${group} was given to another site: if that goes on with it, there are two owners, and one becomes a fork`,
        "only when the other site is gone for good: add --yes",
      );
    }
    const { uuid } = await pool.replication.identity(group);
    this.revoke(uuid);
    await pool.replication.promote(group, "");
    await this.#options.renewed(uuid);
    return { group, already: false, recovered, loss: untold(promoting), others: [] };
  }

  /** Makes a replica the owner of what it has received. Done before: the same answer. */
  async failover({ target, yes, force }: FailoverRequest): Promise<FailoverAnswer> {
    return await this.#options.supervisor.exclusively(async () => {
      const { statements } = this.#options;
      const promoting = await this.#promoting(target);
      const { pool, name: group, state, recovered } = promoting;
      if (state.isGiven) return await this.#takeBack(promoting, yes);
      const owner = this.ownerOf(state.source) ?? "";
      if (state.isReplica && force !== true && this.#options.isConnected(owner)) {
        throw new HoldfastError(
          "Conflict",
          `the owner of ${group} is connected, and goes on as such`,
          "stop it first; --force takes over all the same, and what it did last becomes a fork there",
        );
      }
      const loss = await statements.of(promoting);
      if (state.isReplica && !yes) {
        const cut = recovered.time === null ? "" : `, cut at ${recovered.time}`;
        const { ops, fsynced } = loss.known;
        throw new HoldfastError(
          "NeedsYes",
          `${group} goes on from LSN ${recovered.lsn}${cut}; known to be lost are ${ops} operations, ` +
            `${fsynced.ops} of them fsynced; what its owner did after LSN ${loss.unknown.afterLsn} is unknown here`,
          "stop the owner if it runs still, then add --yes",
        );
      }
      if (state.isReplica) statements.keep(promoting, loss);
      await pool.replication.promote(group, owner);
      await this.#options.promoted(groupIdOf(state.source));
      const { uuid } = await pool.replication.identity(group);
      const others = await this.#options.others(uuid, state.source);
      return { group, already: !state.isReplica, recovered, loss, others };
    });
  }

  /** What a failover cost, or would cost now. */
  async statement(target: string): Promise<LossStatement> {
    return await this.#options.statements.of(await this.#promoting(target));
  }

  async #promoting(target: string): Promise<Promoting> {
    const { group: name, pool } = await this.#options.supervisor.resolve(target);
    const state = await pool.replication.state(name);
    if (state === null) {
      throw new HoldfastError(
        "Fenced",
        `${name} is no replica: this site owns it`,
        "fail over at the site that has its replica",
      );
    }
    if (state.isFork) {
      throw new HoldfastError("Fenced", `${name} is a fork: it stays as it is`, "clone it to go on from it");
    }
    const recovered = { lsn: Number(state.lsn), time: await timeOf(pool, name, state) };
    if (recovered.lsn === 0) {
      throw new HoldfastError("NotFound", `${name} has not received a whole recovery point yet`);
    }
    return { pool, name, state, recovered };
  }
}

type State = NonNullable<Awaited<ReturnType<Replication["state"]>>>;

/** When the newest recovery point was cut; of what was promoted, the one where it left its owner; null: not known. */
async function timeOf(pool: Pool, group: string, state: State): Promise<string | null> {
  if (state.wallSeconds !== 0) return isoTime(state.wallSeconds, state.wallNanoseconds);
  if (state.branch === null) return null;
  return (await unlessGone(pool.history.exactly(group, Number(state.branch.lsn))))?.time ?? null;
}

/** The replica's name: what was asked for, else like that, with the owner's site behind it. */
async function freeName(pools: Pools, { name, isNameChosen, site }: Description): Promise<string> {
  checkName("replica", name);
  const volumes = (await pools.volumes()).map(({ volume }) => volume);
  const taken = (wanted: string) =>
    volumes.some((one) => [one.name, one.group].some((used) => used === wanted));
  if (!taken(name)) return name;
  const other = `${name}-${site}`.slice(0, 63);
  if (!isNameChosen && !taken(checkName("replica", other))) return other;
  throw new HoldfastError("Conflict", `the name ${name} is in use there`, "choose another one with --name");
}
