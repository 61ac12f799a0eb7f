// The side that was invited: calls, checks whose key answers, proves the secret, and has the host prove it, too.

import { connect } from "node:tls";
import type { TLSSocket } from "node:tls";
import { HoldfastError, fromSystem } from "../../io-path/errors.js";
import { formatAddress } from "../address.js";
import { fingerprintOf } from "../identity.js";
import type { Identity } from "../identity.js";
import { keyHashOf } from "../invite.js";
import type { Invite } from "../invite.js";
import { HANDSHAKE_MS } from "../limits.js";
import type { Paired } from "./host.js";
import { Exchange, proofOf, sameProof, welcome } from "./messages.js";
import type { Site } from "./messages.js";

export interface PairingGuestOptions {
  identity: Identity;
  invite: Invite;
  site: Site;
  /** Stores the host durably. */
  accept: (host: Paired) => Promise<void>;
}

/** Fulfils when both sides have stored each other. */
export async function acceptInvite(options: PairingGuestOptions): Promise<void> {
  const where = formatAddress(options.invite.address);
  const socket = await call(options, where);
  const deadline = setTimeout(() => socket.destroy(), HANDSHAKE_MS);
  try {
    await pair(socket, options, where);
  } finally {
    clearTimeout(deadline);
    socket.end();
  }
}

async function call({ identity, invite }: PairingGuestOptions, where: string): Promise<TLSSocket> {
  const socket = connect({
    ...invite.address,
    cert: identity.certificate,
    key: identity.privateKey,
    // The certificate is unknown: `pair` compares its key with the invite's before a byte is sent.
    rejectUnauthorized: false,
    minVersion: "TLSv1.3",
    ALPNProtocols: ["holdfast-pair"],
    timeout: HANDSHAKE_MS,
  });
  return await new Promise<TLSSocket>((resolve, reject) => {
    socket.once("secureConnect", () => resolve(socket.setTimeout(0)));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("it hung up")));
    socket.once("timeout", () => socket.destroy(new Error("no answer")));
  }).catch((error: unknown) => {
    const reason = fromSystem(error, `calling ${where}`).message;
    const hint = "is the invite still open (10 minutes, one use), and does the address lead there?";
    throw new HoldfastError("Unavailable", reason, hint);
  });
}

async function pair(socket: TLSSocket, options: PairingGuestOptions, where: string): Promise<void> {
  const { identity, invite, site, accept } = options;
  const certificate = socket.getPeerX509Certificate();
  const fingerprint = certificate === undefined ? "" : fingerprintOf(certificate);
  if (certificate === undefined || !keyHashOf(fingerprint).equals(invite.keyHash)) {
    throw new HoldfastError(
      "Denied",
      `${where} answers with another key than the invite names`,
      "somebody else listens there: look at the address before you try again",
    );
  }
  const keys = { guest: fingerprintOf(identity.certificate), host: fingerprint };
  if (keys.guest === keys.host) throw new HoldfastError("Invalid", "this is the daemon that made the invite");
  const exchange = new Exchange(socket);
  exchange.send({ proof: proofOf("guest", invite.secret, socket, keys), ...site });
  const answer = await exchange.receive(welcome);
  if ("refused" in answer) {
    const hint = "make a new one at the other site: holdfast peer pair --invite";
    throw new HoldfastError(answer.refused, `${where} refused: ${answer.message}`, hint);
  }
  const { proof, ...host } = answer;
  if (!sameProof(proof, proofOf("host", invite.secret, socket, keys))) {
    throw new HoldfastError("Denied", `${where} does not know the secret of the invite`);
  }
  await accept({
    site: host,
    fingerprint,
    certificate: certificate.toString(),
    seenAt: socket.remoteAddress ?? invite.address.host,
  });
  exchange.send({ done: true });
}
