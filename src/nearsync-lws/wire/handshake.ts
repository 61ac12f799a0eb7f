// How two daemons agree on a version and features, and prove that both saw the same agreement.
//
//   exporter   = TLS exporter "EXPORTER-holdfast-session-1" of the control socket, 32 bytes
//   transcript = SHA-256(server's hello | client's hello), the frames as they went over the wire
//   proof      = HMAC-SHA256(exporter, "holdfast " side " 1\0" | transcript)     side: client, server
//   key        = HMAC-SHA256(exporter, "holdfast session 1\0" | transcript); the session's id: its first 16 bytes
//                hashed once more, so that the id tells nothing of the key
//   join       = HMAC-SHA256(key, "holdfast join 1\0" | exporter of the bulk socket | its nonce)
//
// A hello that somebody changed, a frame of another session, a bulk socket of another session: no MAC fits.

import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { HoldfastError } from "../../io-path/errors.js";
import type { Body } from "./control.js";

export const VERSIONS: readonly [number, number] = [1, 1];
export const EXPORTER_LABEL = "EXPORTER-holdfast-session-1";
export const EXPORTER_BYTES = 32;

/** What this program can do beyond the version. `needs`: what it does not go without. */
export interface Abilities {
  versions: readonly [number, number];
  features: readonly string[];
  needs: readonly string[];
}

export const OURS: Abilities = { versions: VERSIONS, features: ["batches"], needs: ["batches"] };

export interface Agreement {
  version: number;
  /** Sorted. */
  features: string[];
}

/** The highest version and all features that both have; `Unavailable` without one, or when one that is needed lacks. */
export function agree(
  ours: Abilities,
  theirs: Pick<Body<"hello">, "versions" | "features" | "needs">,
): Agreement {
  const version = Math.min(ours.versions[1], theirs.versions[1]);
  if (version < ours.versions[0] || version < theirs.versions[0]) {
    const older = theirs.versions[1] < ours.versions[0] ? "older" : "newer";
    throw new HoldfastError(
      "Unavailable",
      `the peer speaks protocol ${theirs.versions.join(" to ")}, this daemon ${ours.versions.join(" to ")}`,
      older === "older" ? "update the peer's daemon" : "update this daemon",
    );
  }
  const both = ours.features.filter((feature) => theirs.features.includes(feature)).sort();
  const lacking = [...ours.needs, ...theirs.needs].filter((feature) => !both.includes(feature));
  if (lacking.length > 0) {
    throw new HoldfastError(
      "Unavailable",
      `one side needs ${[...new Set(lacking)].join(", ")}, which the other does not have`,
      "update the older daemon",
    );
  }
  return { version, features: both };
}

export interface SessionKeys {
  clientProof: Buffer;
  serverProof: Buffer;
  /** Names the session to the server's other socket. */
  id: Buffer;
  key: Buffer;
}

export function sessionKeys(exporter: Buffer, serverHello: Buffer, clientHello: Buffer): SessionKeys {
  const transcript = createHash("sha256").update(serverHello).update(clientHello).digest();
  const mac = (label: string) => hmac(exporter, label, transcript);
  const key = mac("holdfast session 1");
  return {
    clientProof: mac("holdfast client 1"),
    serverProof: mac("holdfast server 1"),
    key,
    id: createHash("sha256").update(key.subarray(0, 16)).digest().subarray(0, 16),
  };
}

export function joinProof(key: Buffer, bulkExporter: Buffer, nonce: Uint8Array): Buffer {
  return hmac(key, "holdfast join 1", bulkExporter, nonce);
}

/** `Denied` unless they are the same; takes the same time whatever differs. */
export function requireSame(given: Uint8Array, wanted: Buffer, what: string): void {
  if (given.length === wanted.length && timingSafeEqual(given, wanted)) return;
  throw new HoldfastError("Denied", `${what} does not fit this session: somebody changed or replayed it`);
}

function hmac(key: Buffer, label: string, ...parts: Uint8Array[]): Buffer {
  const mac = createHmac("sha256", key).update(`${label}\0`);
  for (const part of parts) mac.update(part);
  return mac.digest();
}
