// Messages on the control socket: `[type, number, body]` in MessagePack. `number` counts the messages of one direction
// of a session, from 0, so that a frame that is lost, repeated or taken from elsewhere ends the session.
//
// Every field is checked here, once; whatever else is in a message is refused. WIRE.md has worked examples.

import { z } from "zod";
import { HoldfastError } from "../../io-path/errors.js";
import {
  ADDRESS_CHARACTERS_MAX,
  CONTROL_BYTES_MAX,
  CURSOR_BYTES_MAX,
  DESCRIPTION_BYTES_MAX,
  HEADERS_BYTES_MAX,
  GROUPS_MAX,
  LOST_FILES_MAX,
  LOST_PATH_BYTES_MAX,
  POINT_NAME_CHARACTERS_MAX,
  PROOF_BYTES_MAX,
} from "../limits.js";
import { pack, unpack } from "./pack.js";

const lsn = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER);
const lsnOrNull = lsn.nullable();
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const group = z.string().regex(/^[0-9a-f]{32}$/);
const epochId = z.string().regex(/^[0-9a-f]{16}$/);
/** Nanoseconds, exact. */
const ns = z
  .bigint()
  .min(0n)
  .max(2n ** 63n - 1n);
const bytes = (least: number, most: number) =>
  z.custom<Uint8Array>(
    (value) => value instanceof Uint8Array && value.length >= least && value.length <= most,
    `not ${least} to ${most} bytes`,
  );
const text = z.string().max(512);

/** Counts an owner's offers of a group to one peer: what belongs to an older one is let go. */
const stream = z
  .number()
  .int()
  .min(0)
  .max(2 ** 32 - 1);
/** A recovery point and when it was cut, by both of the owner's clocks. */
const point = { lsn, timeNs: ns, bootNs: ns };

/** Where a frame of headers ends, and its chain. */
const mark = z.strictObject({ lsn, chain: z.string().regex(/^[0-9a-f]{16}$/) });
/** Of a question; its answer has the same. */
const question = z
  .number()
  .int()
  .min(0)
  .max(2 ** 32 - 1);
/** What answers it, or why there is no answer; `code` empty: it is one. */
const answer = { group, answer: bytes(0, PROOF_BYTES_MAX), code: z.string().max(32), message: text };

/** Of one group, what the side that has the replica says of it. */
const vector = z.strictObject({
  group,
  stream,
  epochId,
  /** The newest batch that came as a whole leads here. */
  received: lsnOrNull,
  /** The recovery point that readers see. */
  applied: lsnOrNull,
  /** The same, and a power cut does not take it back. */
  flushed: lsnOrNull,
  /** The newest frame of headers that is durable there. */
  headers: mark.nullable(),
});

/** Of a file, some of what was done to it; a path that is longer, or not known, is empty. */
const lostFile = z.strictObject({
  branch: z
    .number()
    .int()
    .min(0)
    .max(2 ** 32 - 1),
  inode: count,
  path: bytes(0, LOST_PATH_BYTES_MAX),
  ops: count,
  bytes: count,
  fsyncedOps: count,
});

