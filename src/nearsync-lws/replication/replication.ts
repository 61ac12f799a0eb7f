// Replication of one daemon: the groups that it owns and sends, those that it has replicas of, over whatever sessions
// there are. `begin` is what a session is for (transport/sessions.ts, `Work`).

import { HoldfastError } from "../../io-path/errors.js";
import type { ErrorCode } from "../../io-path/errors.js";
import { BEAT_LOST_MS, GROUPS_MAX } from "../limits.js";
import type { Door, DoorAnswer, DoorCall, DoorPort, Point } from "../machines/door.js";
import type { Role } from "../peers.js";
import type { Clock } from "../seams.js";
import type { Work } from "../transport/alive.js";
import type { Chunk } from "../wire/chunk.js";
import type { Body, Message } from "../wire/control.js";
import { Owned, nowOf } from "./owned.js";
import type { Questions } from "./questions.js";
import type { FollowerOptions, FollowerStatus, OwnedOptions } from "./owned.js";
import type { Pipe } from "./pipe.js";
import { Replica } from "./replica.js";

/** What the two sides of a planned change of owner say to each other. */
export type HandoverMessage = Extract<Message, { type: "relinquish" | "wait" | "grant" | "taken" }>;

export interface ReplicationOptions {
  door: DoorPort;
  clock: Clock;
  /** Fails with `Denied` unless the peer (its fingerprint) may do this with the group. */
  authorize: (peer: string, role: Role, group: string) => void;
  /** A peer that may says something of a planned change of owner; without: nobody may. */
  handover?: (peer: string, message: HandoverMessage) => void;
  /** What peers ask each other; without: nothing. */
  questions?: Questions;
  /** A peer refuses what this site sends as its owner: somebody else is. */
  fenced?: (group: string, peer: string) => void;
}

export interface Protection extends OwnedOptions, FollowerOptions {
  /** The peer's fingerprint. */
  peer: string;
}

export class Replication {
  readonly #options: ReplicationOptions;
  readonly #owned = new Map<string, Owned>();
  readonly #replicas = new Map<string, Replica>();
  readonly #pipes = new Map<string, Pipe>();
  /** Of followers that follow no more: an answer to an offer of then must not pass for one to a new offer. */
  readonly #turns = new Map<string, number>();

  constructor(options: ReplicationOptions) {
    this.#options = options;
  }

