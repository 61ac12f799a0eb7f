// The daemon's peers: who they are, how they become peers, what they may do. The sockets are the worker's.
//
// - peers.json is written before anything depends on it: before the other side of a pairing is told, before a removed
//   peer's connections end.
// - The worker is started with the first need of it: a daemon without peers has no thread for them.

import { HoldfastError } from "../io-path/errors.js";
import { formatAddress, parseAddress, reachableAs } from "../nearsync-lws/address.js";
import type { AuditLine } from "../nearsync-lws/audit.js";
import { fingerprintOf } from "../nearsync-lws/identity.js";
import type { InviteState, Paired } from "../nearsync-lws/pairing/host.js";
import type { LinkState } from "../nearsync-lws/transport/sessions.js";
import type { Site } from "../nearsync-lws/pairing/messages.js";
import { ROLES_DEFAULT, requirePeer, rolesFor, withChanged, withPaired } from "../nearsync-lws/peers.js";
import type { Peer, Role } from "../nearsync-lws/peers.js";
import type { DaemonCalls, LinkEvents, WorkerCalls } from "../nearsync-lws/worker-api.js";
import { PeerWorker } from "../nearsync-lws/worker-host.js";
import type { Config } from "./config.js";
import { toErrorBody } from "./failure.js";
import type { Log } from "./log.js";
import { checkName, nameFrom } from "./names.js";
import { ownIdentity, readPeers, writePeers } from "./peers-file.js";
import type {
  PeerAnswer,
  PeerInviteAnswer,
  PeerInviteRequest,
  PeerInviteStatus,
  PeerJoinRequest,
  PeerPairRequest,
  PeerSetRequest,
} from "./protocol.js";
import type { StateFolder } from "./state-folder.js";

export interface PeersOptions {
  folder: StateFolder;
  config: Config["replication"];
  log: Log;
  /** What the worker asks of the daemon beside what is here. */
  serves: Omit<DaemonCalls, keyof LinkEvents>;
}

/** A pairing that is under way or was, lately. */
interface Pairing {
  request: PeerPairRequest;
  state: InviteState;
  fingerprint: string | undefined;
  ended: Promise<void>;
  end(): void;
}

/** Pairings whose outcome can still be asked for. */
const PAIRINGS_KEPT = 16;

