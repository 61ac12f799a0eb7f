// TLS between paired daemons: 1.3 only, both ends show a certificate, and only pinned keys pass.
//
// - `ca` holds the pins and `rejectUnauthorized` is on, so OpenSSL ends the handshake of a stranger before a byte of
//   ours goes out. On top, `requirePeer` compares the key on *every* connection: a resumed session skips what the
//   certificate's check would do, so resumed ones are refused, and no session is ever kept or passed.

import { constants } from "node:crypto";
import type { SecureContextOptions, TLSSocket, TlsOptions } from "node:tls";
import { HoldfastError } from "../../io-path/errors.js";
import { fingerprintOf } from "../identity.js";
import type { Identity } from "../identity.js";
import { HANDSHAKE_MS } from "../limits.js";
import type { Peer } from "../peers.js";
import { EXPORTER_BYTES, EXPORTER_LABEL } from "../wire/handshake.js";

/** `pins`: the certificates that may stand at the other end. Without any, only our own: nobody else has its key. */
export function contextOptions(identity: Identity, pins: readonly string[]): SecureContextOptions {
  return {
    cert: identity.certificate,
    key: identity.privateKey,
    ca: pins.length > 0 ? [...pins] : [identity.certificate],
    minVersion: "TLSv1.3",
    maxVersion: "TLSv1.3",
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

export function serverOptions(identity: Identity, pins: readonly string[]): TlsOptions {
  return {
    ...contextOptions(identity, pins),
    requestCert: true,
    rejectUnauthorized: true,
    handshakeTimeout: HANDSHAKE_MS,
  };
}

/** Which of the peers is at the other end; `Denied` when none is. */
export function requirePeer(socket: TLSSocket, peers: readonly Peer[]): Peer {
  if (!socket.authorized) throw new HoldfastError("Denied", "the certificate is not one of a peer");
  if (socket.isSessionReused())
    throw new HoldfastError("Denied", "a session ticket in place of a certificate");
  const certificate = socket.getPeerX509Certificate();
  const fingerprint = certificate === undefined ? "" : fingerprintOf(certificate);
  const peer = peers.find((known) => known.fingerprint === fingerprint);
  if (peer === undefined) throw new HoldfastError("Denied", "the key is not one of a peer");
  return peer;
}

export function exporterOf(socket: TLSSocket): Buffer {
  return socket.exportKeyingMaterial(EXPORTER_BYTES, EXPORTER_LABEL, Buffer.alloc(0));
}