  /** From now on, over this session and every later one. `Conflict`: it is done already, or in the other direction. */
  protect({ peer, bytesPerSecond, description, ...group }: Protection): void {
    if (this.#replicas.get(group.group)?.pipe !== undefined) {
      throw new HoldfastError(
        "Conflict",
        `group ${group.group} is a replica here`,
        "protect it where it is owned",
      );
    }
    const owned = this.#owned.get(group.group) ?? new Owned(group, this.#options.door, this.#options.clock);
    if (owned.followers.has(peer)) {
      throw new HoldfastError("Conflict", `group ${group.group} is replicated to this peer already`);
    }
    this.#owned.set(group.group, owned);
    const turn = this.#turns.get(`${group.group} ${peer}`) ?? 0;
    owned.add(peer, { bytesPerSecond, description, turn }, this.#pipes.get(peer));
  }

  /** The replica stays as it is at the peer. */
  unprotect(group: string, peer: string): void {
    const owned = this.#owned.get(group);
    if (owned?.followers.has(peer) !== true) return;
    this.#turns.set(`${group} ${peer}`, owned.remove(peer));
    if (owned.followers.size !== 0) return;
    owned.close();
    this.#owned.delete(group);
  }

  /** Nobody is sent the group any more: it is not owned here. What followers have stays noted. */
  release(group: string): void {
    this.#owned.get(group)?.close();
    this.#owned.delete(group);
  }

  /** The replica of a group was promoted here. */
  fence(group: string): void {
    this.#replicas.get(group)?.fence();
  }

  /** Asks a follower again that has refused. */
  offerAgain(group: string, peer: string): void {
    const pipe = this.#pipes.get(peer);
    if (pipe !== undefined) this.#owned.get(group)?.up(peer, pipe);
  }

  /** The session with a peer. */
  pipe(peer: string): Pipe | undefined {
    return this.#pipes.get(peer);
  }

  /** A snapshot was taken, and is durable: followers get it under its name, none skips it. */
  announce(group: string, point: Point): void {
    this.#owned.get(group)?.announce(point);
  }

  /** A point that is durable goes to a follower, and is flushed there when it fulfils. */
  async ship(group: string, peer: string, point: Point, limitMs: number): Promise<void> {
    const owned = this.#owned.get(group);
    if (owned === undefined)
      throw new HoldfastError("Unavailable", "the group is not protected to this peer yet");
    await owned.ship(peer, point, limitMs);
  }

  /** False: there is no session with the peer. */
  tell<T extends HandoverMessage["type"]>(peer: string, type: T, body: Body<T>): boolean {
    const pipe = this.#pipes.get(peer);
    pipe?.send(type, body);
    return pipe !== undefined;
  }

  /** A cut as soon as somebody has room, without waiting for the schedule. */
  force(group: string): void {
    this.#owned.get(group)?.force();
  }

  status(group: string, peer: string): FollowerStatus | undefined {
    return this.#owned.get(group)?.status(peer);
  }

  /** Everything that is protected, and how it fares. */
  reports(): ({ group: string; peer: string } & FollowerStatus)[] {
    return [...this.#owned].flatMap(([group, owned]) =>
      [...owned.followers.keys()].flatMap((peer) => {
        const status = owned.status(peer);
        return status === undefined ? [] : [{ group, peer, ...status }];
      }),
    );
  }

  /** Epoch of a group that is owned here, and sent to this peer. */
  epochOf(group: string, peer: string): string | undefined {
    const owned = this.#owned.get(group);
    return owned?.followers.has(peer) === true ? owned.options.epochId : undefined;
  }

  /** Replicas whose owners told of them lately, and send them. */
  receiving(): string[] {
    const sinceMs = nowOf(this.#options.clock) - BEAT_LOST_MS;
    const all = [...this.#replicas].filter(([, one]) => one.pipe !== undefined && one.heardMs >= sinceMs);
    return all.map(([group]) => group);
  }

  /** The newest recovery point that a replica shows. */
  replicaLsn(group: string): number | null {
    return this.#replicas.get(group)?.state.last ?? null;
  }

  close(): void {
    for (const owned of this.#owned.values()) owned.close();
    for (const replica of this.#replicas.values()) replica.down();
  }

  begin(peer: string, pipe: Pipe): Work {
    this.#pipes.set(peer, pipe);
    const mine = (group: string) => {
      const replica = this.#replicas.get(group);
      return replica?.pipe === pipe ? replica : undefined;
    };
    const followed = () =>
      [...this.#owned.values()].filter((owned) => owned.followers.get(peer)?.pipe === pipe);
    const open = () => this.#pipes.get(peer) === pipe;
    const work: Work = {
      begun: () => {
        for (const owned of this.#owned.values()) owned.up(peer, pipe);
      },
      beatGroups: () =>
        followed().flatMap((owned) => {
          const { newest: point, options } = owned;
          if (point === null || point.lsn === 0) return [];
          const { group, epochId } = options;
          const { lsn, timeNs, bootNs } = point;
          const { newest, timeNs: lookedNs } = owned.look(peer) ?? { newest: lsn, timeNs };
          return [{ group, epochId, lsn, timeNs, bootNs, newest: Math.max(newest, lsn), lookedNs }];
        }),
      acks: () => [...this.#replicas.values()].flatMap((one) => (one.pipe === pipe ? (one.ack() ?? []) : [])),
      beat: ({ groups }) => {
        for (const told of groups) mine(told.group)?.beat(told, nowOf(this.#options.clock));
      },
      beatAck: ({ acks }) => {
        for (const vector of acks) this.#ack(peer, vector);
      },
      message: (message) => {
        if (open()) this.#message(peer, pipe, message);
      },
      chunk: (chunk: Chunk) => {
        // One for a group that was stopped may be on its way still.
        if (open()) mine(chunk.group)?.chunk(chunk);
      },
      closed: () => {
        if (open()) this.#pipes.delete(peer);
        for (const owned of followed()) owned.down(peer);
        this.#options.questions?.down(pipe);
        for (const replica of this.#replicas.values()) if (replica.pipe === pipe) replica.down();
      },
    };
    return work;
  }

  #message(peer: string, pipe: Pipe, message: Message): void {
    const nowMs = nowOf(this.#options.clock);
    switch (message.type) {
      case "offer":
        return this.#offer(peer, pipe, message.body);
      case "begin": {
        const replica = this.#replicas.get(message.body.group);
        if (replica?.pipe === pipe) replica.begin(message.body);
        return;
      }
      case "state": {
        const { group, stream, last, staging, creditBytes, headers } = message.body;
        const told =
          staging === null ? null : { ...staging, cursor: Buffer.from(staging.cursor).toString("hex") };
        return this.#owned
          .get(group)
          ?.state(peer, { type: "state", nowMs, stream, last, staging: told, creditBytes }, headers);
      }
      case "headers": {
        const replica = this.#replicas.get(message.body.group);
        if (replica?.pipe === pipe) replica.headers(message.body);
        return;
      }
      case "credit": {
        const { group, stream, bytesMax } = message.body;
        return this.#owned.get(group)?.take(peer, { type: "credit", nowMs, stream, bytesMax });
      }
      case "ack":
        return this.#ack(peer, message.body);
      case "stop": {
        const { group, stream, code, message: text, retry } = message.body;
        const owned = this.#owned.get(group);
        owned?.take(peer, { type: "stop", nowMs, stream, code, message: text, retry });
        if (code === "Fenced" && owned?.status(peer)?.link === "stopped") this.#options.fenced?.(group, peer);
        return;
      }
      case "relinquish":
      case "wait":
      case "grant":
      case "taken":
        return this.#handover(peer, pipe, message);
      case "ask":
      case "successor":
      case "follow":
      case "follows":
      case "account":
      case "accounted":
        return this.#options.questions?.take(peer, pipe, message);
      case "prove":
      case "proved":
      case "verify":
      case "verified":
      case "hello":
      case "proof":
      case "bulk":
      case "join":
      case "ready":
      case "refuse":
      case "beat":
      case "beatAck":
      case "goodbye":
        throw new HoldfastError("Invalid", `${message.type} does not belong in a session that is up`);
    }
  }

  /** Who wants a group must be one that may have it; who gives one, one that may write its replica. */
  #handover(peer: string, pipe: Pipe, message: HandoverMessage): void {
    const { group } = message.body;
    try {
      this.#options.authorize(peer, message.type === "relinquish" ? "may-own" : "replica-write", group);
    } catch (error) {
      if (message.type === "wait" || message.type === "taken") return;
      const { message: text, hint } = error as HoldfastError;
      return pipe.send("wait", { group, code: "Denied", message: `${text}; ${hint}`.slice(0, 500) });
    }
    this.#options.handover?.(peer, message);
  }

  #ack(peer: string, { group, stream, epochId, ...vector }: Body<"ack">): void {
    const owned = this.#owned.get(group);
    // Of an epoch before this one: it says nothing of what this owner sent.
    if (owned?.options.epochId === epochId) owned.ack(peer, stream, vector);
  }

  #offer(peer: string, pipe: Pipe, body: Body<"offer">): void {
    const { group, stream } = body;
    const refuse = (code: ErrorCode, message: string) =>
      pipe.send("stop", { group, stream, code, message, retry: code === "Unavailable" });
    try {
      this.#options.authorize(peer, "replica-write", group);
    } catch (error) {
      const { message, hint } = error as HoldfastError;
      return refuse("Denied", `${message}; ${hint}`.slice(0, 500));
    }
    if (this.#owned.has(group)) return refuse("Conflict", "this site owns the group itself");
    const replica = this.#replicas.get(group) ?? new Replica(group, this.#options.door);
    if (replica.pipe !== undefined && replica.pipe !== pipe) {
      return refuse("Conflict", "another site sends this group already");
    }
    if (!this.#replicas.has(group) && this.#replicas.size >= GROUPS_MAX) {
      return refuse("Unavailable", `this site has ${GROUPS_MAX} replicas already`);
    }
    this.#replicas.set(group, replica);
    replica.offer(peer, pipe, body);
  }
}

/** A door of promises as the machines want it. */
export function portOf(door: Door): DoorPort {
  return <C extends DoorCall["call"]>(
    call: Extract<DoorCall, { call: C }>,
    done: (answer: DoorAnswer<C>) => void,
  ): void => {
    door(call).then(
      (value) => done({ ok: true, value }),
      (error: unknown) => {
        const { code, hint } =
          error instanceof HoldfastError ? error : { code: "Internal" as const, hint: "" };
        const message = error instanceof Error ? error.message : String(error);
        done({ ok: false, code, message: hint === "" ? message : `${message}; ${hint}` });
      },
    );
  };
}
