// Failovers that are only tried: a clone of a replica's newest recovery point, to be mounted and written to, while the
// owner goes on and the replica follows it.
//
// - test-failovers.json says which clones are tests, so that nothing else is ever dropped as one. It is written before
//   the clone is made, with its name, and again with its uuid; a drop goes by the uuid.
// - A crash between the two leaves a name without a uuid: the next start looks whether the clone was made, before
//   anybody is served, and lets go of the name if it was not.
// - Whoever asks again gets the same answer; what was half dropped is dropped the rest of the way.

import { z } from "zod";
import { HoldfastError } from "../io-path/errors.js";
import { pathFromJson } from "../io-path/paths.js";
import type { CloneBase } from "../io-path/clones.js";
import { listFile } from "./list-file.js";
import { unlessGone } from "./local-groups.js";
import type { Log } from "./log.js";
import { checkName } from "./names.js";
import type { MountAnswer, TestFailoverAnswer, TestFailoverDropAnswer, VolumeAnswer } from "./protocol.js";
import type { Protections } from "./protections.js";
import type { StateFolder } from "./state-folder.js";
import type { Supervisor } from "./supervisor.js";
import { Turns } from "./turns.js";

/** One for each replica; see PROTECTIONS_MAX. */
const TESTS_MAX = 1024;
const NAME_CHARACTERS_MAX = 63;

const schema = z.strictObject({
  pool: z.string(),
  /** Name of the replica's group. */
  group: z.string(),
  /** Of the clone's group, as it was made. */
  name: z.string(),
  /** Of the clone's group; null: it is about to be made. */
  uuid: z.uuid().nullable(),
});
type Stored = z.infer<typeof schema>;

const file = listFile("test-failovers.json", schema, {
  most: TESTS_MAX,
  hint: "put it back, or move it away: the clones stay, and are dropped with: holdfast volume destroy",
});

export interface TestFailoversOptions {
  folder: StateFolder;
  supervisor: Supervisor;
  protections: Protections;
  log: Log;
}

export interface TestRequest {
  target: string;
  /** Default: the group's with `-test`. */
  name?: string | undefined;
  /** Where to mount it. */
  dir?: Buffer | undefined;
}

export class TestFailovers {
  readonly #options: TestFailoversOptions;
  #stored: Stored[];
  /** What they do to volumes and mounts takes its turn there, too. */
  readonly #turns = new Turns();

  constructor(options: TestFailoversOptions) {
    this.#options = options;
    this.#stored = file.read(options.folder);
  }

  /** Finds out what became of a clone that was about to be made; before others can make one of that name. */
  async start(): Promise<void> {
    for (const one of this.#stored.filter(({ uuid }) => uuid === null)) {
      try {
        await this.#settle(one);
      } catch (error) {
        // Its pool is not open: the next one who asks finds out.
        this.#options.log.warn({ group: one.group, error }, "a test failover that was begun is not settled");
      }
    }
  }

  #write(list: Stored[]): void {
    file.write(this.#options.folder, list);
    this.#stored = list;
  }

