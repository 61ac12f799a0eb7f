// Calls a peer: two TLS connections to one address, which become a session, all within the handshake's deadline.

import { X509Certificate } from "node:crypto";
import { connect } from "node:tls";
import type { TLSSocket } from "node:tls";
import WebSocket from "ws";
import { HoldfastError, fromSystem } from "../../io-path/errors.js";
import { formatAddress } from "../address.js";
import type { Address } from "../address.js";
import { fingerprintOf } from "../identity.js";
import type { Identity } from "../identity.js";
import { BULK_BYTES_MAX, CONTROL_BYTES_MAX } from "../limits.js";
import type { Peer } from "../peers.js";
import { Channel, socketOptions } from "./channel.js";
import { callControl } from "./handshake.js";
import type { Self } from "./handshake.js";
import { PATHS } from "./listener.js";
import type { Session } from "./session.js";
import { contextOptions, requirePeer } from "./tls.js";

export interface DialOptions {
  identity: Identity;
  peer: Peer;
  address: Address;
  self: Self;
  /** Aborts: what is under way ends. */
  signal: AbortSignal;
}

export async function dial(options: DialOptions): Promise<Session> {
  const where = `peer ${options.peer.name} at ${formatAddress(options.address)}`;
  const open: Channel[] = [];
  const end = (reason: string) => {
    for (const channel of open) channel.close(reason);
  };
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(options.self.handshakeMs)]);
  const late = () => end("no session in time");
  signal.addEventListener("abort", late, { once: true });
  const channel = async (path: string, bytesMax: number) => {
    const made = await openChannel(options, signal, path, bytesMax);
    open.push(made);
    return made;
  };
  try {
    const control = await channel(PATHS.control, CONTROL_BYTES_MAX);
    return await callControl(control, options.peer, options.self, () => channel(PATHS.bulk, BULK_BYTES_MAX));
  } catch (error) {
    end("the handshake failed");
    const failure = fromSystem(error, where);
    const code = failure.code === "Internal" ? "Unavailable" : failure.code;
    throw new HoldfastError(code, failure.message, failure.hint);
  } finally {
    signal.removeEventListener("abort", late);
  }
}

async function openChannel(
  options: DialOptions,
  signal: AbortSignal,
  path: string,
  bytesMax: number,
): Promise<Channel> {
  const tls = await openTls(options, signal);
  const socket = new WebSocket(`ws://holdfast${path}`, {
    ...socketOptions(bytesMax),
    // Masks guard proxies that take WebSockets for HTTP; here TLS does. Under zeroes nothing has to be changed.
    generateMask: (mask) => void mask.fill(0),
    createConnection: () => tls,
  });
  return await new Promise<Channel>((resolve, reject) => {
    const fail = (error: Error) => {
      tls.destroy();
      reject(error);
    };
    // Messages may come with the answer to the upgrade: the channel listens before `open` returns.
    socket.once("open", () => resolve(new Channel(socket, tls)));
    socket.once("error", fail);
    tls.once("close", () => fail(new HoldfastError("Unavailable", "it hung up", STILL_A_PEER)));
  });
}

const STILL_A_PEER = "does the other site still list this daemon (holdfast peer list)?";

async function openTls({ identity, peer, address }: DialOptions, signal: AbortSignal): Promise<TLSSocket> {
  const socket = connect({
    ...contextOptions(identity, [peer.certificate]),
    ...address,
    rejectUnauthorized: true,
    // Names mean nothing here; the key does. It is compared again below: this is not called for resumed sessions.
    checkServerIdentity: (_host, { raw }) =>
      fingerprintOf(new X509Certificate(raw)) === peer.fingerprint ? undefined : new Error("another key"),
  });
  const abort = () => socket.destroy(new HoldfastError("Unavailable", "no answer in time"));
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("secureConnect", resolve);
      socket.on("error", reject);
      socket.once("close", () => reject(new HoldfastError("Unavailable", "it hung up", STILL_A_PEER)));
    });
    requirePeer(socket, [peer]);
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
