// What the two sides of a pairing say, each message with its length (u16, big endian) in front:
//
//   1. guest → host  Greeting  proof that it has the secret, what it calls itself, where it listens
//   2. host → guest  Welcome   the same; or a Refusal
//   3. guest → host  Done      it has stored the host
//
// A proof is HMAC-SHA256(secret, side | TLS exporter | guest's key | host's key). The exporter ties it to this very
// TLS session; the keys stand in it because the exporter of TLS 1.3 does not cover the client's certificate.

import { createHmac, timingSafeEqual } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { z } from "zod";
import type { ErrorCode } from "../../io-path/errors.js";
import { HoldfastError } from "../../io-path/errors.js";
import type { Fingerprint } from "../identity.js";
import { ADDRESSES_MAX, ADDRESS_CHARACTERS_MAX, PAIRING_BYTES_MAX } from "../limits.js";
import { pack, unpack } from "../wire/pack.js";

const PROOF_BYTES = 32;
const NAME_CHARACTERS_MAX = 63;
const LENGTH_BYTES = 2;

const bytes = z.instanceof(Uint8Array).refine((value) => value.length === PROOF_BYTES, "not 32 bytes");
const side = {
  proof: bytes,
  name: z.string().max(NAME_CHARACTERS_MAX),
  addresses: z.array(z.string().max(ADDRESS_CHARACTERS_MAX)).max(ADDRESSES_MAX),
};
export const greeting = z.strictObject(side);
export const welcome = z.union([
  z.strictObject(side),
  z.strictObject({
    refused: z.enum(["Denied", "Conflict", "Invalid", "Internal"]),
    message: z.string().max(512),
  }),
]);
export const done = z.strictObject({ done: z.literal(true) });

export type Greeting = z.infer<typeof greeting>;

/** What a site tells of itself. */
export interface Site {
  name: string;
  addresses: string[];
}

export interface ProofKeys {
  guest: Fingerprint;
  host: Fingerprint;
}

export function proofOf(who: "guest" | "host", secret: Buffer, socket: TLSSocket, keys: ProofKeys): Buffer {
  const exporter = socket.exportKeyingMaterial(PROOF_BYTES, "EXPORTER-holdfast-pair-1", Buffer.alloc(0));
  return createHmac("sha256", secret)
    .update(`holdfast pair 1 ${who}\0`)
    .update(exporter)
    .update(Buffer.from(keys.guest + keys.host, "hex"))
    .digest();
}

export function sameProof(given: Uint8Array, wanted: Buffer): boolean {
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

/** Sends and receives one message after the other. */
export class Exchange {
  readonly #socket: TLSSocket;
  #received = Buffer.alloc(0);
  #ended: HoldfastError | undefined;
  #wake: (() => void) | undefined;

  constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      if (this.#received.length > LENGTH_BYTES + PAIRING_BYTES_MAX) socket.destroy();
      this.#wake?.();
    });
    const end = (reason: string) => {
      this.#ended ??= new HoldfastError("Unavailable", `the other site ended the pairing: ${reason}`);
      this.#wake?.();
    };
    socket.on("error", (error: Error) => end(error.message));
    socket.on("close", () => end("connection closed"));
  }

  send(message: object): void {
    const body = pack(message);
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt16BE(body.length);
    this.#socket.write(Buffer.concat([length, body]));
  }

  async receive<T>(schema: z.ZodType<T>): Promise<T> {
    for (;;) {
      const body = this.#next();
      if (body !== undefined) return check(schema, body);
      if (this.#ended !== undefined) throw this.#ended;
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
  }

  #next(): Buffer | undefined {
    if (this.#received.length < LENGTH_BYTES) return undefined;
    const length = this.#received.readUInt16BE(0);
    if (length > PAIRING_BYTES_MAX) {
      throw new HoldfastError("Invalid", `a message of the pairing has at most ${PAIRING_BYTES_MAX} bytes`);
    }
    if (this.#received.length < LENGTH_BYTES + length) return undefined;
    const body = this.#received.subarray(LENGTH_BYTES, LENGTH_BYTES + length);
    this.#received = this.#received.subarray(LENGTH_BYTES + length);
    return body;
  }
}

function check<T>(schema: z.ZodType<T>, body: Buffer): T {
  const parsed = schema.safeParse(unpack(body));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new HoldfastError("Invalid", `a message of the pairing: ${issue?.message ?? "not understood"}`);
}

/** The code that a refusal may carry. */
export function refusalCode(code: ErrorCode): "Denied" | "Conflict" | "Invalid" | "Internal" {
  return code === "Denied" || code === "Conflict" || code === "Invalid" ? code : "Internal";
}
