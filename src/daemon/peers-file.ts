// What the daemon keeps of itself and its peers: identity.json (its private key, so 0600) and peers.json.

import { z } from "zod";
import { checkIdentity, createIdentity } from "../nearsync-lws/identity.js";
import type { Identity } from "../nearsync-lws/identity.js";
import { ADDRESSES_MAX, PEERS_MAX } from "../nearsync-lws/limits.js";
import { ROLES } from "../nearsync-lws/peers.js";
import type { Peer } from "../nearsync-lws/peers.js";
import type { StateFolder } from "./state-folder.js";
import { parseStored } from "./stored-json.js";

const IDENTITY = "identity.json";
const PEERS = "peers.json";

const identitySchema = z.strictObject({
  format: z.literal(1),
  certificate: z.string(),
  privateKey: z.string(),
});

const roles = z.array(z.enum(ROLES));
const peersSchema = z.strictObject({
  format: z.literal(1),
  peers: z
    .array(
      z.strictObject({
        name: z.string(),
        fingerprint: z.string().regex(/^[0-9a-f]{64}$/),
        certificate: z.string(),
        addresses: z.array(z.string()).max(ADDRESSES_MAX),
        roles,
        groupRoles: z.record(z.string(), roles),
        pairedSeconds: z.number().int().nonnegative(),
      }),
    )
    .max(PEERS_MAX),
});

/** The daemon's own identity, made and stored at its first use. */
export function ownIdentity(folder: StateFolder): Identity {
  const text = folder.readSecret(IDENTITY);
  if (text !== undefined) {
    const what = `${folder.path}/${IDENTITY}`;
    const hint = "put it back from a backup; without it every peer must be paired again";
    const { certificate, privateKey } = parseStored(identitySchema, text, what, hint);
    return checkIdentity({ certificate, privateKey }, what);
  }
  const identity = createIdentity();
  folder.write(IDENTITY, `${JSON.stringify({ format: 1, ...identity }, undefined, 2)}\n`);
  return identity;
}

export function readPeers(folder: StateFolder): Peer[] {
  const text = folder.read(PEERS);
  const hint = "put it back from a backup, or move it away and pair again";
  return text === undefined ? [] : parseStored(peersSchema, text, `${folder.path}/${PEERS}`, hint).peers;
}

/** Durable when it returns. */
export function writePeers(folder: StateFolder, peers: readonly Peer[]): void {
  folder.write(PEERS, `${JSON.stringify({ format: 1, peers }, undefined, 2)}\n`);
}
