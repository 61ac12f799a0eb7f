// From two authenticated sockets to a session. The order, on the control socket and then on the bulk socket:
//
//   control  server  hello      what it can do, a nonce
//   control  client  hello      the same
//   control  client  proof      that it saw both hellos as they are
//   control  server  proof      the same; or refuse, with the reason
//   bulk     server  bulk       a nonce
//   bulk     client  join       which session, and that it has its key
//   control  server  ready      both sockets are one session
//
// The server speaks first, after TLS: it has no byte for a stranger, and the client tells it nothing that it would not
// tell anybody. See wire/handshake.ts for what is proved.

import { randomBytes } from "node:crypto";
import { HoldfastError } from "../../io-path/errors.js";
import type { Audit } from "../audit.js";
import type { Peer } from "../peers.js";
import { decodeMessage, encodeMessage } from "../wire/control.js";
import type { Body, MessageType } from "../wire/control.js";
import { agree, joinProof, requireSame, sessionKeys } from "../wire/handshake.js";
import type { Abilities } from "../wire/handshake.js";
import type { Channel } from "./channel.js";
import { Session } from "./session.js";

export interface Self {
  site: string;
  abilities: Abilities;
  audit: Audit;
  /** From the first byte to the session. */
  handshakeMs: number;
}

/** Control messages that each side has sent when the session begins. */
const SERVER_MESSAGES = 3;
const CLIENT_MESSAGES = 2;

/** Control sockets whose second socket is due, by the session's id. */
export class Waiting {
  readonly #sessions = new Map<string, { key: Buffer; peer: Peer; joined: (bulk: Channel) => void }>();

  /** Fulfils with the bulk socket; ends with the control socket. */
  async join(id: Buffer, key: Buffer, peer: Peer, control: Channel): Promise<Channel> {
    const name = id.toString("hex");
    const joined = new Promise<Channel>((resolve) => {
      this.#sessions.set(name, { key, peer, joined: resolve });
    });
    const gone = new Promise<never>((_resolve, reject) => {
      control.tls.once("close", () =>
        reject(new HoldfastError("Unavailable", "it went before it was ready")),
      );
    });
    try {
      return await Promise.race([joined, gone]);
    } finally {
      this.#sessions.delete(name);
    }
  }

  /** Once for each session; `Denied` when the peer, the session or the proof does not fit. */
  take(bulk: Channel, peer: Peer, nonce: Buffer, { session, mac }: Body<"join">): void {
    const name = Buffer.from(session).toString("hex");
    const waiting = this.#sessions.get(name);
    if (waiting?.peer.fingerprint !== peer.fingerprint) {
      throw new HoldfastError("Denied", "the bulk socket names a session that does not wait for it");
    }
    requireSame(mac, joinProof(waiting.key, bulk.exporter, nonce), "the bulk socket's proof");
    this.#sessions.delete(name);
    waiting.joined(bulk);
  }
}

export async function serveControl(
  control: Channel,
  peer: Peer,
  self: Self,
  waiting: Waiting,
): Promise<Session> {
  const serverHello = encodeMessage("hello", 0, helloOf(self));
  control.send(serverHello);
  const clientHello = await control.receive();
  const theirs = expect(clientHello, 0, "hello");
  const agreement = refusing(control, () => agree(self.abilities, theirs));
  const keys = sessionKeys(control.exporter, serverHello, clientHello);
  const proof = expect(await control.receive(), 1, "proof");
  refusing(control, () => requireSame(proof.mac, keys.clientProof, "the peer's proof"));
  const joined = waiting.join(keys.id, keys.key, peer, control);
  control.send(encodeMessage("proof", 1, { mac: keys.serverProof }));
  const bulk = await joined;
  control.send(encodeMessage("ready", 2, {}));
  return sessionOf(self, peer, { control, bulk, agreement, keys, site: theirs.site, dialed: false });
}

export async function serveBulk(bulk: Channel, peer: Peer, waiting: Waiting): Promise<void> {
  const nonce = randomBytes(16);
  bulk.send(encodeMessage("bulk", 0, { nonce }));
  waiting.take(bulk, peer, nonce, expect(await bulk.receive(), 0, "join"));
}

/** `openBulk` makes the second connection when the first one is proved. */
export async function callControl(
  control: Channel,
  peer: Peer,
  self: Self,
  openBulk: () => Promise<Channel>,
): Promise<Session> {
  const serverHello = await control.receive();
  const theirs = expect(serverHello, 0, "hello");
  const clientHello = encodeMessage("hello", 0, helloOf(self));
  control.send(clientHello);
  const agreement = agree(self.abilities, theirs);
  const keys = sessionKeys(control.exporter, serverHello, clientHello);
  control.send(encodeMessage("proof", 1, { mac: keys.clientProof }));
  const proof = expect(await control.receive(), 1, "proof");
  requireSame(proof.mac, keys.serverProof, "the peer's proof");
  const bulk = await openBulk();
  const { nonce } = expect(await bulk.receive(), 0, "bulk");
  const mac = joinProof(keys.key, bulk.exporter, nonce);
  bulk.send(encodeMessage("join", 0, { session: keys.id, mac }));
  expect(await control.receive(), 2, "ready");
  return sessionOf(self, peer, { control, bulk, agreement, keys, site: theirs.site, dialed: true });
}

interface Made {
  control: Channel;
  bulk: Channel;
  agreement: ReturnType<typeof agree>;
  keys: { id: Buffer };
  site: string;
  dialed: boolean;
}

function sessionOf({ audit }: Self, peer: Peer, { keys, dialed, ...made }: Made): Session {
  const [sent, received] = dialed ? [CLIENT_MESSAGES, SERVER_MESSAGES] : [SERVER_MESSAGES, CLIENT_MESSAGES];
  return new Session({ ...made, dialed, peer, id: keys.id.toString("hex"), sent, received, audit });
}

function helloOf({ site, abilities }: Self): Body<"hello"> {
  return {
    versions: [...abilities.versions],
    features: [...abilities.features],
    needs: [...abilities.needs],
    site,
    nonce: randomBytes(16),
  };
}

/** The body of a message that must be of this type; a refusal becomes the failure that it tells. */
function expect<T extends MessageType>(frame: Buffer, number: number, type: T): Body<T> {
  const message = decodeMessage(frame, number);
  if (message.type === "refuse")
    throw new HoldfastError(message.body.code, `the peer refused: ${message.body.message}`);
  if (message.type === type) return message.body as Body<T>;
  throw new HoldfastError("Invalid", `the peer sent ${message.type} where ${type} is due`);
}

/** Runs a check of the server; what it fails with goes to the client, too. */
function refusing<T>(control: Channel, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof HoldfastError && (error.code === "Denied" || error.code === "Unavailable")) {
      const body = { code: error.code, message: error.message };
      control.end(encodeMessage("refuse", 1, body));
    }
    throw error;
  }
}