  #replace(old: Stored, next: Stored | undefined): void {
    const others = this.#stored.filter((one) => one !== old);
    this.#write(next === undefined ? others : [...others, next]);
  }

  /**
   * Clones the newest whole recovery point, and mounts the clone where asked.
   *
   * 1. The name, durably. 2. The clone, which is one record of the engine. 3. Its uuid, durably. 4. The mount, which
   * stays wanted.
   *
   * `Fenced`: it is no replica; `NotFound`: nothing has arrived yet; `Conflict`: there is a test by another name.
   */
  begin({ target, name, dir }: TestRequest): Promise<TestFailoverAnswer> {
    return this.#turns.take(async () => {
      const { supervisor } = this.#options;
      const { group, pool } = await supervisor.resolve(target);
      const there = await this.#known(group);
      if (there !== undefined) {
        if (name !== undefined && name !== there.name) {
          throw new HoldfastError(
            "Conflict",
            `a test failover of ${group} is there already: ${there.name}`,
            `first: holdfast failover ${group} --test --drop`,
          );
        }
        await this.#mount(there, dir);
        return await this.#answer(there, true);
      }
      await this.#requireReplica(group);
      const wanted = checkName("clone", name ?? `${group.slice(0, NAME_CHARACTERS_MAX - 5)}-test`);
      const before = { pool: pool.identity.name, group, name: wanted, uuid: null };
      if (this.#stored.length >= TESTS_MAX) {
        throw new HoldfastError("Conflict", `there are ${TESTS_MAX} test failovers already`, "drop some");
      }
      this.#write([...this.#stored, before]);
      let made: Stored;
      try {
        await supervisor.clone(group, wanted);
        made = await this.#settle(before);
      } catch (error) {
        this.#replace(before, undefined);
        throw error;
      }
      try {
        await this.#mount(made, dir);
      } catch (error) {
        await this.#drop(made);
        throw error;
      }
      return await this.#answer(made, false);
    });
  }

  async #requireReplica(group: string): Promise<void> {
    const volumes = await this.#options.supervisor.volumes();
    const found = volumes.find((volume) => volume.group === group)?.replicaOf ?? null;
    if (found === null) {
      throw new HoldfastError(
        "Fenced",
        `${group} is no replica: this site owns it`,
        `try the failover at the site that has its replica; a copy to play with here: holdfast clone ${group} NAME`,
      );
    }
    if (found.lsn === 0) {
      throw new HoldfastError("NotFound", `${group} has not received a whole recovery point yet`);
    }
  }

  /** With its uuid; `NotFound` when it was not made, and then it is forgotten. */
  async #settle(stored: Stored): Promise<Stored> {
    if (stored.uuid !== null) return stored;
    const { pools } = this.#options.supervisor;
    const pool = pools.get(stored.pool);
    const found = (await pool.volumes()).find(({ group }) => group === stored.name);
    if (found === undefined) {
      this.#replace(stored, undefined);
      throw new HoldfastError("NotFound", `the test failover of ${stored.group} was not made`);
    }
    const { uuid } = await pool.replication.identity(stored.name);
    const settled = { ...stored, uuid };
    this.#replace(stored, settled);
    return settled;
  }

  /** The test of a group, by the group's name or its own. */
  async #known(target: string): Promise<Stored | undefined> {
    const found = this.#stored.find(({ group, name }) => group === target || name === target);
    if (found === undefined) return undefined;
    return await this.#settle(found).catch((error: unknown) => {
      if (error instanceof HoldfastError && error.code === "NotFound") return undefined;
      throw error;
    });
  }

  async #mount(stored: Stored, dir: Buffer | undefined): Promise<void> {
    if (dir === undefined) return;
    const [only, ...more] = await this.#volumes(stored);
    if (only === undefined) throw gone(stored);
    if (more.length > 0) {
      const names = [only, ...more].map(({ name }) => name).join(", ");
      throw new HoldfastError(
        "Invalid",
        `${stored.group} has several volumes, which one directory cannot show`,
        `leave --mount away, then mount each: ${names}`,
      );
    }
    await this.#options.supervisor.mount({ volume: only.name, dir, options: [], source: only.name });
  }

  /** Of the clone, whatever it is called now. */
  async #volumes({ pool, uuid }: Stored): Promise<VolumeAnswer[]> {
    const { supervisor } = this.#options;
    const { replication } = supervisor.pools.get(pool);
    const volumes = (await supervisor.volumes(pool)).filter(({ problem }) => problem === "");
    const found = volumes.map(async (volume) => {
      const identity = await unlessGone(replication.identity(volume.group));
      return identity?.uuid === uuid ? [volume] : [];
    });
    return (await Promise.all(found)).flat();
  }

  #mounts(volumes: readonly VolumeAnswer[]): MountAnswer[] {
    const names = new Set(volumes.map(({ name }) => name));
    return this.#options.supervisor.mounts.answers().filter(({ volume }) => names.has(volume));
  }

  async #answer(stored: Stored, already: boolean): Promise<TestFailoverAnswer> {
    const { group, name } = stored;
    const volumes = await this.#volumes(stored);
    const base: CloneBase | null = volumes[0]?.base ?? null;
    return {
      ...{ group, name, already },
      volumes: volumes.map((volume) => volume.name),
      localLsn: base?.lsn ?? null,
      time: base?.time ?? null,
      mounts: this.#mounts(volumes).map(({ volume, path, path_base64 }) =>
        path === undefined ? { volume, path_base64 } : { volume, path },
      ),
      problem: volumes.length === 0 ? "the clone was destroyed" : "",
    };
  }

  /** Those whose pool is not open are told with that. */
  list(): Promise<TestFailoverAnswer[]> {
    return this.#turns.take(() =>
      Promise.all(
        this.#stored.map((stored) =>
          this.#answer(stored, true).catch((error: unknown): TestFailoverAnswer => {
            if (!(error instanceof HoldfastError)) throw error;
            const { group, name } = stored;
            const none = { volumes: [], localLsn: null, time: null, mounts: [] };
            return { group, name, already: true, ...none, problem: error.message };
          }),
        ),
      ),
    );
  }

  /** Unmounts the clone, destroys it, forgets it. There is none: done. `Conflict`: somebody works in a mount of it. */
  drop(target: string): Promise<TestFailoverDropAnswer> {
    return this.#turns.take(async () => {
      const stored = (await this.#known(target)) ?? (await this.#known(await this.#groupOf(target)));
      if (stored === undefined) return { group: target, name: null, already: true };
      const { group, name } = stored;
      await this.#drop(stored);
      return { group, name, already: false };
    });
  }

  /** A volume may stand for its group; what is not there (any more) for itself. */
  async #groupOf(target: string): Promise<string> {
    try {
      return (await this.#options.supervisor.resolve(target)).group;
    } catch (error) {
      if (error instanceof HoldfastError && error.code === "NotFound") return target;
      throw error;
    }
  }

  /** Each step finds less to do when it is repeated; the note goes last. */
  async #drop(stored: Stored): Promise<void> {
    const { supervisor, protections } = this.#options;
    const volumes = await this.#volumes(stored);
    await protections.requireUnprotected(volumes.map(({ group }) => group));
    for (const mount of this.#mounts(volumes)) {
      const dir = pathFromJson(mount);
      if (dir !== undefined) await supervisor.unmount(dir, { detach: false });
    }
    for (const { name } of volumes) await supervisor.destroyVolume(name);
    this.#replace(stored, undefined);
  }
}

function gone({ group, name }: Stored): HoldfastError {
  return new HoldfastError(
    "NotFound",
    `the clone ${name} of the test failover was destroyed`,
    `holdfast failover ${group} --test --drop, then once more`,
  );
}
