// What the daemon's thread asks of the worker that owns the sockets, and the worker of it. Plain data both ways.

import type { AuditLine } from "./audit.js";
import type { Place } from "./engine-door.js";
import type { KnownHeaders } from "./header-store.js";
import type { Identity } from "./identity.js";
import type { InviteState, Paired } from "./pairing/host.js";
import type { Point } from "./machines/door.js";
import type { Successor } from "./machines/return.js";
import type { Peer } from "./peers.js";
import type { VerifyReport } from "./proof/report.js";
import type { VerifyRequest } from "./proof/verifications.js";
import type { FollowerStatus } from "./replication/owned.js";
import type { Account, AccountQuestion, FollowRequest, SuccessorQuestion } from "./replication/questions.js";
import type { HandoverMessage, Protection } from "./replication/replication.js";
import type { LinkState } from "./transport/sessions.js";
import type { Site } from "./pairing/messages.js";

export interface InviteRequest {
  /** Comes back in `pair` and `inviteEnded`. */
  ticket: number;
  /** Where to listen while the invite is open; port 0: any. */
  listen: string;
  /** What the invite names; absent: where it listens. */
  advertise?: string | undefined;
  site: Site;
}

export interface OpenInvite {
  invite: string;
  address: string;
  /** Milliseconds that it stays open. */
  lifeMs: number;
}

export interface JoinRequest {
  ticket: number;
  invite: string;
  site: Site;
}

export interface Configuration {
  peers: Peer[];
  /** Where peers may connect; absent: nowhere. */
  listen?: string | undefined;
  site: string;
}

/** A group that is protected, and where it lies here. */
export interface ProtectRequest extends Protection {
  place: Place;
}

/** How a protection fares. */
export interface ProtectionReport extends FollowerStatus {
  group: string;
  /** The peer's fingerprint. */
  peer: string;
  /** Of the newest heartbeat that the peer answered; null: none yet. */
  roundTripMs: number | null;
}

/** What has to do with connections alone. */
export interface LinkCalls {
  /** What holds from now on. Sessions of those that are no peers any more have ended when it fulfils. */
  configure(configuration: Configuration): Promise<{ listening: string | null }>;
  /** An invite that is open still is closed first. */
  invite(request: InviteRequest): Promise<OpenInvite>;
  closeInvite(request: { ticket: number }): void;
  /** Fulfils when both sides have stored each other. */
  join(request: JoinRequest): Promise<void>;
}

export interface WorkerCalls extends LinkCalls {
  /** `Conflict`: it is done already, or the group is a replica here. */
  protect(request: ProtectRequest): void;
  unprotect(request: { group: string; peer: string }): void;
  /** A snapshot was taken, and is durable. */
  announce(request: { group: string; point: Point }): void;
  /** What came of a group's headers, of which this site has the replica. */
  knownHeaders(request: { group: string }): Promise<KnownHeaders>;
  reports(request: null): ProtectionReport[];
  /** Offers a group again to a peer that has refused it. */
  offerAgain(request: { group: string; peer: string }): void;
  /** A durable point goes to a follower, and is flushed there when it fulfils. `Unavailable`: not within so long. */
  ship(request: { group: string; peer: string; point: Point; limitMs: number }): Promise<void>;
  /** False: there is no session with the peer. */
  tell(request: { peer: string; message: HandoverMessage }): boolean;
  /**
   * The group is not owned here any more; nothing of it runs in the engine when it fulfils. What followers have stays
   * noted.
   */
  release(request: { group: string }): Promise<void>;
  /** The replica of a group was promoted: who sends it is told. */
  fence(request: { group: string }): void;
  /** Groups, as the wire has them, that their owners tell of: replicas here that are sent. */
  receiving(request: null): string[];
  /** Asks a peer who owns a group now; null: nobody that it knows of. `Unavailable`: it is not connected. */
  successorOf(question: SuccessorQuestion): Promise<Successor | null>;
  /** Asks a peer to send a group of its. */
  askToFollow(request: FollowRequest): Promise<void>;
  /** Asks a former owner what it did; fails with what that says. */
  askAccount(question: AccountQuestion): Promise<Account>;
  /** Compares a group with a peer's replica of it, or a replica with its owner; or tells how that fares. */
  verify(request: VerifyRequest): Promise<VerifyReport | null>;
  /** Ends everything; nothing of it runs in the engine when it fulfils. */
  close(request: null): Promise<void>;
}

export interface LinkEvents {
  /** Stores a peer, durably; a failure is what the other side is told. */
  pair(request: { ticket: number; paired: Paired }): Promise<void>;
  inviteEnded(ended: { ticket: number; state: InviteState }): void;
  audit(line: AuditLine): void;
  /** A session with a peer began or ended, or a call to it failed. */
  link(state: LinkState): void;
}

export interface DaemonCalls extends LinkEvents {
  /** Where the replica of a group is; it is made where there is none. `peer`: the owner's fingerprint. */
  place(wanted: { group: string; peer: string; description: Uint8Array }): Promise<Place>;
  /** What a peer that may says of a planned change of owner. */
  handover(said: { peer: string; message: HandoverMessage }): Promise<void>;
  /** A peer that may read the group asks who owns it now, as far as this site knows; null: nobody else. */
  succeededBy(question: SuccessorQuestion): Promise<Successor | null>;
  /** A peer that may read the group wants to be sent it. */
  follow(request: FollowRequest): Promise<void>;
  /** A peer that may read the group asks what this site did as its former owner. */
  accountOf(question: AccountQuestion): Promise<Account>;
  /** A peer refuses what this site sends as an owner. */
  fenced(what: { group: string; peer: string }): void;
}

export interface WorkerSetup {
  identity: Identity;
  /** For files of replication. */
  folder: string;
}
