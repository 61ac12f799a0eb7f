// Sessions between paired daemons, in one process over loopback: who gets one, who does not, what ends one.

import assert from "node:assert/strict";
import { connect as connectTcp, createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { afterEach, describe, it } from "node:test";
import WebSocket from "ws";
import { formatAddress, parseAddress } from "../../src/nearsync-lws/address.js";
import { createIdentity } from "../../src/nearsync-lws/identity.js";
import type { Identity } from "../../src/nearsync-lws/identity.js";
import { CONTROL_BYTES_MAX, UNAUTHENTICATED_MAX } from "../../src/nearsync-lws/limits.js";
import type { Peer } from "../../src/nearsync-lws/peers.js";
import { Channel } from "../../src/nearsync-lws/transport/channel.js";
import { callControl } from "../../src/nearsync-lws/transport/handshake.js";
import type { Session } from "../../src/nearsync-lws/transport/session.js";
import type { Work } from "../../src/nearsync-lws/transport/alive.js";
import { encodeChunk } from "../../src/nearsync-lws/wire/chunk.js";
import { encodeMessage } from "../../src/nearsync-lws/wire/control.js";
import { OURS } from "../../src/nearsync-lws/wire/handshake.js";
import { until } from "../daemon-fixture.js";
import { TestSite, peerOf } from "./fixture.js";

const sites: TestSite[] = [];
const servers: Server[] = [];
function site(name: string, options: ConstructorParameters<typeof TestSite>[1] = {}): TestSite {
  const made = new TestSite(name, options);
  sites.push(made);
  return made;
}

afterEach(async () => {
  for (const made of sites.splice(0)) await made.links.close();
  for (const server of servers.splice(0)) server.close();
});

/** A listens and knows B; where it listens. */
async function listening(a: TestSite, ...peers: Peer[]): Promise<string> {
  const { listening } = await a.links.configure({ peers, listen: "127.0.0.1:0", site: a.name });
  assert.ok(listening !== null);
  return listening;
}

async function connected(a: TestSite, b: TestSite): Promise<[Session, Session]> {
  await listening(a, peerOf(b)).then((address) =>
    b.links.configure({ peers: [peerOf(a, [address])], site: b.name }),
  );
  return await sessionsOf(a, b);
}

async function sessionsOf(a: TestSite, b: TestSite): Promise<[Session, Session]> {
  return await until("both have the session", () => {
    const [one, other] = [a.links.sessions.with(b.fingerprint), b.links.sessions.with(a.fingerprint)];
    return (
      one !== undefined && other !== undefined && one.id === other.id && ([one, other] as [Session, Session])
    );
  });
}

/** Collects what comes. */
function recording(into: { work: string[] }): (session: Session) => Work {
  return () => ({
    begun: () => undefined,
    beatGroups: () => [],
    acks: () => [],
    beat: () => undefined,
    beatAck: () => undefined,
    message: ({ type }) => void into.work.push(type),
    chunk: ({ sequence, payload, last }) =>
      void into.work.push(`chunk ${sequence} ${payload.length} ${last}`),
    closed: (reason) => void into.work.push(`closed: ${reason}`),
  });
}

describe("a session", () => {
  it("is agreed on, carries messages and chunks in order, and answers heartbeats", async () => {
    const got = { work: [] as string[] };
    const a = site("north", { begin: recording(got) });
    const b = site("south", { begin: recording({ work: [] }) });
    const [, atB] = await connected(a, b);
    assert.deepEqual([atB.site, atB.agreement], ["north", { version: 1, features: ["batches"] }]);
    const chunk = {
      group: "ab".repeat(16),
      epochId: "cd".repeat(8),
      base: null,
      target: 7,
      stream: 1,
      cursor: Buffer.alloc(0),
    };
    atB.sendChunk({ ...chunk, sequence: 0, last: false, payload: Buffer.alloc(256 * 1024, 1) });
    atB.sendChunk({ ...chunk, sequence: 1, last: true, payload: Buffer.alloc(0) });
    await until("the chunks are there", () => got.work.length === 2);
    atB.send("credit", { group: chunk.group, stream: 1, bytesMax: 1 });
    await until("the message is there", () => got.work.length === 3);
    assert.deepEqual(got.work, ["chunk 0 262144 false", "chunk 1 0 true", "credit"]);
    await until("a heartbeat is answered", () => b.links.sessions.roundTripMs(a.fingerprint) !== null);
    assert.ok(atB.counters.bulkSent > 256 * 1024 && atB.counters.bulkReceived < 100);
  });

  it("is there with each of several peers that call", async () => {
    const [hub, ...others] = ["hub", "one", "two", "three"].map((name) => site(name));
    assert.ok(hub !== undefined);
    const address = await listening(hub, ...others.map((other) => peerOf(other)));
    for (const other of others) {
      await other.links.configure({ peers: [peerOf(hub, [address])], site: other.name });
      await sessionsOf(hub, other);
    }
  });

  it("is one, whoever calls first, and comes back after a break", async () => {
    const [a, b] = [site("a"), site("b")];
    const atA = await listening(a, peerOf(b));
    const { listening: atB } = await b.links.configure({
      peers: [peerOf(a, [atA])],
      listen: "127.0.0.1:0",
      site: "b",
    });
    await a.links.configure({ peers: [peerOf(b, [atB ?? ""])], listen: "127.0.0.1:0", site: "a" });
    const [first] = await sessionsOf(a, b);
    first.close("a test");
    const again = await until("a new session is up", async () => {
      const [next] = await sessionsOf(a, b);
      return next.id !== first.id && next;
    });
    assert.equal(again.closed, undefined);
  });

  it("ends at once when a peer is removed, and is not made again", async () => {
    const [a, b] = [site("a"), site("b")];
    const [atA, atB] = await connected(a, b);
    await a.links.configure({ peers: [], listen: "127.0.0.1:0", site: "a" });
    assert.equal(atA.closed, "it is no peer any more");
    await until("the other side notices", () => atB.closed !== undefined);
    await until("it is refused", () => a.audit.some(({ event }) => event === "connection refused"));
    assert.equal(a.links.sessions.with(b.fingerprint), undefined);
  });

  it("is refused between versions and features that do not fit, with the reason at both ends", async () => {
    const cases = [
      { abilities: { ...OURS, versions: [2, 3] as const }, says: "speaks protocol" },
      {
        abilities: { ...OURS, needs: ["batches", "metro"], features: ["batches", "metro"] },
        says: "needs metro",
      },
    ];
    for (const { abilities, says } of cases) {
      const [a, b] = [site("a"), site("b", { abilities })];
      const address = await listening(a, peerOf(b));
      await b.links.configure({ peers: [peerOf(a, [address])], site: "b" });
      const told = await until("b is told", () => b.linkStates.find(({ reason }) => reason.includes(says)));
      assert.equal(told.connected, false);
      assert.ok(a.audit.some(({ reason }) => reason?.includes(says) === true));
    }
  });

  it("speaks to newer daemons what both know", async () => {
    const newer = { versions: [1, 2] as const, features: ["batches", "metro"], needs: ["batches"] };
    const [, session] = await connected(site("a", { abilities: newer }), site("b"));
    assert.deepEqual(session.agreement, { version: 1, features: ["batches"] });
  });

  it("ends when a message is not what it should be, with an audit line", async () => {
    const bad: [string, Buffer][] = [
      ["OPS belongs to a feature", Buffer.from([0x93, 32, 2, 0x80])],
      ["message 77", Buffer.from([0x93, 9, 77, 0x80])],
      ["message 0", Buffer.from([0x93, 9, 0, 0x80])],
      ["0xc1", Buffer.from([0xc1])],
      ["unknown type 99", Buffer.from([0x93, 99, 2, 0x80])],
      ["no group", encodeMessage("credit", 2, { group: "0".repeat(32), stream: 1, bytesMax: 1 })],
      ["goodbye: reason", Buffer.from([0x93, 9, 2, 0x80])],
    ];
    for (const [reason, frame] of bad) {
      const [a, b] = [site("a"), site("b")];
      const { control } = await rawSession(a, b);
      control.send(frame);
      await until(`${reason} ends it`, () => control.closed !== undefined);
      const line = a.audit.find(({ event }) => event === "message refused");
      assert.ok(line?.reason?.includes(reason), JSON.stringify(a.audit));
      assert.equal(a.links.sessions.with(b.fingerprint), undefined);
    }
  });

  it("ends when a chunk is not what it should be", async () => {
    const whole = encodeChunk({
      ...{
        group: "ab".repeat(16),
        epochId: "cd".repeat(8),
        base: 1,
        target: 7,
        stream: 1,
        sequence: 0,
        last: false,
      },
      ...{ cursor: Buffer.alloc(3, 1), payload: Buffer.alloc(100, 2) },
    });
    const flipped = Buffer.from(whole);
    flipped[80] = 0;
    for (const frame of [flipped, whole.subarray(0, 70), Buffer.concat([whole, Buffer.alloc(1)])]) {
      const [a, b] = [site("a"), site("b")];
      const { bulk } = await rawSession(a, b);
      bulk.send(frame);
      await until("it ends", () => bulk.closed !== undefined);
      assert.ok(
        a.audit.some(
          ({ event, reason }) => event === "message refused" && /malformed chunk/.test(reason ?? ""),
        ),
      );
    }
  });
});

/** An authenticated connection of B to A past our own client. */
async function authenticated(a: TestSite, b: TestSite, path = "/v1/control", known?: string) {
  const address = known ?? (await listening(a, peerOf(b)));
  const tls = connectTls({
    ...parseAddress(address),
    ...credentials(b.identity),
    ca: [a.identity.certificate],
    checkServerIdentity: () => undefined,
  });
  tls.on("error", () => undefined);
  await new Promise<void>((done) => tls.once("secureConnect", done));
  const socket = new WebSocket(`ws://holdfast${path}`, {
    createConnection: () => tls,
    perMessageDeflate: false,
  });
  socket.on("error", () => undefined);
  const gone = new Promise<void>((done) => tls.once("close", () => done()));
  const channel = new Promise<Channel>((done) => socket.once("open", () => done(new Channel(socket, tls))));
  return { address, tls, socket, gone, channel: await channel };
}

/** A session of B with A whose sockets are in the test's hands. */
async function rawSession(a: TestSite, b: TestSite): Promise<{ control: Channel; bulk: Channel }> {
  const { address, channel: control } = await authenticated(a, b);
  let bulk: Channel | undefined;
  const self = { site: "b", abilities: OURS, audit: () => undefined, handshakeMs: 5000 };
  await callControl(control, peerOf(a), self, async () => {
    bulk = (await authenticated(a, b, "/v1/bulk", address)).channel;
    return bulk;
  });
  assert.ok(bulk !== undefined);
  return { control, bulk };
}

interface Seen {
  bytes: number;
  error: string;
}

/** What a caller gets from a server until it is let go. */
function call(address: string, options: ConnectionOptions, act?: (socket: TLSSocket) => void): Promise<Seen> {
  const seen: Seen = { bytes: 0, error: "" };
  const socket = connectTls({ ...parseAddress(address), rejectUnauthorized: false, ...options }, () =>
    act?.(socket),
  );
  socket.on("data", (data: Buffer) => (seen.bytes += data.length));
  socket.on("error", (error: NodeJS.ErrnoException) => (seen.error ||= error.code ?? error.message));
  return new Promise((done) => socket.once("close", () => done(seen)));
}

const UPGRADE =
  "GET /v1/control HTTP/1.1\r\nHost: holdfast\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

function credentials({ certificate: cert, privateKey: key }: Identity): ConnectionOptions {
  return { cert, key };
}

describe("strangers", () => {
  it("get no byte: six bad clients, an audit line each", async () => {
    const [a, b, gone, other] = [site("a"), site("b"), site("gone"), site("other")];
    const address = await listening(a, peerOf(b), peerOf(gone));
    const tickets: Buffer[] = [];
    const before = call(address, credentials(gone.identity), (socket) => {
      socket.on("session", (ticket) => tickets.push(ticket));
      setImmediate(() => socket.end());
    });
    await before;
    await a.links.configure({ peers: [peerOf(b)], listen: "127.0.0.1:0", site: "a" });
    const ticket = tickets.at(-1);
    const clients: [string, ConnectionOptions][] = [
      ["no certificate", {}],
      ["unknown", credentials(createIdentity())],
      ["removed", { ...credentials(gone.identity), ...(ticket === undefined ? {} : { session: ticket }) }],
      ["another pool's daemon", credentials(other.identity)],
      ["wrong key under a known certificate's name", credentials(createIdentity())],
      ["TLS 1.2", { ...credentials(b.identity), maxVersion: "TLSv1.2" }],
    ];
    for (const [name, options] of clients) {
      const lines = a.audit.length;
      const seen = await call(address, options, (socket) => socket.write(UPGRADE));
      assert.deepEqual([name, seen.bytes], [name, 0]);
      await until(`${name}: a line`, () => a.audit.length > lines);
      const fresh = a.audit.slice(lines);
      assert.deepEqual([fresh.length, fresh[0]?.event], [1, "connection refused"], JSON.stringify(fresh));
    }
    assert.equal((await call(address, credentials(b.identity), (socket) => socket.end("x"))).bytes, 0);
  });

  it("cannot stand in for a peer: the caller tells a wrong server nothing", async () => {
    const [b, thief] = [site("b"), site("thief")];
    const a = site("a");
    const address = await listening(thief, peerOf(b));
    await b.links.configure({ peers: [peerOf(a, [address])], site: "b" });
    await until("b gives up", () => b.linkStates.some(({ connected }) => !connected));
    assert.equal(thief.links.sessions.with(b.fingerprint), undefined);
    assert.equal(b.links.sessions.with(a.fingerprint), undefined);
  });

  it("cannot change what goes over the wire: a proxy that flips a byte ends it", async () => {
    const [a, b] = [site("a", { handshakeMs: 500 }), site("b", { handshakeMs: 500 })];
    const address = await listening(a, peerOf(b));
    for (const flipAt of [60, 600, 1000, 1400]) {
      const proxy = await proxyTo(address, flipAt);
      await b.links.configure({ peers: [peerOf(a, [proxy])], site: "b" });
      await until("b is let down", () => b.linkStates.some(({ connected }) => !connected));
      await b.links.configure({ peers: [], site: "b" });
      b.linkStates.length = 0;
    }
    await until("nothing came of it", () => a.links.sessions.with(b.fingerprint) === undefined);
  });

  it("are at most 64 at once, and leave after the deadline however they trickle", async () => {
    const [a, b] = [site("a", { handshakeMs: 1000 }), site("b")];
    const address = await listening(a, peerOf(b));
    const crowd = Array.from({ length: UNAUTHENTICATED_MAX + 8 }, () =>
      connectTcp(parseAddress(address)).on("error", () => undefined),
    );
    await until(
      "the rest is refused",
      () => a.audit.filter(({ reason }) => /too many/.test(reason ?? "")).length === 8,
    );
    for (const one of crowd) one.write(Buffer.from([0x16]));
    await until("all are gone", () => crowd.every((one) => one.closed || one.destroyed), 20_000);
    await b.links.configure({ peers: [peerOf(a, [address])], site: "b" });
    await sessionsOf(a, b);
  });
});

/** Passes bytes on, and flips one bit of what the client sends at an offset. */
async function proxyTo(address: string, flipAt: number): Promise<string> {
  const server = createServer((client: Socket) => {
    const upstream = connectTcp(parseAddress(address));
    let passed = 0;
    client.on("data", (data) => {
      const at = flipAt - passed;
      passed += data.length;
      if (at >= 0 && at < data.length) data[at] = (data[at] ?? 0) ^ 1;
      upstream.write(data);
    });
    upstream.pipe(client);
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on("error", () => other.destroy()).on("close", () => other.destroy());
    }
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as { port: number };
  return formatAddress({ host: "127.0.0.1", port });
}

describe("a peer that misbehaves", () => {
  const attacks: [string, (socket: WebSocket, tls: TLSSocket) => void][] = [
    ["a ping", (socket) => socket.ping()],
    ["a text", (socket) => socket.send("hello")],
    ["fragments", (socket) => [1, 2, 3].forEach(() => socket.send(Buffer.from([1]), { fin: false }))],
    [
      "a length of 4 GiB",
      (_socket, tls) => tls.write(Buffer.from([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4])),
    ],
    ["more than a message", (socket) => socket.send(Buffer.alloc(CONTROL_BYTES_MAX + 1))],
    ["deep nesting", (socket) => socket.send(Buffer.alloc(5000, 0x91))],
    ["a wrong hello", (socket) => socket.send(Buffer.from([0x93, 1, 0, 0x80]))],
    [
      "messages too early",
      (socket) => Array.from({ length: 20 }, () => socket.send(Buffer.from([0x93, 1, 0, 0x80]))),
    ],
  ];
  for (const [name, attack] of attacks) {
    it(`is let go for ${name}, and the others go on`, async () => {
      const [a, b] = [site("a"), site("b")];
      const { socket, tls, gone } = await authenticated(a, b);
      attack(socket, tls);
      await gone;
      await until("an audit line", () =>
        a.audit.some(({ event, peer }) => event === "connection refused" && peer === "b"),
      );
      assert.equal(a.links.sessions.with(b.fingerprint), undefined);
    });
  }

  it("cannot join a session that is not its own, or one twice", async () => {
    const [a, b] = [site("a"), site("b")];
    const { socket, gone } = await authenticated(a, b, "/v1/bulk");
    socket.send(encodeMessage("join", 0, { session: Buffer.alloc(16, 1), mac: Buffer.alloc(32) }));
    await gone;
    await until("a line", () => a.audit.some(({ reason }) => /does not wait/.test(reason ?? "")));
  });

  it("cannot replay what a session said", async () => {
    const [a, b] = [site("a"), site("b")];
    const heard: Buffer[] = [];
    const first = await authenticated(a, b);
    const { channel } = first;
    const spy = channel.send.bind(channel);
    channel.send = (bytes) => {
      heard.push(bytes);
      spy(bytes);
    };
    const self = { site: "b", abilities: OURS, audit: () => undefined, handshakeMs: 5000 };
    await assert.rejects(
      callControl(channel, peerOf(a), self, () => Promise.reject(new Error("far enough"))),
    );
    first.tls.destroy();
    assert.equal(heard.length, 2);
    const second = await authenticated(a, b);
    for (const frame of heard) second.socket.send(frame);
    await second.gone;
    await until("a line", () => a.audit.some(({ reason }) => /changed or replayed/.test(reason ?? "")));
  });
});
