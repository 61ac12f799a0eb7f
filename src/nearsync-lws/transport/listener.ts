// Where peers connect. A stranger ends in TLS; what is left must ask for one of two WebSockets, within the deadline.

import { createServer } from "node:https";
import type { Server } from "node:https";
import type { IncomingMessage } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { WebSocketServer } from "ws";
import { HoldfastError, fromSystem } from "../../io-path/errors.js";
import { formatAddress } from "../address.js";
import type { Address } from "../address.js";
import type { Admission } from "../admission.js";
import type { Identity } from "../identity.js";
import { BULK_BYTES_MAX, CONTROL_BYTES_MAX, HANDSHAKE_MS, HTTP_HEADER_BYTES_MAX } from "../limits.js";
import type { Peer } from "../peers.js";
import { Channel, socketOptions } from "./channel.js";
import { Waiting, serveBulk, serveControl } from "./handshake.js";
import type { Self } from "./handshake.js";
import type { Session } from "./session.js";
import { contextOptions, requirePeer, serverOptions } from "./tls.js";

export interface ListenerOptions {
  identity: Identity;
  peers: readonly Peer[];
  listen: Address;
  admission: Admission;
  self: Self;
  established: (session: Session) => void;
}

export const PATHS = { control: "/v1/control", bulk: "/v1/bulk" };

export class Listener {
  readonly #options: ListenerOptions;
  readonly #server: Server;
  readonly #control = new WebSocketServer({ ...socketOptions(CONTROL_BYTES_MAX), noServer: true });
  readonly #bulk = new WebSocketServer({ ...socketOptions(BULK_BYTES_MAX), noServer: true });
  readonly #waiting = new Waiting();
  readonly #known = new Map<TLSSocket, Peer>();
  #peers: readonly Peer[];

  private constructor(options: ListenerOptions) {
    this.#options = options;
    this.#peers = options.peers;
    this.#server = createServer({
      ...serverOptions(options.identity, pinsOf(options.peers)),
      maxHeaderSize: HTTP_HEADER_BYTES_MAX,
      headersTimeout: HANDSHAKE_MS,
      requestTimeout: HANDSHAKE_MS,
    });
    const server = this.#server;
    server.on("connection", (socket: Socket) => void options.admission.accept(socket));
    // Before the HTTP parser is put on the socket.
    server.prependListener("secureConnection", (socket: TLSSocket) => this.#meet(socket));
    server.on("request", (request) =>
      this.#refuse(request.socket, "an HTTP request that asks for no WebSocket"),
    );
    // Of TLS and of HTTP.
    server.on("clientError", (error: Error & { reason?: string }, socket) => {
      this.#refuse(socket, error.reason ?? error.message);
    });
    server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
  }

  static async open(options: ListenerOptions): Promise<Listener> {
    const listener = new Listener(options);
    await new Promise<void>((resolve, reject) => {
      listener.#server.once("error", reject);
      listener.#server.listen(options.listen, resolve);
    }).catch((error: unknown) => {
      throw fromSystem(error, `listening for peers at ${formatAddress(options.listen)}`);
    });
    return listener;
  }

  get address(): Address {
    return { host: this.#options.listen.host, port: (this.#server.address() as AddressInfo).port };
  }

  /** From the next connection on these; sockets of others end at once. */
  setPeers(peers: readonly Peer[]): void {
    this.#peers = peers;
    this.#server.setSecureContext(contextOptions(this.#options.identity, pinsOf(peers)));
    for (const [socket, { fingerprint }] of this.#known) {
      if (!peers.some((peer) => peer.fingerprint === fingerprint)) socket.destroy();
    }
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#known.keys()) socket.destroy();
    this.#server.closeAllConnections();
    await closed;
  }

  #meet(socket: TLSSocket): void {
    try {
      this.#known.set(socket, requirePeer(socket, this.#peers));
      socket.once("close", () => this.#known.delete(socket));
    } catch (error) {
      this.#refuse(socket, (error as Error).message);
    }
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const peer = socket instanceof TLSSocket ? this.#known.get(socket) : undefined;
    if (!(socket instanceof TLSSocket) || peer === undefined) return void socket.destroy();
    const { control, bulk } = PATHS;
    const server = request.url === control ? this.#control : request.url === bulk ? this.#bulk : undefined;
    if (server === undefined) return this.#refuse(socket, "a WebSocket that is not served here");
    server.handleUpgrade(request, socket, head, (webSocket) => {
      void this.#serve(new Channel(webSocket, socket), peer, server === this.#control);
    });
  }

  async #serve(channel: Channel, peer: Peer, isControl: boolean): Promise<void> {
    const { admission, self, established } = this.#options;
    try {
      if (!isControl) {
        await serveBulk(channel, peer, this.#waiting);
        admission.admit(channel.tls);
        return;
      }
      const session = await serveControl(channel, peer, self, this.#waiting);
      admission.admit(channel.tls);
      established(session);
    } catch (error) {
      const reason = error instanceof HoldfastError ? error.message : String(error);
      self.audit({ event: "connection refused", from: channel.from, peer: peer.name, reason });
      if (!channel.ending) channel.close(reason);
    }
  }

  #refuse(socket: Duplex, reason: string): void {
    const from = socket instanceof TLSSocket ? socket.remoteAddress : undefined;
    const peer = socket instanceof TLSSocket ? this.#known.get(socket)?.name : undefined;
    this.#options.self.audit({ event: "connection refused", from, peer, reason });
    socket.destroy();
  }
}

function pinsOf(peers: readonly Peer[]): string[] {
  return peers.map(({ certificate }) => certificate);
}
