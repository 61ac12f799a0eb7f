// Runs a session: its heartbeats, and everything else to the work that it is for.

import { BEAT_MS } from "../limits.js";
import { heart, newHeart } from "../machines/heart.js";
import type { HeartEffect } from "../machines/heart.js";
import type { Clock } from "../seams.js";
import type { Chunk } from "../wire/chunk.js";
import type { Body, Message, MessageType } from "../wire/control.js";

/** What a session is for. */
export interface Work {
  /** Messages can be sent from now on. */
  begun(): void;
  /** What the next beat says of the groups that we own for this peer. */
  beatGroups(): Body<"beat">["groups"];
  /** What an answer says of the replicas that we have of this peer's groups. */
  acks(): Body<"beatAck">["acks"];
  beat(body: Body<"beat">): void;
  beatAck(body: Body<"beatAck">): void;
  /** All other messages. */
  message(message: Message): void;
  chunk(chunk: Chunk): void;
  closed(reason: string): void;
}

/** A session as far as this is concerned. */
export interface Running {
  readonly closed: string | undefined;
  /** Bytes on the bulk socket since it is there. */
  readonly counters: { bulkSent: number; bulkReceived: number };
  attach(handlers: {
    message: (message: Message) => void;
    chunk: (chunk: Chunk) => void;
    closed: (reason: string) => void;
  }): void;
  send<T extends MessageType>(type: T, body: Body<T>): void;
  close(reason: string): void;
}

export interface RunOptions {
  clock: Clock;
  work: Work;
  roundTrip: (ms: number | null) => void;
  /** After the work was told. */
  closed: (reason: string) => void;
}

export function runSession(session: Running, { clock, work, roundTrip, closed }: RunOptions): void {
  let state = newHeart(clock.bootNs());
  let cancel: () => void = () => undefined;
  const carryOut = (effects: HeartEffect[]) => {
    for (const effect of effects) {
      if (effect.type === "lost") session.close(effect.reason);
      else session.send("beat", { sentNs: effect.sentNs, groups: work.beatGroups() });
    }
  };
  const tick = () => {
    const [next, effects] = heart(state, { type: "tick", nowNs: clock.bootNs() });
    state = next;
    carryOut(effects);
    if (session.closed === undefined) cancel = clock.after(BEAT_MS, tick);
  };
  session.attach({
    message: (message) => {
      if (message.type === "beat") {
        work.beat(message.body);
        const bulkBytes = session.counters.bulkReceived;
        session.send("beatAck", { sentNs: message.body.sentNs, bulkBytes, acks: work.acks() });
      } else if (message.type === "beatAck") {
        const { sentNs, bulkBytes: bulkArrived } = message.body;
        const { bulkSent } = session.counters;
        const [next, effects] = heart(state, {
          type: "answer",
          ...{ sentNs, nowNs: clock.bootNs(), bulkSent, bulkArrived },
        });
        state = next;
        roundTrip(state.roundTripMs);
        work.beatAck(message.body);
        carryOut(effects);
      } else work.message(message);
    },
    chunk: (chunk) => work.chunk(chunk),
    closed: (reason) => {
      cancel();
      work.closed(reason);
      closed(reason);
    },
  });
  work.begun();
  tick();
}
