// One seeded run: sites, what they protect, writers, faults, and what must hold at every moment and at the end.
//
// K4  what a replica shows is the owner's state at one recovery point, never ahead of the owner's durable log, never
//     behind what it was; and the lag that the owner reports is never less than the true one
// K5  what was committed is what it stays until the next commit (the model keeps one state: compared at every look)
// K6  no value that nobody wrote (part of K4: states are compared whole)
// K9  what a replica has acknowledged of the header stream it knows, as it was done; and how far behind it is with that
//     is never told shorter than it is
// K7  when the faults are over, every replica catches up, and the reported lag comes down to the promise

import { NAMED_MAX } from "../../../src/nearsync-lws/limits.js";
import { KEYS, stateAt } from "./engine.js";
import type { EngineBugs } from "./engine.js";
import { wrongHeaders } from "./headers.js";
import { End } from "./link.js";
import type { Cuts, LinkQuality } from "./link.js";
import { Site } from "./site.js";
import type { Protected } from "./site.js";
import { World } from "./world.js";

const FAULTS_MS = 20_000;
const QUIET_MS = 40_000;

export interface Outcome {
  counts: Map<string, number>;
  traceHash: string;
  virtualMs: number;
}

export class Run {
  readonly world: World;
  readonly #sites: Site[];
  readonly #cuts: Cuts = new Set();
  readonly #quality: LinkQuality;
  readonly #wire: boolean;
  /** Pairs that have a session, by name, and when the next may begin. */
  readonly #sessions = new Map<string, [End, End]>();
  #value = 0;
  /** Snapshots that the owner's present life told its followers of, after they began to follow. */
  #named: { group: string; lsn: number; name: string; owner: string }[] = [];

  constructor(seed: number, bugs: EngineBugs = {}) {
    this.world = new World(seed);
    const { world } = this;
    this.#wire = world.chance(0.02);
    this.#quality = {
      latencyMs: world.pick([0.2, 2, 20, 100]),
      bytesPerMs: world.pick([200, 2000, 100_000]),
      tamper: world.chance(0.2) ? 0.02 : 0,
    };
    this.#sites = ["A", "B", "C"]
      .slice(0, world.chance(0.5) ? 2 : 3)
      .map((name) => new Site(world, name, bugs));
    for (const site of this.#sites)
      site.engine.committed = (group, from) => this.#onCommit(site, group, from);
    this.#protectAll();
  }

  go(): Outcome {
    const { world } = this;
    this.#writers();
    this.#faults();
    for (let at = world.nowMs + 250; at < FAULTS_MS; at += 250) {
      world.runUntil(at);
      this.#look();
    }
    this.#lift();
    const end = FAULTS_MS + QUIET_MS;
    for (let at = world.nowMs + 500; at <= end; at += 500) {
      world.runUntil(at);
      this.#look();
      if (at > FAULTS_MS + 10_000 && this.#caughtUp()) break;
    }
    this.#checkEnd();
    return { counts: world.counts, traceHash: world.traceHash, virtualMs: world.nowMs };
  }

  #site(name: string): Site {
    return this.#sites.find((site) => site.name === name) as Site;
  }

  /** One way, both ways (two groups), to two peers, or from two owners. */
  #protectAll(): void {
    const { world } = this;
    const shapes: [string, string, string][][] = [
      [["A", "a1", "B"]],
      [
        ["A", "a1", "B"],
        ["B", "b1", "A"],
      ],
      ...(this.#sites.length < 3
        ? []
        : ([
            [
              ["A", "a1", "B"],
              ["A", "a1", "C"],
            ],
            [
              ["A", "a1", "C"],
              ["B", "b1", "C"],
            ],
          ] as [string, string, string][][])),
    ];
    const bytesPerSecond = world.chance(0.2) ? world.pick([50_000, 500_000]) : null;
    const rpoMs = world.pick([400, 1000, 5000]);
    for (const [owner, name, peer] of world.pick(shapes)) {
      const group = Buffer.from(name.padEnd(16, "\0")).toString("hex");
      const site = this.#site(owner);
      if (!site.engine.owned.has(group)) site.own(group);
      site.protect({ group, peer, rpoMs, bytesPerSecond });
    }
    for (const [index, one] of this.#sites.entries()) {
      for (const other of this.#sites.slice(index + 1)) this.#connect(one, other);
    }
  }

