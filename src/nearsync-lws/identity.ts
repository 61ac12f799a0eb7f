// Who a daemon is to its peers: the SHA-256 of its public key. Certificates are the form in which TLS carries a key;
// nothing else in them is looked at.

import { X509Certificate, createHash, createPrivateKey } from "node:crypto";
import { native, unwrap } from "../io-path/addon.js";
import { HoldfastError } from "../io-path/errors.js";

/** PEM both. */
export interface Identity {
  certificate: string;
  privateKey: string;
}

/** 64 hexadecimal digits. */
export type Fingerprint = string;

/** Bytes of a fingerprint that an invite carries: enough that nobody finds a second key for it. */
export const KEY_HASH_BYTES = 16;

export function createIdentity(): Identity {
  const { certificate, privateKey } = unwrap(native.identityCreate());
  return { certificate: toPem("CERTIFICATE", certificate), privateKey: toPem("PRIVATE KEY", privateKey) };
}

/** SHA-256 of the SubjectPublicKeyInfo. */
export function fingerprintOf(certificate: string | Buffer | X509Certificate): Fingerprint {
  const parsed = certificate instanceof X509Certificate ? certificate : new X509Certificate(certificate);
  return createHash("sha256")
    .update(parsed.publicKey.export({ type: "spki", format: "der" }))
    .digest("hex");
}

/** `Corrupt` when the parts cannot be read or do not belong together. */
export function checkIdentity(identity: Identity, what: string): Identity {
  const hint = "put it back from a backup; without it every peer must be paired again";
  try {
    const key = createPrivateKey(identity.privateKey);
    if (new X509Certificate(identity.certificate).checkPrivateKey(key)) return identity;
  } catch (error) {
    throw new HoldfastError("Corrupt", `${what}: ${String((error as Error).message)}`, hint);
  }
  throw new HoldfastError("Corrupt", `${what}: the certificate is of another key`, hint);
}

function toPem(label: string, der: Uint8Array): string {
  const lines = Buffer.from(der)
    .toString("base64")
    .replace(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}