export class Peers {
  readonly #options: PeersOptions;
  readonly #pairings = new Map<number, Pairing>();
  readonly #links = new Map<string, LinkState>();
  #listening: string | undefined;
  #problem: string | undefined;
  #peers: Peer[] = [];
  #worker: PeerWorker | undefined;
  #newest = 0;
  #started = false;
  #stopped = false;

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  /** Listens and calls, if there is where or whom. What fails is shown in `status`, and the daemon serves on. */
  async start(): Promise<void> {
    const { folder, config, log } = this.#options;
    this.#peers = readPeers(folder);
    this.#started = true;
    if (this.#peers.length === 0 && config.listen === undefined) return;
    await this.#configure().catch((error: unknown) => {
      this.#problem = toErrorBody(error).message;
      log.error({ reason: this.#problem }, "peers cannot connect");
    });
  }

  /** Sentences for the administrator. */
  warnings(): string[] {
    const lost = this.#peers.filter((peer) => this.#links.get(peer.fingerprint)?.connected === false);
    return [
      ...(this.#problem === undefined ? [] : [this.#problem]),
      ...lost.map(
        ({ name, fingerprint }) =>
          `peer ${name} is not connected: ${this.#links.get(fingerprint)?.reason ?? ""}`,
      ),
    ];
  }

  /** For good: whoever asks for something still does not begin another worker. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.close();
  }

  /** `NotFound`: there is no such peer. */
  require(name: string): Peer {
    return requirePeer(this.#peers, name);
  }

  /** `NotFound`: it is no peer any more. */
  requireKey(fingerprint: string): void {
    if (this.#peers.some((peer) => peer.fingerprint === fingerprint)) return;
    throw new HoldfastError("NotFound", "the peer was removed", "pair it again, or unprotect the group");
  }

  /** Whether the peer may do this with the group, as this site sees it. */
  has(fingerprint: string, role: Role, group: string): boolean {
    const peer = this.#peers.find((one) => one.fingerprint === fingerprint);
    return peer !== undefined && rolesFor(peer, group).includes(role);
  }

  /** The replica of a group was promoted. A worker that does not run tells when the owner offers it again. */
  async promoted(group: string): Promise<void> {
    await this.#worker?.call("fence", { group }).catch((error: unknown) => {
      this.#options.log.debug(error, "the former owner was not told");
    });
  }

  isConnected(fingerprint: string): boolean {
    return this.#links.get(fingerprint)?.connected === true;
  }

  /** What this site calls it; of one that was removed, its key. */
  nameOf(fingerprint: string): string {
    return this.#peers.find((peer) => peer.fingerprint === fingerprint)?.name ?? fingerprint;
  }

  /** Asks the worker; one that took the place of a failed one is told first what holds. */
  async call<K extends keyof WorkerCalls>(
    method: K,
    argument: Parameters<WorkerCalls[K]>[0],
  ): Promise<Awaited<ReturnType<WorkerCalls[K]>>> {
    if (this.#worker === undefined && this.#started) await this.#configure();
    return await this.#workerNow().call(method, argument);
  }

  answers(): PeerAnswer[] {
    return this.#peers.map((peer) => this.#answer(peer));
  }

  async invite(request: PeerInviteRequest): Promise<PeerInviteAnswer> {
    const listen = request.listen ?? this.#inviteAddress();
    if (request.name !== undefined) checkName("peer", request.name);
    const ticket = this.#begin(request);
    try {
      const worker = this.#workerNow();
      const opened = await worker.call("invite", {
        ticket,
        listen,
        advertise: request.address,
        site: this.#site(),
      });
      const { certificate } = ownIdentity(this.#options.folder);
      return {
        id: ticket,
        invite: opened.invite,
        address: opened.address,
        fingerprint: fingerprintOf(certificate),
        expiresSeconds: Math.floor((Date.now() + opened.lifeMs) / 1000),
      };
    } catch (error) {
      this.#pairings.delete(ticket);
      throw error;
    }
  }

  async inviteStatus(id: number, waitMs: number): Promise<PeerInviteStatus> {
    const pairing = this.#pairings.get(id);
    if (pairing === undefined) throw new HoldfastError("NotFound", `there is no invite ${id} any more`);
    if (pairing.state === "open" && waitMs > 0) {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, waitMs);
      });
      await Promise.race([pairing.ended, late]);
      clearTimeout(timer);
    }
    const peer = this.#peers.find(({ fingerprint }) => fingerprint === pairing.fingerprint);
    return { id, state: pairing.state, peer: peer === undefined ? null : this.#answer(peer) };
  }

  async closeInvite(id: number): Promise<void> {
    await this.#worker?.call("closeInvite", { ticket: id });
  }

  async join({ invite, ...request }: PeerJoinRequest): Promise<PeerAnswer> {
    if (request.name !== undefined) checkName("peer", request.name);
    const ticket = this.#begin(request);
    try {
      await this.#workerNow().call("join", { ticket, invite, site: this.#site() });
      const paired = this.#pairings.get(ticket)?.fingerprint;
      const peer = this.#peers.find(({ fingerprint }) => fingerprint === paired);
      if (peer === undefined) throw new HoldfastError("Conflict", "the peer was removed while it was paired");
      return this.#answer(peer);
    } finally {
      this.#pairings.delete(ticket);
    }
  }

  async set(name: string, change: PeerSetRequest): Promise<PeerAnswer> {
    if (change.name !== undefined) checkName("peer", change.name);
    for (const address of change.addresses ?? []) parseAddress(address);
    const { fingerprint } = requirePeer(this.#peers, name);
    await this.#store(withChanged(this.#peers, name, change));
    this.#audit({ event: "peer changed", peer: change.name ?? name, fingerprint });
    return this.#answer(requirePeer(this.#peers, change.name ?? name));
  }

  /** Its connections have ended when it fulfils. */
  async remove(name: string): Promise<void> {
    const gone = requirePeer(this.#peers, name);
    await this.#store(this.#peers.filter((peer) => peer !== gone));
    this.#links.delete(gone.fingerprint);
    this.#audit({ event: "peer removed", peer: name, fingerprint: gone.fingerprint });
  }

  #begin(request: PeerPairRequest): number {
    this.#newest += 1;
    const pairing: Pairing = {
      request,
      state: "open",
      fingerprint: undefined,
      ended: Promise.resolve(),
      end: () => undefined,
    };
    pairing.ended = new Promise((resolve) => {
      pairing.end = resolve;
    });
    this.#pairings.set(this.#newest, pairing);
    for (const [id, { state }] of this.#pairings) {
      if (this.#pairings.size > PAIRINGS_KEPT && state !== "open") this.#pairings.delete(id);
    }
    return this.#newest;
  }

  #inviteAddress(): string {
    const { listen } = this.#options.config;
    if (listen !== undefined) return formatAddress({ ...parseAddress(listen), port: 0 });
    throw new HoldfastError(
      "Invalid",
      "nothing says where to listen for the invited site",
      "name it: --listen HOST:PORT (port 0: one that is free), or set replication.listen in the configuration",
    );
  }

  #site(): Site {
    const { site, listen, advertise } = this.#options.config;
    const address = advertise ?? this.#listening ?? listen;
    return { name: site, addresses: address === undefined ? [] : [address] };
  }

  #workerNow(): PeerWorker {
    if (this.#stopped) throw new HoldfastError("Closed", "the daemon is stopping");
    const { folder, log } = this.#options;
    this.#worker ??= new PeerWorker(
      { identity: ownIdentity(folder), folder: folder.at(".") },
      this.#calls(),
      (reason) => {
        log.error({ reason }, "the thread that talks to peers failed");
        this.#worker = undefined;
      },
    );
    return this.#worker;
  }

  #calls(): DaemonCalls {
    return {
      pair: async ({ ticket, paired }) => this.#pair(ticket, paired),
      inviteEnded: ({ ticket, state }) => {
        const pairing = this.#pairings.get(ticket);
        if (pairing === undefined) return;
        pairing.state = state;
        pairing.end();
      },
      audit: (line) => this.#audit(line),
      link: (state) => this.#link(state),
      ...this.#options.serves,
    };
  }