const bodies = {
  hello: z.strictObject({
    versions: z.tuple([count, count]),
    features: z.array(z.string().max(32)).max(64),
    needs: z.array(z.string().max(32)).max(64),
    site: z.string().max(63),
    nonce: bytes(16, 16),
  }),
  proof: z.strictObject({ mac: bytes(32, 32) }),
  bulk: z.strictObject({ nonce: bytes(16, 16) }),
  join: z.strictObject({ session: bytes(16, 16), mac: bytes(32, 32) }),
  ready: z.strictObject({}),
  refuse: z.strictObject({
    code: z.enum(["Denied", "Invalid", "Conflict", "Unavailable", "Fenced"]),
    message: text,
  }),
  beat: z.strictObject({
    /** The sender's clock since boot: it comes back in `beatAck`. */
    sentNs: ns,
    /** Of each group that the sender owns for this peer: what is durable there, and since when nothing is newer. */
    groups: z
      .array(
        z.strictObject({
          group,
          epochId,
          ...point,
          /** The newest LSN, durable or not, and when that was looked at. */
          newest: lsn,
          lookedNs: ns,
        }),
      )
      .max(GROUPS_MAX),
  }),
  beatAck: z.strictObject({
    sentNs: ns,
    /** Bytes that came on the bulk socket of this session, in all. */
    bulkBytes: count,
    acks: z.array(vector).max(GROUPS_MAX),
  }),
  offer: z.strictObject({
    group,
    stream,
    epochId,
    rpoMs: count,
    description: bytes(0, DESCRIPTION_BYTES_MAX),
  }),
  state: z.strictObject({
    group,
    stream,
    /** Null: there is no replica yet, or nothing in it. */
    epochId: epochId.nullable(),
    last: lsnOrNull,
    staging: z.strictObject({ base: lsnOrNull, target: lsn, cursor: bytes(0, CURSOR_BYTES_MAX) }).nullable(),
    creditBytes: count,
    /** The newest frame of headers that is durable there. */
    headers: mark.nullable(),
  }),
  begin: z.strictObject({
    group,
    stream,
    epochId,
    base: lsnOrNull,
    target: z.strictObject({ ...point, name: z.string().max(POINT_NAME_CHARACTERS_MAX) }),
  }),
  ack: vector,
  credit: z.strictObject({
    group,
    stream,
    /** Bytes of chunks that the sender may have sent since `state`, in all: a repeated message adds nothing. */
    bytesMax: count,
  }),
  /** The sender or receiver of a group gives up for now; `retry`: ask again with `offer`. */
  stop: z.strictObject({ group, stream, code: z.string().max(32), message: text, retry: z.boolean() }),
  /** The sender, which has a replica of the group, wants to be its owner. */
  relinquish: z.strictObject({ group, epochId }),
  /** What `relinquish` or `grant` asked for is not to be had, and why. */
  wait: z.strictObject({ group, code: z.string().max(32), message: text }),
  /** The sender takes no change of the group any more, ever; its last recovery point is this one. */
  grant: z.strictObject({ group, epochId, lsn }),
  /** The sender is the owner now: of this group, in this epoch, where that point has this LSN. */
  taken: z.strictObject({ group, lsn, by: z.strictObject({ group, epochId, lsn }) }),
  /** Who owns this group now? `group` and `epochId`: what the asker has, or had, in common with that one. */
  ask: z.strictObject({
    ask: count,
    group,
    epochId,
    /** Of that epoch, the newest LSN that the asker has; null: all that there is. */
    lsn: lsnOrNull,
  }),
  /** Answers `ask`; null: the sender has nobody to name. */
  successor: z.strictObject({
    ask: count,
    successor: z
      .strictObject({
        group,
        epochId,
        /** Its own LSN of the last recovery point that both have; null: none is left. */
        lsn: lsnOrNull,
        /** The epoch that the two had in common, and the same point in it. */
        of: epochId,
        at: lsnOrNull,
        /** When it was cut. */
        timeNs: ns,
      })
      .nullable(),
  }),
  /** The sender follows this group from now on, and wants it to be sent. */
  follow: z.strictObject({
    ask: count,
    group,
    rpoMs: count,
    bytesPerSecond: count.nullable(),
    rf: z.number().int().min(0).max(3),
  }),
  /** Answers `follow`; an empty code: it is, or will be. Or refuses to answer `ask`. */
  follows: z.strictObject({ ask: count, code: z.string().max(32), message: text }),
  /** What did users do to this group, which is not owned there any more, in this epoch after one LSN, up to another? */
  account: z.strictObject({
    ask: count,
    group,
    epochId,
    above: count,
    /** Null: to the end. */
    until: lsnOrNull,
  }),
  /** Answers `account`, as the log of that site tells. */
  accounted: z.strictObject({
    ask: count,
    /** The LSNs that it is about; the last one below the first: none. */
    first: count,
    last: count,
    ...{ ops: count, bytes: count, files: count },
    ...{ fsyncedOps: count, fsyncedBytes: count, fsyncedFiles: count },
    /** False: the sums are bounds. */
    isExact: z.boolean(),
    named: z.array(lostFile).max(LOST_FILES_MAX),
  }),
  /** What was done from one LSN to another, ahead of the batches. */
  headers: z.strictObject({
    group,
    stream,
    epochId,
    from: lsn,
    to: lsn,
    frame: bytes(1, HEADERS_BYTES_MAX),
  }),
  /** Of a recovery point that both sides keep: a question to the other's engine; empty: nothing more is asked. */
  prove: z.strictObject({ group, epochId, lsn, proof: question, question: bytes(0, PROOF_BYTES_MAX) }),
  proved: z.strictObject({ ...answer, proof: question }),
  /** From the site of a replica: its owner compares the two, or says how that fares. */
  verify: z.strictObject({
    group,
    ticket: question,
    action: z.enum(["start", "repair", "look", "stop"]),
  }),
  verified: z.strictObject({ ...answer, ticket: question }),
  goodbye: z.strictObject({ reason: z.string().max(ADDRESS_CHARACTERS_MAX) }),
};

