// One site: its links, what it replicates over them, and the engine behind that. It runs in the worker.

import { EngineDoor } from "./engine-door.js";
import { HoldfastError } from "../io-path/errors.js";
import { HeaderStore } from "./header-store.js";
import type { KnownHeaders } from "./header-store.js";
import { Links } from "./links.js";
import type { Daemon } from "./links.js";
import type { Point } from "./machines/door.js";
import type { Successor } from "./machines/return.js";
import { authorize } from "./peers.js";
import type { Peer, Role } from "./peers.js";
import type { Pipe } from "./replication/pipe.js";
import { Questions } from "./replication/questions.js";
import type { Account, AccountQuestion, FollowRequest, SuccessorQuestion } from "./replication/questions.js";
import type { VerifyReport } from "./proof/report.js";
import { Verifications } from "./proof/verifications.js";
import type { VerifyRequest } from "./proof/verifications.js";
import { Replication, portOf } from "./replication/replication.js";
import { systemClock } from "./seams.js";
import type { Work } from "./transport/alive.js";
import type {
  Configuration,
  DaemonCalls,
  InviteRequest,
  JoinRequest,
  LinkEvents,
  OpenInvite,
  ProtectRequest,
  ProtectionReport,
  WorkerCalls,
  WorkerSetup,
} from "./worker-api.js";

export class Site implements WorkerCalls {
  readonly #headers: HeaderStore;
  readonly #door: EngineDoor;
  readonly #replication: Replication;
  readonly #questions: Questions;
  readonly #links: Links;
  readonly #verifications: Verifications;
  #peers: readonly Peer[] = [];

  constructor({ identity, folder }: WorkerSetup, daemon: Daemon & Omit<DaemonCalls, keyof LinkEvents>) {
    const authorized = (fingerprint: string, role: Role, group: string) => {
      const peer = this.#peers.find((one) => one.fingerprint === fingerprint);
      if (peer === undefined) throw new HoldfastError("Denied", "the peer was removed");
      authorize(peer, role, group);
    };
    this.#headers = new HeaderStore(folder);
    this.#door = new EngineDoor({ clock: systemClock, headers: this.#headers, place: daemon.place });
    const { succeededBy, follow, accountOf } = daemon;
    const served = { succeededBy, follow, accountOf };
    this.#questions = new Questions({ clock: systemClock, authorize: authorized, ...served });
    this.#replication = new Replication({
      door: portOf(this.#door.call),
      clock: systemClock,
      authorize: authorized,
      handover: (peer, message) => void daemon.handover({ peer, message }),
      questions: this.#questions,
      fenced: (group, peer) => daemon.fenced({ group, peer }),
    });
    this.#verifications = new Verifications({
      clock: systemClock,
      authorize: authorized,
      place: (group) => this.#door.place(group),
      epochOf: (group, peer) => this.#replication.epochOf(group, peer),
      follower: (group, peer) => this.#replication.status(group, peer),
      force: (group) => this.#replication.force(group),
    });
    const begin = (session: Parameters<Replication["begin"]>[1] & { peer: Peer }) =>
      this.#begin(session.peer.fingerprint, session);
    this.#links = new Links({ identity, daemon, begin });
  }

  /** Replication, and comparing beside it. */
  #begin(peer: string, session: Pipe): Work {
    const work = this.#replication.begin(peer, session);
    this.#verifications.up(peer, session);
    return {
      ...work,
      message: (message) => {
        if (!this.#verifications.take(peer, session, message)) work.message(message);
      },
      closed: (reason) => {
        this.#verifications.down(peer, session);
        work.closed(reason);
      },
    };
  }

  configure(configuration: Configuration): Promise<{ listening: string | null }> {
    this.#peers = configuration.peers;
    return this.#links.configure(configuration);
  }

  invite(request: InviteRequest): Promise<OpenInvite> {
    return this.#links.invite(request);
  }

  closeInvite(request: { ticket: number }): void {
    this.#links.closeInvite(request);
  }

  join(request: JoinRequest): Promise<void> {
    return this.#links.join(request);
  }

  protect({ place, ...protection }: ProtectRequest): void {
    this.#door.set(protection.group, place);
    this.#replication.protect(protection);
  }

  unprotect({ group, peer }: { group: string; peer: string }): void {
    this.#replication.unprotect(group, peer);
  }

  announce({ group, point }: { group: string; point: Point }): void {
    this.#replication.announce(group, point);
  }

  async knownHeaders({ group }: { group: string }): Promise<KnownHeaders> {
    return (await this.#headers.of(group)).known();
  }

  reports(): ProtectionReport[] {
    const { sessions } = this.#links;
    return this.#replication
      .reports()
      .map((report) => ({ ...report, roundTripMs: sessions.roundTripMs(report.peer) }));
  }

  offerAgain({ group, peer }: { group: string; peer: string }): void {
    this.#replication.offerAgain(group, peer);
  }

  async ship(request: Parameters<WorkerCalls["ship"]>[0]): Promise<void> {
    await this.#replication.ship(request.group, request.peer, request.point, request.limitMs);
  }

  tell({ peer, message: { type, body } }: Parameters<WorkerCalls["tell"]>[0]): boolean {
    return this.#replication.tell(peer, type, body);
  }

  async release({ group }: { group: string }): Promise<void> {
    this.#replication.release(group);
    await this.#door.forget(group);
  }

  fence({ group }: { group: string }): void {
    this.#replication.fence(group);
  }

  receiving(): string[] {
    return this.#replication.receiving();
  }

  async successorOf(question: SuccessorQuestion): Promise<Successor | null> {
    return await this.#questions.succeededBy(this.#pipe(question.peer), question);
  }

  async askToFollow(request: FollowRequest): Promise<void> {
    await this.#questions.follow(this.#pipe(request.peer), request);
  }

  async askAccount(question: AccountQuestion): Promise<Account> {
    return await this.#questions.account(this.#pipe(question.peer), question);
  }

  #pipe(peer: string): Pipe {
    const pipe = this.#replication.pipe(peer);
    if (pipe !== undefined) return pipe;
    throw new HoldfastError("Unavailable", "the peer is not connected");
  }

  verify(request: VerifyRequest): Promise<VerifyReport | null> {
    return this.#verifications.run(request);
  }

  async close(): Promise<void> {
    this.#replication.close();
    await this.#verifications.close();
    await this.#links.close();
    await this.#door.close();
    await this.#headers.close();
  }
}
