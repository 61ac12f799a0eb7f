// Who the peers are and what each may do here.
//
// - A peer is its key. Its name and addresses are what this site calls it and where it looks for it.
// - Roles are what the peer may do *at this site*; the other site has its own list about us.
// - `authorize` is the only place that says yes.

import { HoldfastError } from "../io-path/errors.js";
import type { Fingerprint } from "./identity.js";
import { PEERS_MAX } from "./limits.js";

/** Write replicas here; read groups of here; take a group over; arbitrate; administer. */
export const ROLES = ["replica-write", "read", "may-own", "witness", "admin"] as const;
export type Role = (typeof ROLES)[number];

/** What pairing grants unless something else is asked for: what replication in both directions needs. */
export const ROLES_DEFAULT: readonly Role[] = ["replica-write", "read", "may-own"];

export interface Peer {
  /** Unique at this site. */
  name: string;
  fingerprint: Fingerprint;
  /** PEM; only its key counts. */
  certificate: string;
  /** `HOST:PORT`, the one to try first in front; none: only the peer connects. */
  addresses: string[];
  roles: Role[];
  /** Where a group has a list of its own, it holds instead of `roles`. */
  groupRoles: Record<string, Role[]>;
  /** Seconds since 1970. */
  pairedSeconds: number;
}

export function rolesFor(peer: Peer, group?: string): readonly Role[] {
  const own = group === undefined ? undefined : Object.getOwnPropertyDescriptor(peer.groupRoles, group);
  return own === undefined ? peer.roles : (own.value as Role[]);
}

/** `Denied` unless the peer has the role, for the group where one is named. */
export function authorize(peer: Peer, role: Role, group?: string): void {
  if (rolesFor(peer, group).includes(role)) return;
  const where = group === undefined ? "" : ` for group ${group}`;
  throw new HoldfastError(
    "Denied",
    `peer ${peer.name} lacks the role ${role}${where} at this site`,
    `here: holdfast peer set ${peer.name} --role ${[...rolesFor(peer, group), role].join(" --role ")}`,
  );
}

/** The list after a pairing: a key that is known keeps its name unless another was asked for. */
export function withPaired(peers: readonly Peer[], paired: Peer, how: { named: boolean }): Peer[] {
  const before = peers.find(({ fingerprint }) => fingerprint === paired.fingerprint);
  const name = how.named || before === undefined ? paired.name : before.name;
  const others = peers.filter((peer) => peer !== before);
  requireFree(others, name);
  if (others.length >= PEERS_MAX) {
    throw new HoldfastError("Conflict", `a daemon has at most ${PEERS_MAX} peers`, "remove one first");
  }
  return [...others, { ...paired, name, groupRoles: before?.groupRoles ?? {} }].sort(byName);
}

export function withChanged(
  peers: readonly Peer[],
  name: string,
  change: { name?: string | undefined; roles?: Role[] | undefined; addresses?: string[] | undefined },
): Peer[] {
  const peer = requirePeer(peers, name);
  const others = peers.filter((other) => other !== peer);
  if (change.name !== undefined) requireFree(others, change.name);
  const given = Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined));
  return [...others, { ...peer, ...given }].sort(byName);
}

export function requirePeer(peers: readonly Peer[], name: string): Peer {
  const peer = peers.find((there) => there.name === name);
  if (peer !== undefined) return peer;
  const known = peers.map((there) => there.name).join(", ");
  throw new HoldfastError(
    "NotFound",
    `there is no peer ${name}`,
    known === "" ? "pair one: holdfast peer pair --invite" : `peers: ${known}`,
  );
}

function requireFree(others: readonly Peer[], name: string): void {
  if (!others.some((peer) => peer.name === name)) return;
  throw new HoldfastError(
    "Conflict",
    `there is a peer ${name} already, with another key`,
    `choose another name with --name, or first: holdfast peer remove ${name}`,
  );
}

function byName(left: Peer, right: Peer): number {
  return left.name < right.name ? -1 : 1;
}
