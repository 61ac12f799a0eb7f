// What policies need of snapshots. Names are unique in a group; a held snapshot cannot be deleted.

import type { Point } from "./grid.js";

export interface PolicySnapshot extends Point {
  group: string;
}

/** What a target means now. */
export interface Target {
  group: string;
  volumes: string[];
}

export interface SnapshotStore {
  /** `NotFound`: there is no volume or group of this name. `Unavailable`: its pool may be closed. */
  resolve(target: string): Promise<Target>;
  /** `Conflict`: the name is taken. Durable when it fulfils. */
  create(target: string, name: string): Promise<PolicySnapshot>;
  /** Those after an LSN, oldest first. */
  list(target: string, after: number, limit: number): Promise<PolicySnapshot[]>;
  /** `Conflict`: it is held. `NotFound`: it is gone. */
  delete(target: string, name: string): Promise<void>;
  hold(target: string, name: string): Promise<void>;
}

const PAGE = 1000;

/** All of a target, page by page. */
export async function listAll(store: SnapshotStore, target: string): Promise<PolicySnapshot[]> {
  const all: PolicySnapshot[] = [];
  for (;;) {
    const page = await store.list(target, all.at(-1)?.lsn ?? 0, PAGE);
    all.push(...page);
    if (page.length < PAGE) return all;
  }
}
