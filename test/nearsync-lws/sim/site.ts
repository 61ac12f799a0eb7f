// One site of the simulation: the real drivers and machines over the model of the engine, with lives, pauses and
// crashes.

import { Replication } from "../../../src/nearsync-lws/replication/replication.js";
import { runSession } from "../../../src/nearsync-lws/transport/alive.js";
import { Engine } from "./engine.js";
import type { EngineBugs, OwnedModel } from "./engine.js";
import type { End } from "./link.js";
import type { Host, World } from "./world.js";

export interface Protected {
  group: string;
  peer: string;
  rpoMs: number;
  bytesPerSecond: number | null;
}

export class Site implements Host {
  life = 0;
  pausedUntilMs = 0;
  up = true;
  /** The wall clock's error. */
  wallOffsetMs = 0;
  readonly engine: Engine;
  readonly protections: Protected[] = [];
  readonly ends = new Set<End>();
  replication: Replication;
  #epochs = 0;

  constructor(
    readonly world: World,
    readonly name: string,
    bugs: EngineBugs,
  ) {
    this.engine = new Engine(world, this, bugs);
    this.replication = this.#start();
  }

  own(group: string): void {
    const owned: OwnedModel = {
      epochId: this.#epochId(),
      ops: [],
      durable: 0,
      points: new Map(),
      marks: new Map(),
      lastCutMs: 0,
      life: -1,
    };
    this.engine.owned.set(group, owned);
  }

  protect(what: Protected): void {
    this.protections.push(what);
    this.#protect(what);
  }

  /** A session of ours begins. */
  begin(end: End, peer: string): void {
    this.ends.add(end);
    runSession(end, {
      clock: this.world.clockOf(this, () => this.wallOffsetMs),
      work: this.replication.begin(peer, end),
      roundTrip: () => undefined,
      closed: () => void this.ends.delete(end),
    });
  }

  /** `power`: the machine; else only the daemon. */
  crash(power: boolean): void {
    this.world.tell(`${this.name} ${power ? "loses power" : "is killed"}`);
    this.up = false;
    this.life += 1;
    for (const end of this.ends) end.vanish(!power);
    this.ends.clear();
    this.engine.crash(power);
  }

  restart(): void {
    this.world.tell(`${this.name} starts`);
    this.up = true;
    this.replication = this.#start();
    for (const owned of this.engine.owned.values()) owned.epochId = this.#epochId();
    for (const what of this.protections) this.#protect(what);
  }

  #start(): Replication {
    const { world } = this;
    return new Replication({
      door: this.engine.port,
      clock: world.clockOf(this, () => this.wallOffsetMs),
      authorize: () => undefined,
    });
  }

  #protect({ group, peer, rpoMs, bytesPerSecond }: Protected): void {
    const epochId = this.engine.owned.get(group)?.epochId ?? "";
    this.replication.protect({
      group,
      epochId,
      rpoMs,
      bytesPerSecond,
      peer,
      description: Buffer.from(group),
    });
  }

  #epochId(): string {
    this.#epochs += 1;
    return `${this.name.charCodeAt(0).toString(16)}${this.#epochs.toString(16).padStart(14, "0")}`;
  }
}