  #link(state: LinkState): void {
    const before = this.#links.get(state.fingerprint);
    const peer = this.#peers.find(({ fingerprint }) => fingerprint === state.fingerprint)?.name;
    if (peer === undefined) return;
    this.#links.set(state.fingerprint, state);
    if (before?.connected === state.connected && before.reason === state.reason) return;
    if (state.connected) this.#options.log.info({ peer }, "peer connected");
    else this.#options.log.info({ peer, reason: state.reason }, "peer not connected");
  }

  async #pair(ticket: number, { site, fingerprint, certificate, seenAt }: Paired): Promise<void> {
    const pairing = this.#pairings.get(ticket);
    if (pairing === undefined) throw new HoldfastError("Denied", "the invite is over");
    const { name, roles } = pairing.request;
    const addresses = site.addresses.map((text) => formatAddress(reachableAs(parseAddress(text), seenAt)));
    const peer: Peer = {
      name: name ?? nameFrom(site.name),
      fingerprint,
      certificate,
      addresses,
      roles: roles ?? [...ROLES_DEFAULT],
      groupRoles: {},
      pairedSeconds: Math.floor(Date.now() / 1000),
    };
    await this.#store(withPaired(this.#peers, peer, { named: name !== undefined }));
    pairing.fingerprint = fingerprint;
    this.#audit({ event: "peer paired", peer: peer.name, fingerprint, from: seenAt });
  }

  /** Durable first, then the worker is told. */
  async #store(peers: Peer[]): Promise<void> {
    writePeers(this.#options.folder, peers);
    this.#peers = peers;
    await this.#configure();
  }

  async #configure(): Promise<void> {
    const { listen, site } = this.#options.config;
    const { listening } = await this.#workerNow().call("configure", { peers: this.#peers, listen, site });
    this.#listening = listening ?? undefined;
    this.#problem = undefined;
  }

  #answer(peer: Peer): PeerAnswer {
    const { name, fingerprint, addresses, roles, groupRoles, pairedSeconds } = peer;
    const link = this.#links.get(fingerprint);
    const connected = link?.connected === true;
    const known = { name, fingerprint, addresses, roles, groupRoles, pairedSeconds };
    return { ...known, connected, problem: link?.reason ?? "" };
  }

  #audit(line: AuditLine): void {
    this.#options.log.warn({ audit: true, ...line }, line.event);
  }
}
