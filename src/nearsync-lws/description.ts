// What an owner tells of a group when it offers it: what its replica is to be like, and what the engine makes it from.
// MessagePack, in the `description` of `offer`: { name, isNameChosen, rf, rpoMs, site, others, engine }.

import { z } from "zod";
import { HoldfastError } from "../io-path/errors.js";
import { DESCRIPTION_BYTES_MAX, OTHERS_MAX } from "./limits.js";
import { pack, unpack } from "./wire/pack.js";

const schema = z.strictObject({
  /** What the replica should be called. */
  name: z.string().max(63),
  /** Somebody asked for that name; else another one will do where it is in use. */
  isNameChosen: z.boolean(),
  /** Copies; 0: as many as at the owner. */
  rf: z.number().int().min(0).max(3),
  /** What was promised, so that another owner can promise it, too. */
  rpoMs: z.number().int().positive().max(Number.MAX_SAFE_INTEGER),
  /** What the owner's site calls itself. */
  site: z.string().max(63),
  /** Who else is sent the group: what the owner calls it, and its fingerprint. */
  others: z
    .array(z.strictObject({ site: z.string().max(63), fingerprint: z.string().regex(/^[0-9a-f]{64}$/) }))
    .max(OTHERS_MAX),
  /** Opaque here. */
  engine: z.custom<Uint8Array>((value) => value instanceof Uint8Array, "not bytes"),
});

export type Description = z.infer<typeof schema>;

/** `Invalid`: the group has too many volumes for one message. */
export function encodeDescription(description: Description): Buffer {
  const bytes = pack(description);
  if (bytes.length <= DESCRIPTION_BYTES_MAX) return bytes;
  throw new HoldfastError(
    "Invalid",
    `the group's description has ${bytes.length} bytes, at most ${DESCRIPTION_BYTES_MAX} can be sent`,
    "protect groups with fewer volumes",
  );
}

export function decodeDescription(bytes: Uint8Array): Description {
  const parsed = schema.safeParse(unpack(Buffer.from(bytes)));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new HoldfastError("Invalid", `a group's description: ${issue?.path.join(".")} ${issue?.message}`);
}
