// The snapshots of all open pools, as policies see them.

import { HoldfastError } from "../io-path/errors.js";
import type { Snapshot } from "../io-path/history.js";
import type { PolicySnapshot, SnapshotStore, Target } from "./policy/store.js";
import type { Pools } from "./pools.js";

export type TakeSnapshot = (create: () => Promise<Snapshot>) => Promise<Snapshot>;

export class PoolSnapshots implements SnapshotStore {
  /** `take`: runs what takes a snapshot of now, and tells whoever replicates the group. */
  constructor(
    readonly pools: Pools,
    readonly take: TakeSnapshot,
  ) {}

  async resolve(target: string): Promise<Target> {
    const volumes = (await this.pools.volumes()).map(({ volume }) => volume);
    const named = volumes.find(({ name }) => name === target);
    const group = volumes.some((volume) => volume.group === target) ? target : named?.group;
    // Says which volumes there are, or which pool is closed.
    if (group === undefined)
      return { group: (await this.pools.findVolume(target)).volume.group, volumes: [] };
    const members = volumes.filter((volume) => volume.group === group).map(({ name }) => name);
    if (group === target || members.length === 1) return { group, volumes: members };
    throw new HoldfastError(
      "Conflict",
      `volume ${target} shares group ${group} with ${members.filter((name) => name !== target).join(", ")}`,
      `name the group: ${group}`,
    );
  }

  async create(target: string, name: string): Promise<PolicySnapshot> {
    const history = await this.#history(target);
    return await this.take(() => history.create(target, name));
  }

  async list(target: string, after: number, limit: number): Promise<PolicySnapshot[]> {
    return await (await this.#history(target)).list(target, { after, limit, seconds: false });
  }

  async delete(target: string, name: string): Promise<void> {
    await (await this.#history(target)).delete(target, name);
  }

  async hold(target: string, name: string): Promise<void> {
    await (await this.#history(target)).hold(target, name, true);
  }

  async #history(target: string) {
    return (await this.pools.findTarget(target)).history;
  }
}