export type MessageType = keyof typeof bodies;
export type Body<T extends MessageType> = z.infer<(typeof bodies)[T]>;
export type Message = { [T in MessageType]: { type: T; body: Body<T> } }[MessageType];
export type AckVector = z.infer<typeof vector>;

const NUMBERS: Readonly<Record<MessageType, number>> = {
  hello: 1,
  proof: 2,
  bulk: 3,
  join: 4,
  ready: 5,
  refuse: 6,
  beat: 7,
  beatAck: 8,
  goodbye: 9,
  offer: 16,
  state: 17,
  begin: 18,
  ack: 19,
  credit: 20,
  stop: 21,
  relinquish: 34,
  grant: 35,
  taken: 36,
  wait: 37,
  ask: 38,
  successor: 39,
  follow: 40,
  follows: 41,
  headers: 42,
  account: 43,
  accounted: 44,
  prove: 46,
  proved: 47,
  verify: 48,
  verified: 49,
};

/** Numbers that later versions use; until a feature allows one, it is refused by name. */
export const RESERVED: Readonly<Record<number, string>> = {
  32: "OPS",
  33: "FENCE",
};

const TYPES = new Map(Object.entries(NUMBERS).map(([type, number]) => [number, type as MessageType]));

export function encodeMessage<T extends MessageType>(type: T, number: number, body: Body<T>): Buffer {
  return pack([NUMBERS[type], number, body]);
}

const envelope = z.tuple([count, count, z.unknown()]);

/** `Invalid` for what is no message, is not the `number`th one, or has a field that does not belong. */
export function decodeMessage(frame: Buffer, number: number): Message {
  if (frame.length > CONTROL_BYTES_MAX) throw invalid(`more than ${CONTROL_BYTES_MAX} bytes`);
  const parsed = envelope.safeParse(unpack(frame));
  if (!parsed.success) throw invalid("no envelope");
  const [kind, given, body] = parsed.data;
  const type = TYPES.get(kind);
  if (type === undefined) {
    const name = RESERVED[kind];
    throw invalid(
      name === undefined ? `unknown type ${kind}` : `${name} belongs to a feature that was not agreed on`,
    );
  }
  if (given !== number) throw invalid(`message ${given} where ${number} is due`);
  const checked = bodies[type].safeParse(body);
  if (checked.success) return { type, body: checked.data } as Message;
  const issue = checked.error.issues[0];
  throw invalid(`${type}: ${issue?.path.join(".") ?? ""} ${issue?.message ?? ""}`);
}

function invalid(why: string): HoldfastError {
  return new HoldfastError("Invalid", `malformed message: ${why}`);
}
