// The side that invites: a listener that is open only while the invite is.
//
// - The invite ends at the first of: its time, one pairing, too many wrong proofs, `close`.
// - Before the proof holds, nothing is said of this site but that a proof was wrong.
// - The caller stores the guest, durably, before it is welcomed: a guest that was told so is known here.

import { createServer } from "node:tls";
import type { Server, TLSSocket } from "node:tls";
import type { AddressInfo, Socket } from "node:net";
import { HoldfastError, fromSystem } from "../../io-path/errors.js";
import type { Address } from "../address.js";
import { formatAddress } from "../address.js";
import type { Admission } from "../admission.js";
import type { Audit } from "../audit.js";
import { fingerprintOf } from "../identity.js";
import type { Fingerprint, Identity } from "../identity.js";
import { INVITE_MS, INVITE_TRIES_MAX } from "../limits.js";
import { Exchange, done, greeting, proofOf, refusalCode, sameProof } from "./messages.js";
import type { Site } from "./messages.js";

/** Somebody who proved the secret and the key. */
export interface Paired {
  site: Site;
  fingerprint: Fingerprint;
  /** PEM. */
  certificate: string;
  /** The address that it was seen at. */
  seenAt: string;
}

export type InviteState = "open" | "paired" | "expired" | "spent" | "closed";

export interface PairingHostOptions {
  identity: Identity;
  secret: Buffer;
  listen: Address;
  /** What to tell the guest of us; asked when it proved itself. */
  site: Site;
  /** Stores the guest durably, or fails with the reason that the guest is told. */
  accept: (guest: Paired) => Promise<void>;
  admission: Admission;
  ended: (state: InviteState) => void;
  audit: Audit;
  lifeMs?: number;
}

export class PairingHost {
  readonly #options: PairingHostOptions;
  readonly #fingerprint: Fingerprint;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #life: NodeJS.Timeout | undefined;
  #tries = 0;
  #busy = false;
  #state: InviteState = "open";

  private constructor(options: PairingHostOptions) {
    const { identity, audit } = options;
    this.#options = options;
    this.#fingerprint = fingerprintOf(identity.certificate);
    this.#server = createServer(
      {
        cert: identity.certificate,
        key: identity.privateKey,
        // Nobody is known before the proof; TLS still makes the guest prove that it has the key of what it shows.
        requestCert: true,
        rejectUnauthorized: false,
        minVersion: "TLSv1.3",
        maxVersion: "TLSv1.3",
        ALPNProtocols: ["holdfast-pair"],
      },
      (socket) => void this.#serve(socket),
    );
    this.#server.on("connection", (socket: Socket) => {
      if (!options.admission.accept(socket)) return;
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    this.#server.on("tlsClientError", (error, socket) => {
      audit({ event: "pairing refused", from: socket.remoteAddress, reason: error.message });
      socket.destroy();
    });
  }

  /** Listens; `lifeMs` from then on the invite is over. */
  static async open(options: PairingHostOptions): Promise<PairingHost> {
    const host = new PairingHost(options);
    await new Promise<void>((resolve, reject) => {
      host.#server.once("error", reject);
      host.#server.listen(options.listen, resolve);
    }).catch((error: unknown) => {
      throw fromSystem(error, `listening at ${formatAddress(options.listen)} for the invited site`);
    });
    host.#life = setTimeout(() => host.#end("expired"), options.lifeMs ?? INVITE_MS);
    return host;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get state(): InviteState {
    return this.#state;
  }

  close(): void {
    this.#end("closed");
  }

  async #serve(socket: TLSSocket): Promise<void> {
    const exchange = new Exchange(socket);
    try {
      await this.#pair(socket, exchange);
    } catch (error) {
      const failure = fromSystem(error, "pairing");
      this.#options.audit({ event: "pairing refused", from: socket.remoteAddress, reason: failure.message });
      exchange.send({ refused: refusalCode(failure.code), message: failure.message.slice(0, 500) });
      socket.end();
      if (this.#tries >= INVITE_TRIES_MAX) this.#end("spent");
    }
  }

  async #pair(socket: TLSSocket, exchange: Exchange): Promise<void> {
    const { secret, site, accept } = this.#options;
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) throw new HoldfastError("Denied", "the caller shows no certificate");
    const keys = { guest: fingerprintOf(certificate), host: this.#fingerprint };
    const { proof, ...guest } = await exchange.receive(greeting);
    if (this.#state !== "open" || this.#busy) throw new HoldfastError("Denied", "the invite is used");
    if (!sameProof(proof, proofOf("guest", secret, socket, keys))) {
      this.#tries += 1;
      throw new HoldfastError("Denied", "the secret of the invite is wrong");
    }
    this.#busy = true;
    try {
      const paired = { site: guest, fingerprint: keys.guest, certificate: certificate.toString() };
      await accept({ ...paired, seenAt: socket.remoteAddress ?? "" });
    } finally {
      this.#busy = false;
    }
    exchange.send({ proof: proofOf("host", secret, socket, keys), ...site });
    // The guest is stored and welcomed; whether it says so any more changes nothing here.
    await exchange.receive(done).catch(() => undefined);
    socket.end();
    this.#end("paired");
  }

  #end(state: InviteState): void {
    if (this.#state !== "open") return;
    this.#state = state;
    clearTimeout(this.#life);
    this.#server.close();
    // What was said last goes out still; the admission's deadline ends the rest of them.
    for (const socket of this.#sockets) if (state !== "paired" && state !== "spent") socket.destroy();
    this.#options.audit({ event: "invite closed", reason: state });
    this.#options.ended(state);
  }
}
