// What the daemon's thread asks of the worker that owns the sockets, and the worker of it. Plain data both ways.

import type { AuditLine } from "./audit.js";
import type { Identity } from "./identity.js";
import type { InviteState, Paired } from "./pairing/host.js";
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

export interface WorkerCalls {
  /** An invite that is open still is closed first. */
  invite(request: InviteRequest): Promise<OpenInvite>;
  closeInvite(request: { ticket: number }): void;
  /** Fulfils when both sides have stored each other. */
  join(request: JoinRequest): Promise<void>;
}

export interface DaemonCalls {
  /** Stores a peer, durably; a failure is what the other side is told. */
  pair(request: { ticket: number; paired: Paired }): Promise<void>;
  inviteEnded(ended: { ticket: number; state: InviteState }): void;
  audit(line: AuditLine): void;
}

export interface WorkerSetup {
  identity: Identity;
}
