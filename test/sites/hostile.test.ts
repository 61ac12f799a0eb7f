// Strangers and a peer gone bad against a real daemon: its memory stays, and the session with a good peer goes on.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import type { Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import type { TLSSocket } from "node:tls";
import { after, before, describe, it } from "node:test";
import type { PeerAnswer, PeerInviteAnswer } from "../../src/daemon/protocol.js";
import { parseAddress } from "../../src/nearsync-lws/address.js";
import type { Address } from "../../src/nearsync-lws/address.js";
import { Place, until } from "../daemon-fixture.js";

const RSS_GROWTH_MAX = 64 * 2 ** 20;
/** Connections of each kind. */
const ROUNDS = 40;

function rss(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib) * 1024;
}

/** Sends what it may send, and ends when it is let go. */
function attack<T extends Socket>(socket: T, act: (socket: T) => void): Promise<void> {
  socket.on("error", () => undefined).on("data", () => undefined);
  const ended = new Promise<void>((done) => socket.once("close", () => done()));
  act(socket);
  return ended;
}

const UPGRADE =
  "GET /v1/control HTTP/1.1\r\nHost: holdfast\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/** A client's frame: masked with zeros, so the payload is as it is. */
function frame(head: number, payload: Buffer): Buffer {
  const mask = Buffer.alloc(4);
  const length = Buffer.alloc(3);
  length.writeUInt8(0x80 | 126, 0);
  length.writeUInt16BE(payload.length, 1);
  return Buffer.concat([Buffer.from([head]), length, mask, payload]);
}

describe("hostile connections", () => {
  const [a, b] = [new Place(), new Place()];
  let where: Address;
  let credentials: { cert: string; key: string };

  before(async () => {
    for (const place of [a, b]) {
      const config = join(place.folder, "config.yaml");
      writeFileSync(config, `replication: {listen: "127.0.0.1:0"}\n`);
      await place.start({ config });
    }
    const { invite } = a.json<PeerInviteAnswer>("peer", "pair", "--invite", "--listen", "127.0.0.1:0");
    const { addresses } = b.json<PeerAnswer>("peer", "pair", invite, "--name", "a");
    where = parseAddress(addresses[0] ?? "");
    const identity = readFileSync(join(b.state, "identity.json"), "utf8");
    const { certificate, privateKey } = JSON.parse(identity) as { certificate: string; privateKey: string };
    credentials = { cert: certificate, key: privateKey };
    await until("they are connected", () => b.json<PeerAnswer[]>("peer", "list")[0]?.connected === true);
  });
  after(async () => {
    await a.remove();
    await b.remove();
  });

  const asStranger = (act: (socket: Socket) => void) => attack(connectTcp(where), act);
  const asPeer = (act: (socket: TLSSocket) => void) => {
    const socket = connectTls({ ...where, ...credentials, rejectUnauthorized: false });
    return attack(socket, () => socket.once("secureConnect", () => act(socket)));
  };

  const attacks: [string, () => Promise<void>][] = [
    ["garbage", () => asStranger((socket) => socket.write(Buffer.alloc(64 * 1024, 0x41)))],
    [
      "a TLS record of 4 GiB",
      () => asStranger((socket) => socket.write(Buffer.from("1603ffffffffffff", "hex"))),
    ],
    [
      "headers without an end",
      () => asPeer((socket) => socket.write(`GET / HTTP/1.1\r\n${"x: y\r\n".repeat(60_000)}`)),
    ],
    [
      "a request for no WebSocket",
      () => asPeer((socket) => socket.write("GET /v1/control HTTP/1.1\r\nHost: x\r\n\r\n")),
    ],
    [
      "pings",
      () =>
        asPeer((socket) => socket.write(Buffer.concat([Buffer.from(UPGRADE), ...flood(0x89, 2000, 100)]))),
    ],
    [
      "fragments",
      () =>
        asPeer((socket) => socket.write(Buffer.concat([Buffer.from(UPGRADE), ...flood(0x02, 64, 60_000)]))),
    ],
    [
      "texts",
      () =>
        asPeer((socket) => socket.write(Buffer.concat([Buffer.from(UPGRADE), ...flood(0x81, 64, 60_000)]))),
    ],
    [
      "a frame of 4 GiB",
      () =>
        asPeer(
          (socket) =>
            socket.write(`${UPGRADE}\x82`) && socket.write(Buffer.from("ff0000000100000000", "hex")),
        ),
    ],
    [
      "messages that mean nothing",
      () =>
        asPeer((socket) => socket.write(Buffer.concat([Buffer.from(UPGRADE), ...flood(0x82, 64, 60_000)]))),
    ],
  ];

  it(`${attacks.length} kinds, ${ROUNDS} of each: all are let go, memory stays, the session goes on`, async () => {
    await Promise.all(attacks.map(([, act]) => act()));
    const before = rss(a.pid);
    const lines = (text: string) => a.log.split("\n").filter((line) => line.includes(text)).length;
    const refused = lines('"event":"connection refused"');
    for (let round = 0; round < ROUNDS; round += 1) await Promise.all(attacks.map(([, act]) => act()));
    const grown = rss(a.pid) - before;
    assert.ok(grown < RSS_GROWTH_MAX, `${(grown / 2 ** 20).toFixed(1)} MiB more`);
    await until(
      "a line for each",
      () => lines('"event":"connection refused"') - refused >= ROUNDS * attacks.length,
    );
    for (const place of [a, b]) {
      assert.equal(place.json<PeerAnswer[]>("peer", "list")[0]?.connected, true);
      assert.ok(!place.log.includes('"reason":"no answer to a heartbeat'), place.log.slice(-2000));
    }
    assert.equal(a.cli("status").code, 0);
  });

  it("a peer that is removed is let go at once, and is a stranger from then on", async () => {
    const name = a.json<PeerAnswer[]>("peer", "list")[0]?.name ?? "";
    a.json("peer", "remove", name, "--yes");
    await until("the session has ended", () => b.json<PeerAnswer[]>("peer", "list")[0]?.connected === false);
    let bytes = 0;
    await asPeer((socket) => socket.on("data", (data: Buffer) => (bytes += data.length)).write(UPGRADE));
    assert.equal(bytes, 0);
    assert.deepEqual(a.json("peer", "list"), []);
  });
});

function flood(head: number, frames: number, bytes: number): Buffer[] {
  return new Array<Buffer>(frames).fill(frame(head, Buffer.alloc(bytes, 0xc1)));
}