  /** Both ends, a round trip after the last one ended; sooner or later. */
  #connect(one: Site, other: Site): void {
    const { world } = this;
    world.at(world.between(10, 1000), undefined, () => {
      const key = `${one.name}${other.name}`;
      const [before] = this.#sessions.get(key) ?? [];
      const free =
        !this.#cuts.has(`${one.name}>${other.name}`) && !this.#cuts.has(`${other.name}>${one.name}`);
      const awake = [one, other].every((site) => site.up && site.pausedUntilMs <= world.nowMs);
      const over = before === undefined || (before.closed !== undefined && before.other.closed !== undefined);
      if (free && awake && over) this.#session(key, one, other);
      this.#connect(one, other);
    });
  }

  #session(key: string, one: Site, other: Site): void {
    const { world } = this;
    const tampered = { yes: false };
    const [left, right] = [one, other].map(
      (site) => new End(world, site, this.#quality, this.#cuts, this.#wire, tampered),
    ) as [End, End];
    left.other = right;
    right.other = left;
    this.#sessions.set(key, [left, right]);
    world.count("sessions");
    world.tell(`a session of ${one.name} and ${other.name}`);
    one.begin(left, other.name);
    other.begin(right, one.name);
  }

  #writers(): void {
    const { world } = this;
    const paceMs = world.pick([5, 50, 400]);
    const snapshots = world.pick([0, 0.01, 0.2]);
    for (const site of this.#sites) {
      for (const group of site.engine.owned.keys()) {
        const write = () => {
          if (world.calm) return;
          if (world.chance(snapshots)) this.#snapshot(site, group);
          if (site.up && site.pausedUntilMs <= world.nowMs && !world.chance(0.1)) {
            this.#value += 1;
            const deleted = world.chance(0.25);
            site.engine.write(group, world.whole(0, KEYS - 1), deleted ? 0 : this.#value);
          }
          world.at(world.chance(0.02) ? 2000 : world.between(0, 2 * paceMs), undefined, write);
        };
        world.at(world.between(0, 500), undefined, write);
      }
    }
  }

  #snapshot(site: Site, group: string): void {
    if (!site.up || site.pausedUntilMs > this.world.nowMs) return;
    const name = `s${this.#named.length}`;
    const point = site.engine.snapshot(group, name);
    if (point === undefined) return;
    this.world.count("snapshots");
    site.replication.announce(group, point);
    this.#named.push({ group, lsn: point.lsn, name, owner: site.name });
    // More than that wait for a follower that is away: then names are lost there, not states.
    const waiting = this.#named.filter((point) => point.group === group);
    if (waiting.length > NAMED_MAX) this.#named = this.#named.filter((point) => point !== waiting[0]);
  }

  #faults(): void {
    const { world } = this;
    const every = world.pick([500, 2000, 8000]);
    const fault = () => {
      if (world.calm) return;
      this.#fault(world.pick(this.#sites), world.pick(this.#sites));
      world.at(world.between(0.2, 2) * every, undefined, fault);
    };
    world.at(world.between(500, 3000), undefined, fault);
  }

  #fault(site: Site, other: Site): void {
    const { world } = this;
    const way = `${site.name}>${other.name}`;
    switch (world.whole(0, 6)) {
      case 0:
      case 1: {
        if (!site.up) return;
        const power = world.chance(0.4);
        world.count(power ? "power cuts" : "kills");
        site.crash(power);
        this.#named = this.#named.filter(({ owner }) => owner !== site.name);
        this.#checkOwner(site);
        world.at(world.between(100, 5000), undefined, () => site.restart());
        return;
      }
      case 2:
        if (site === other) return;
        world.count("one-way cuts");
        this.#cuts.add(way);
        world.at(world.between(100, 6000), undefined, () => this.#cuts.delete(way));
        return;
      case 3:
        world.count("pauses");
        site.pausedUntilMs = Math.max(site.pausedUntilMs, world.nowMs + world.between(100, 8000));
        return;
      case 4:
        world.count("full drives");
        site.engine.fullUntilMs = world.nowMs + world.between(200, 6000);
        return;
      case 5:
        world.count("clock jumps");
        site.wallOffsetMs = world.between(-3_600_000, 3_600_000);
        return;
      default: {
        const end = [...site.ends][0];
        world.count("connections lost");
        end?.close("a connection is lost");
      }
    }
  }

  #lift(): void {
    this.world.calm = true;
    this.#cuts.clear();
    for (const site of this.#sites) site.engine.fullUntilMs = 0;
    this.#quality.tamper = 0;
    this.#quality.bytesPerMs = Math.max(this.#quality.bytesPerMs, 2000);
  }

  #each(look: (site: Site, what: Protected) => void): void {
    for (const site of this.#sites) for (const what of site.protections) look(site, what);
  }

  /** K4, as soon as a commit is visible. */
  #onCommit(site: Site, group: string, from: number): void {
    const { world } = this;
    const owner = this.#sites.find(({ engine }) => engine.owned.has(group))?.engine.owned.get(group);
    const replica = site.engine.replicas.get(group);
    if (owner === undefined || replica?.last == null) return;
    const { last } = replica;
    world.tell(`${site.name} shows ${group.slice(0, 4)} at ${last}`);
    world.demand(
      last <= owner.durable,
      () => `K4: ${site.name} shows LSN ${last}, ${owner.durable} is durable`,
    );
    const deleted = this.#sites.flatMap(({ engine }) => [...engine.deleted]);
    const skipped = this.#named.find(
      (point) =>
        point.group === group &&
        point.lsn > from &&
        point.lsn < last &&
        !deleted.includes(`${group} ${point.lsn}`),
    );
    world.demand(
      skipped === undefined,
      () => `${site.name} skips ${skipped?.name}, from LSN ${from} to ${last}`,
    );
    world.demand(
      owner.points.has(last),
      () => `K4: ${site.name} shows LSN ${last}, which is no recovery point`,
    );
    this.#sameState(site, group);
  }

  /** K4, K6. */
  #sameState(site: Site, group: string): void {
    const owner = this.#sites.find(({ engine }) => engine.owned.has(group))?.engine.owned.get(group);
    const replica = site.engine.replicas.get(group);
    if (owner === undefined || replica?.last == null) return;
    const wanted = stateAt(owner, replica.last).join(" ");
    const there = replica.visible.join(" ");
    const { last } = replica;
    this.world.demand(there === wanted, () => `K4: ${site.name} at LSN ${last} is\n${there}, not\n${wanted}`);
  }

  #checkOwner(site: Site): void {
    for (const [group, { durable }] of site.engine.owned) {
      for (const { engine, name } of this.#sites) {
        const last = engine.replicas.get(group)?.last ?? 0;
        this.world.demand(last <= durable, () => `K4: ${name} is ahead of the owner: ${last} > ${durable}`);
      }
    }
  }

  /** What holds at every moment. */
  #look(): void {
    const { world } = this;
    this.#each((site, { group, peer, rpoMs }) => {
      const owner = site.engine.owned.get(group);
      if (owner === undefined) return;
      const replica = this.#site(peer).engine.replicas.get(group);
      this.#sameState(this.#site(peer), group);
      // History that the follower needs may not go: its mark is where it is, or below.
      const mark = owner.marks.get(peer) ?? 0;
      const has = replica?.last ?? mark;
      world.demand(mark <= has, () => `${site.name} lets go of history below ${mark}, ${peer} is at ${has}`);
      const status = site.up ? site.replication.status(group, peer) : undefined;
      if (status === undefined || site.pausedUntilMs > world.nowMs) return;
      if (status.link === "stopped") world.count("senders stopped");
      if (status.batches > 1) world.count("two batches under way");
      if (status.skipped > 0) world.count("ticks skipped");
      this.#lookAtHeaders(site, { group, peer });
      if (status.rpoMs === null) return;
      const missing = owner.ops[replica?.last ?? 0];
      const truth = missing === undefined ? 0 : world.nowMs - missing.atMs;
      const said = status.rpoMs;
      world.demand(
        said >= truth - 0.001,
        () => `K4: lag of ${peer} is said to be ${said} ms and is ${truth} ms`,
      );
      const parts = status.cutMs + status.shipMs + status.applyMs + status.flushMs;
      world.demand(
        Math.abs(parts - said) < 0.01,
        () => `the parts of a lag of ${said} ms add up to ${parts}`,
      );
      if (said > 3 * rpoMs + 2000) world.count("lag beyond the promise");
    });
  }

  /** K9. */
  #lookAtHeaders(site: Site, { group, peer }: Pick<Protected, "group" | "peer">): void {
    const { world } = this;
    const owner = site.engine.owned.get(group);
    const replica = this.#site(peer).engine.replicas.get(group);
    const { headers: told } = site.replication.status(group, peer) ?? {};
    if (owner === undefined || replica?.last == null || told?.lsn == null) return;
    const wrong = wrongHeaders(replica.headers, owner, replica.last + 1, told.lsn);
    world.demand(wrong === undefined, () => `K9: of headers of ${group.slice(0, 4)}, ${peer}: ${wrong}`);
    if (told.lsn > owner.durable) world.count("headers ahead of what is durable");
    if (told.lagMs === null) return;
    let known = replica.last;
    while (replica.headers.ops.has(known + 1)) known += 1;
    const missing = owner.ops[known];
    const truth = missing === undefined ? 0 : world.nowMs - missing.atMs;
    const { lagMs: said } = told;
    world.demand(
      said >= truth - 0.001,
      () => `K9: ${peer} is said to know all but the last ${said} ms, and it is ${truth} ms`,
    );
  }

  #caughtUp(): boolean {
    let all = true;
    this.#each((site, { group, peer }) => {
      const newest = site.engine.owned.get(group)?.ops.length ?? 0;
      const last = this.#site(peer).engine.replicas.get(group)?.last ?? 0;
      if (last !== newest || !site.up) all = false;
    });
    return all;
  }

  /** K7. */
  #checkEnd(): void {
    const { world } = this;
    world.demand(this.#caughtUp(), () => `K7: a replica has not caught up\n${this.#describe()}`);
    const end = world.nowMs + 3000;
    world.runUntil(end);
    this.#look();
    this.#each((site, { group, peer, rpoMs }) => {
      const status = site.replication.status(group, peer);
      const { rpoMs: said = null, headers } = status ?? {};
      const owner = site.engine.owned.get(group);
      if (owner?.ops.length === 0) return;
      const { last = null } = this.#site(peer).engine.replicas.get(group) ?? {};
      const mark = owner?.marks.get(peer);
      world.demand(
        mark === last,
        () => `${site.name} keeps history from ${mark} for ${peer}, which is at ${last}`,
      );
      world.demand(
        headers?.lagMs != null && headers.lagMs <= 1000,
        () => `K9: headers ${JSON.stringify(headers)} behind where nothing happens, ${peer}`,
      );
      const promise = 2 * rpoMs + 2000;
      world.demand(
        said !== null && said <= promise,
        () => `K7: lag ${said} ms where nothing happens, ${peer}`,
      );
    });
  }

  #describe(): string {
    const lines: string[] = [];
    this.#each((site, { group, peer }) => {
      const status = JSON.stringify(site.replication.status(group, peer));
      const replica = this.#site(peer).engine.replicas.get(group);
      lines.push(
        `${site.name}: ${site.engine.owned.get(group)?.ops.length} → ${peer} ${replica?.last} ${status}`,
      );
    });
    return lines.join("\n");
  }
}

export function play(seed: number, bugs: EngineBugs = {}): Outcome {
  const run = new Run(seed, bugs);
  try {
    return run.go();
  } catch (error) {
    const story = run.world.story.slice(-30).join("\n");
    throw new Error(`${(error as Error).message}\n${story}`, { cause: error });
  }
}
