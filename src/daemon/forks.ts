// Forks: what former owners did here that their successors do not have. Which group is one, of what, and from which
// point on is the engine's to know.

import { HoldfastError } from "../io-path/errors.js";
import type { Pool } from "../io-path/pool.js";
import type { ReplicaState } from "../io-path/replica.js";
import { unlessGone } from "./local-groups.js";
import type { LocalGroup } from "./local-groups.js";
import type { ForkAnswer, ForkChanges } from "./protocol.js";
import type { Supervisor } from "./supervisor.js";

interface Found extends LocalGroup {
  state: ReplicaState;
}

/** Changes that are counted, a volume; of more, so many. */
const COUNTED_MAX = 10_000;
const PAGE = 1000;

export class Forks {
  readonly #supervisor: Supervisor;

  constructor(supervisor: Supervisor) {
    this.#supervisor = supervisor;
  }

  async list(): Promise<ForkAnswer[]> {
    const groups = await this.#groups();
    const forks = groups.filter(({ state }) => state.isFork);
    return await Promise.all(forks.map((fork) => this.#answer(fork, groups)));
  }

  /** With what is in it. */
  async show(name: string): Promise<ForkAnswer> {
    const { fork, groups } = await this.#find(name);
    const told = await this.#answer(fork, groups);
    return { ...told, changes: await changesOf(fork.pool, told) };
  }

  /** Destroys it, for good. Done before: `NotFound`. */
  async drop(name: string, how: { yes: boolean }): Promise<void> {
    const { fork, groups } = await this.#find(name);
    const told = await this.#answer(fork, groups);
    if (!how.yes) {
      const { files, bytes, isMore } = await changesOf(fork.pool, told);
      throw new HoldfastError(
        "NeedsYes",
        `fork ${told.name} has ${files}${isMore ? " or more" : ""} changed files, ${bytes} bytes, that nobody else has`,
        `look at them: holdfast fork diff ${told.name}; to destroy it for good add --yes`,
      );
    }
    for (const volume of told.volumes) await this.#supervisor.destroyVolume(volume);
  }

  /** Groups that have, or had, to do with other sites. */
  async #groups(): Promise<Found[]> {
    const found = (await this.#supervisor.pools.groups()).map(async ({ pool, name }) => {
      const state = (await unlessGone(pool.replication.state(name))) ?? null;
      return state === null ? [] : [{ pool, name, state }];
    });
    return (await Promise.all(found)).flat();
  }

  /** By its name, or that of a volume in it. */
  async #find(name: string): Promise<{ fork: Found; groups: Found[] }> {
    const groups = await this.#groups();
    const volumes = (await this.#supervisor.pools.volumes()).map(({ volume }) => volume);
    const group = volumes.find((volume) => volume.name === name)?.group ?? name;
    const fork = groups.find((one) => one.state.isFork && [name, group].includes(one.name));
    if (fork !== undefined) return { fork, groups };
    const known = groups.flatMap((one) => (one.state.isFork ? [one.name] : []));
    throw new HoldfastError(
      "NotFound",
      `there is no fork ${name}`,
      known.length === 0 ? "" : `forks: ${known.join(", ")}`,
    );
  }

  async #answer({ pool, name, state }: Found, groups: readonly Found[]): Promise<ForkAnswer> {
    const volumes = (await pool.volumes()).filter(({ group }) => group === name);
    const [{ newestLsn } = { newestLsn: 0 }] = volumes;
    const follows = groups.find((one) => !one.state.isFork && one.state.source === state.source);
    const at = Number(state.branch?.lsn ?? 0);
    const common = state.lsn === 0n ? null : await commonPoint(pool, name, at);
    const mounted = volumes.flatMap((volume) => this.#supervisor.mounts.of(volume.name) ?? []);
    const mounts = mounted.map(({ volume, path, path_base64 }) => ({ volume, path, path_base64 }));
    return {
      name,
      pool: pool.identity.name,
      volumes: volumes.map((volume) => volume.name),
      of: follows?.name ?? null,
      successor: state.source,
      common,
      newestLsn,
      ops: common === null ? newestLsn : Math.max(0, newestLsn - at),
      changes: null,
      mounts,
    };
  }
}

async function commonPoint(pool: Pool, group: string, lsn: number): Promise<ForkAnswer["common"]> {
  const kept = await pool.history.exactly(group, lsn);
  return { lsn, time: kept?.time ?? null, name: kept?.name ?? "" };
}

/** Files that differ, and bytes of them that may. */
async function changesOf(pool: Pool, { volumes, common }: ForkAnswer): Promise<ForkChanges> {
  const total: ForkChanges = { files: 0, bytes: 0, isMore: false };
  if (common === null) return { ...total, isMore: true };
  for (const volume of volumes) {
    let [first, count]: [number | null, number] = [0, 0];
    while (first !== null && count < COUNTED_MAX) {
      const span = { from: `lsn:${common.lsn}` };
      const page = await pool.history.difference(volume, span, { first, limit: PAGE });
      for (const { type, ranges } of page.changes) {
        if (type !== "directory") total.files += 1;
        for (const { length } of ranges) total.bytes += length;
      }
      count += page.changes.length;
      first = page.next;
    }
    total.isMore ||= first !== null;
  }
  return total;
}
