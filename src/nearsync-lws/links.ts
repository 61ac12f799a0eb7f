// Everything that has a socket to another site, in one place: sessions, the listener for them, the invite's listener
// now and then, calls to an invite.
// It runs in the worker; tests run it without one.

import { networkInterfaces } from "node:os";
import { formatAddress, isWildcard, parseAddress } from "./address.js";
import type { Address } from "./address.js";
import { Admission } from "./admission.js";
import { HoldfastError } from "../io-path/errors.js";
import type { AuditLine } from "./audit.js";
import { fingerprintOf } from "./identity.js";
import type { Identity } from "./identity.js";
import { createInvite, parseInvite, writeInvite } from "./invite.js";
import { HANDSHAKE_MS, INVITE_MS } from "./limits.js";
import { acceptInvite } from "./pairing/guest.js";
import { PairingHost } from "./pairing/host.js";
import type { Peer } from "./peers.js";
import { systemClock, systemRng } from "./seams.js";
import type { Clock, Rng } from "./seams.js";
import type { Self } from "./transport/handshake.js";
import { Listener } from "./transport/listener.js";
import type { Session } from "./transport/session.js";
import { Sessions } from "./transport/sessions.js";
import type { Work } from "./transport/alive.js";
import { OURS } from "./wire/handshake.js";
import type { Abilities } from "./wire/handshake.js";
import type {
  Configuration,
  InviteRequest,
  JoinRequest,
  LinkCalls,
  LinkEvents,
  OpenInvite,
} from "./worker-api.js";

/** The daemon's side, however it is reached; nothing is awaited but `pair`. */
export type Daemon = {
  [K in keyof LinkEvents]: (argument: Parameters<LinkEvents[K]>[0]) => unknown;
};

export interface LinksOptions {
  identity: Identity;
  daemon: Daemon;
  /** What a session is for; without: only heartbeats. */
  begin?: (session: Session) => Work;
  clock?: Clock;
  rng?: Rng;
  /** The deadline of a connection to become a session. */
  handshakeMs?: number;
  /** What we say that we can do; for tests of versions to come. */
  abilities?: Abilities;
}

export class Links implements LinkCalls {
  readonly #identity: Identity;
  readonly #daemon: Daemon;
  readonly #admission: Admission;
  readonly #self: Self;
  readonly #sessions: Sessions;
  #listener: { wanted: string; listener: Listener } | undefined;
  #open: { ticket: number; host: PairingHost } | undefined;

  constructor({ identity, daemon, ...options }: LinksOptions) {
    const audit = (line: AuditLine) => void daemon.audit(line);
    this.#identity = identity;
    this.#daemon = daemon;
    this.#admission = new Admission(audit, options.handshakeMs);
    const { abilities = OURS, handshakeMs = HANDSHAKE_MS } = options;
    this.#self = { site: "", abilities, audit, handshakeMs };
    this.#sessions = new Sessions({
      identity,
      fingerprint: fingerprintOf(identity.certificate),
      self: this.#self,
      clock: options.clock ?? systemClock,
      rng: options.rng ?? systemRng,
      begin: options.begin ?? (() => idle),
      changed: (state) => void daemon.link(state),
    });
  }

  get sessions(): Sessions {
    return this.#sessions;
  }

  async configure({ peers, listen, site }: Configuration): Promise<{ listening: string | null }> {
    this.#self.site = site;
    this.#listener?.listener.setPeers(peers);
    this.#sessions.setPeers(peers);
    if (this.#listener?.wanted !== listen) {
      await this.#listener?.listener.close();
      this.#listener = undefined;
      if (listen !== undefined)
        this.#listener = { wanted: listen, listener: await this.#listen(listen, peers) };
    }
    const listening = this.#listener?.listener.address;
    return { listening: listening === undefined ? null : formatAddress(listening) };
  }

  async #listen(listen: string, peers: readonly Peer[]): Promise<Listener> {
    return await Listener.open({
      identity: this.#identity,
      peers,
      listen: parseAddress(listen, "replication.listen"),
      admission: this.#admission,
      self: this.#self,
      established: (session) => this.#sessions.offer(session),
    });
  }

  async invite({ ticket, listen, advertise, site }: InviteRequest): Promise<OpenInvite> {
    this.#open?.host.close();
    this.#open = undefined;
    const where = parseAddress(listen, "--listen");
    const named = advertise === undefined ? undefined : parseAddress(advertise, "--address");
    const invite = createInvite(where, fingerprintOf(this.#identity.certificate));
    const host = await PairingHost.open({
      identity: this.#identity,
      secret: invite.secret,
      listen: where,
      site,
      admission: this.#admission,
      accept: async (paired) => void (await this.#daemon.pair({ ticket, paired })),
      ended: (state) => void this.#daemon.inviteEnded({ ticket, state }),
      audit: (line) => void this.#daemon.audit(line),
    });
    this.#open = { ticket, host };
    const address = named ?? callable({ host: where.host, port: host.port });
    this.#daemon.audit({ event: "invite opened", from: formatAddress({ ...where, port: host.port }) });
    const said = { ...invite, address: { ...address, port: address.port === 0 ? host.port : address.port } };
    return { invite: writeInvite(said), address: formatAddress(said.address), lifeMs: INVITE_MS };
  }

  closeInvite({ ticket }: { ticket: number }): void {
    if (this.#open?.ticket === ticket) this.#open.host.close();
  }

  async join({ ticket, invite, site }: JoinRequest): Promise<void> {
    await acceptInvite({
      identity: this.#identity,
      invite: parseInvite(invite),
      site,
      accept: async (paired) => void (await this.#daemon.pair({ ticket, paired })),
    });
  }

  async close(): Promise<void> {
    this.#open?.host.close();
    this.#sessions.close();
    await this.#listener?.listener.close();
    this.#admission.close();
  }
}

/** A session without replication: heartbeats, and nothing that a peer could ask for. */
const idle: Work = {
  begun: () => undefined,
  beatGroups: () => [],
  acks: () => [],
  beat: () => undefined,
  beatAck: () => undefined,
  message: ({ type }) => {
    throw new HoldfastError("Invalid", `${type}: no group is replicated here`);
  },
  chunk: () => {
    throw new HoldfastError("Invalid", "a chunk: no group is replicated here");
  },
  closed: () => undefined,
};

/** For a listener on every interface: the first that others can see, else this machine's own. */
function callable(address: Address): Address {
  if (!isWildcard(address)) return address;
  const seen = Object.values(networkInterfaces())
    .flat()
    .find((at) => at !== undefined && !at.internal && (at.family === "IPv4" || address.host === "::"));
  return { host: seen?.address ?? "127.0.0.1", port: address.port };
}
