// The string that an administrator carries from one site to the other:
//
//   hf1.BASE64URL( key hash: 16 | secret: 10 | check: 4 | address: UTF-8 )
//
// `check` is the start of SHA-256 over everything else: a mistyped string is found before anybody is called. The key
// hash says whose key must answer at the address; the secret proves the caller, once.

import { createHash, randomBytes } from "node:crypto";
import { HoldfastError } from "../io-path/errors.js";
import { formatAddress, parseAddress } from "./address.js";
import type { Address } from "./address.js";
import { KEY_HASH_BYTES } from "./identity.js";
import type { Fingerprint } from "./identity.js";
import { ADDRESS_CHARACTERS_MAX } from "./limits.js";

export interface Invite {
  address: Address;
  /** The first 16 bytes of the inviting daemon's fingerprint. */
  keyHash: Buffer;
  secret: Buffer;
}

const PREFIX = "hf1.";
const SECRET_BYTES = 10;
const CHECK_BYTES = 4;
const HEAD_BYTES = KEY_HASH_BYTES + SECRET_BYTES + CHECK_BYTES;
const CHARACTERS_MAX = PREFIX.length + Math.ceil(((HEAD_BYTES + ADDRESS_CHARACTERS_MAX) * 4) / 3);

export function createInvite(address: Address, fingerprint: Fingerprint): Invite {
  return { address, keyHash: keyHashOf(fingerprint), secret: randomBytes(SECRET_BYTES) };
}

export function keyHashOf(fingerprint: Fingerprint): Buffer {
  return Buffer.from(fingerprint, "hex").subarray(0, KEY_HASH_BYTES);
}

export function writeInvite({ address, keyHash, secret }: Invite): string {
  const where = Buffer.from(formatAddress(address));
  const bytes = Buffer.concat([keyHash, secret, checkOf(keyHash, secret, where), where]);
  return PREFIX + bytes.toString("base64url");
}

/** `Invalid` when it was not copied whole. */
export function parseInvite(text: string): Invite {
  const trimmed = text.trim();
  const body = trimmed.slice(PREFIX.length);
  const wellFormed =
    trimmed.startsWith(PREFIX) && trimmed.length <= CHARACTERS_MAX && /^[A-Za-z0-9_-]+$/.test(body);
  const bytes = Buffer.from(wellFormed ? body : "", "base64url");
  const keyHash = bytes.subarray(0, KEY_HASH_BYTES);
  const secret = bytes.subarray(KEY_HASH_BYTES, KEY_HASH_BYTES + SECRET_BYTES);
  const check = bytes.subarray(KEY_HASH_BYTES + SECRET_BYTES, HEAD_BYTES);
  const where = bytes.subarray(HEAD_BYTES);
  if (bytes.length <= HEAD_BYTES || !check.equals(checkOf(keyHash, secret, where))) {
    throw new HoldfastError(
      "Invalid",
      "this is not a whole invite",
      "copy the line that `holdfast peer pair --invite` printed at the other site, from hf1. to its end",
    );
  }
  return { address: parseAddress(where.toString("utf8"), "invite"), keyHash, secret };
}

function checkOf(...parts: Buffer[]): Buffer {
  return createHash("sha256").update(Buffer.concat(parts)).digest().subarray(0, CHECK_BYTES);
}
