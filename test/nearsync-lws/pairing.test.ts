// Pairing: an invite makes two daemons peers once, within its time, and nobody else.

import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { after, describe, it } from "node:test";
import { HoldfastError } from "../../src/io-path/errors.js";
import { formatAddress, parseAddress, reachableAs } from "../../src/nearsync-lws/address.js";
import { Admission } from "../../src/nearsync-lws/admission.js";
import { checkIdentity, createIdentity } from "../../src/nearsync-lws/identity.js";
import { parseInvite, writeInvite } from "../../src/nearsync-lws/invite.js";
import { INVITE_TRIES_MAX, PEERS_MAX, UNAUTHENTICATED_MAX } from "../../src/nearsync-lws/limits.js";
import { PairingHost } from "../../src/nearsync-lws/pairing/host.js";
import type { InviteState } from "../../src/nearsync-lws/pairing/host.js";
import { ROLES, authorize, withChanged, withPaired } from "../../src/nearsync-lws/peers.js";
import type { Peer } from "../../src/nearsync-lws/peers.js";
import { until } from "../daemon-fixture.js";
import { TestSite, failsWith } from "./fixture.js";

describe("identity", () => {
  it("is a certificate for all times that vouches for nobody else", () => {
    const { certificate, privateKey } = createIdentity();
    const parsed = new X509Certificate(certificate);
    assert.equal(parsed.ca, false);
    assert.equal(new Date(parsed.validTo).getUTCFullYear(), 9999);
    assert.equal(new Date(parsed.validFrom).getUTCFullYear(), 1970);
    assert.ok(privateKey.startsWith("-----BEGIN PRIVATE KEY-----\n"));
    assert.deepEqual(checkIdentity({ certificate, privateKey }, "x"), { certificate, privateKey });
  });

  it("that does not fit together is refused", () => {
    const [one, other] = [createIdentity(), createIdentity()];
    const mixed = { certificate: one.certificate, privateKey: other.privateKey };
    assert.throws(
      () => checkIdentity(mixed, "identity.json"),
      failsWith("Corrupt", "identity.json", "backup"),
    );
    assert.throws(() => checkIdentity({ ...one, privateKey: "x" }, "f"), failsWith("Corrupt"));
  });
});

describe("addresses and invites", () => {
  it("are read and written", () => {
    for (const text of ["a.example:1", "127.0.0.1:65535", "[::1]:7421"]) {
      assert.equal(formatAddress(parseAddress(text)), text);
    }
    for (const bad of [
      "",
      "a",
      "a:",
      ":1",
      "a:65536",
      "::1:7",
      "[x]:1",
      "a b:1",
      "-a:1",
      `${"a".repeat(300)}:1`,
    ]) {
      assert.throws(() => parseAddress(bad), failsWith("Invalid", "HOST:PORT"), bad);
    }
    assert.deepEqual(reachableAs(parseAddress("0.0.0.0:7"), "::ffff:192.0.2.1"), {
      host: "192.0.2.1",
      port: 7,
    });
    assert.deepEqual(reachableAs(parseAddress("b.example:7"), "192.0.2.1"), { host: "b.example", port: 7 });
  });

  it("are found to be mistyped before anybody is called", () => {
    const address = parseAddress("127.0.0.1:7421");
    const invite = { address, keyHash: Buffer.alloc(16, 1), secret: Buffer.alloc(10, 2) };
    const text = writeInvite(invite);
    assert.deepEqual(parseInvite(` ${text}\n`), invite);
    for (let at = 0; at < text.length - 1; at += 1) {
      const typo = text[at] === "A" ? "B" : "A";
      const wrong = text.slice(0, at) + typo + text.slice(at + 1);
      assert.throws(() => parseInvite(wrong), failsWith("Invalid", "whole"), `character ${at}`);
      assert.throws(() => parseInvite(text.slice(0, at)), failsWith("Invalid"), `cut at ${at}`);
    }
    assert.throws(() => parseInvite(`hf1.${"A".repeat(10_000)}`), failsWith("Invalid"));
  });
});

describe("peers", () => {
  const peer = (name: string, fingerprint: string): Peer => {
    const rest = { certificate: "", addresses: [], groupRoles: {}, pairedSeconds: 0 };
    return { name, fingerprint, roles: ["read"], ...rest };
  };

  it("may do what their roles say, for every role, with and without a group", () => {
    for (const held of ROLES) {
      for (const asked of ROLES) {
        const whole = { ...peer("b", "1"), roles: [held] };
        const grouped = { ...peer("b", "1"), roles: [asked], groupRoles: { g: [held] } };
        const denied = failsWith("Denied", asked, "holdfast peer set b");
        for (const check of [
          () => authorize(whole, asked),
          () => authorize(whole, asked, "g"),
          () => authorize(grouped, asked, "g"),
        ]) {
          if (held === asked) check();
          else assert.throws(check, denied);
        }
        authorize(grouped, asked, "other");
        assert.throws(() => authorize({ ...whole, roles: [] }, asked, "__proto__"), denied);
      }
    }
  });

  it("keep their name when they pair again, and share none", () => {
    const two = [peer("a", "1"), peer("b", "2")];
    assert.deepEqual(
      withPaired(two, peer("x", "2"), { named: false }).map(({ name }) => name),
      ["a", "b"],
    );
    assert.deepEqual(
      withPaired(two, peer("x", "2"), { named: true }).map(({ name }) => name),
      ["a", "x"],
    );
    assert.throws(() => withPaired(two, peer("a", "3"), { named: false }), failsWith("Conflict", "--name"));
    assert.throws(() => withChanged(two, "a", { name: "b" }), failsWith("Conflict"));
    assert.throws(() => withChanged(two, "c", {}), failsWith("NotFound", "a, b"));
    assert.deepEqual(withChanged(two, "a", { roles: [] })[0]?.roles, []);
    const many = Array.from({ length: PEERS_MAX }, (_none, index) => peer(`p${index}`, `${index}`));
    assert.throws(() => withPaired(many, peer("x", "x"), { named: false }), failsWith("Conflict", "at most"));
  });
});

describe("pairing", () => {
  const sites: TestSite[] = [];
  const site = (name: string) => {
    sites.push(new TestSite(name));
    return sites.at(-1) as TestSite;
  };
  after(async () => {
    for (const { links } of sites) await links.close();
  });

  it("makes both know the other's key, name and addresses, once", async () => {
    const [a, b] = [site("a"), site("b")];
    const { invite } = await a.invite();
    await b.join(invite);
    const known = (one: TestSite) => one.stored.map(({ fingerprint, site }) => ({ fingerprint, site }));
    assert.deepEqual(known(a), [{ fingerprint: b.fingerprint, site: b.site }]);
    assert.deepEqual(known(b), [{ fingerprint: a.fingerprint, site: a.site }]);
    await until("the invite is over", () => a.invites.length > 0);
    assert.deepEqual(a.invites, ["paired"]);
    await assert.rejects(site("c").join(invite), failsWith("Unavailable", "one use"));
    assert.equal(a.stored.length, 1);
  });

  it("ends after five wrong secrets, each noted, and tells the caller why", async () => {
    const [a, b] = [site("a"), site("b")];
    const { invite } = await a.invite();
    const wrong = writeInvite({ ...parseInvite(invite), secret: Buffer.alloc(10) });
    for (let tries = 0; tries < INVITE_TRIES_MAX; tries += 1) {
      await assert.rejects(b.join(wrong), failsWith("Denied", "secret", "new one"));
    }
    await assert.rejects(b.join(invite), failsWith("Unavailable"));
    assert.deepEqual(a.invites, ["spent"]);
    assert.equal(a.audit.filter(({ event }) => event === "pairing refused").length, INVITE_TRIES_MAX);
    assert.deepEqual([a.stored, b.stored], [[], []]);
  });

  it("says nothing to a host with another key, and nothing is stored", async () => {
    const [a, b, thief] = [site("a"), site("b"), site("thief")];
    const { invite } = await a.invite();
    const { address } = parseInvite((await thief.invite()).invite);
    const lured = writeInvite({ ...parseInvite(invite), address });
    await assert.rejects(b.join(lured), failsWith("Denied", "another key"));
    await until("the thief is left", () => thief.links !== undefined && thief.audit.length >= 2);
    assert.deepEqual([a.stored, b.stored, thief.stored], [[], [], []]);
    await b.join(invite);
  });

  it("is refused to oneself, and with the reason when the host cannot store the guest", async () => {
    const [a, b] = [site("a"), site("b")];
    const { invite } = await a.invite();
    await assert.rejects(a.join(invite), failsWith("Invalid", "daemon that made"));
    a.refuses = new HoldfastError("Conflict", "there is a peer b already");
    await assert.rejects(b.join(invite), failsWith("Conflict", "there is a peer b already"));
    assert.deepEqual(b.stored, []);
    a.refuses = undefined;
    await b.join(invite);
  });

  it("a new invite ends the one before", async () => {
    const [a, b] = [site("a"), site("b")];
    const first = await a.invite();
    const second = await a.invite();
    assert.deepEqual(a.invites, ["closed"]);
    await assert.rejects(b.join(first.invite), failsWith("Unavailable"));
    await b.join(second.invite);
  });

  it("ends with its time", async () => {
    const a = site("a");
    const ended = await new Promise<InviteState>((done, fail) => {
      PairingHost.open({
        identity: a.identity,
        secret: Buffer.alloc(10, 7),
        listen: { host: "127.0.0.1", port: 0 },
        site: a.site,
        admission: new Admission(() => undefined),
        accept: async () => assert.fail("nobody called"),
        ended: done,
        audit: () => undefined,
        lifeMs: 1,
      }).catch(fail);
    });
    assert.equal(ended, "expired");
  });

  it("outlives garbage, TLS 1.2, long messages and a crowd", async () => {
    const [a, b] = [site("a"), site("b")];
    const { invite, address } = await a.invite();
    const where = parseAddress(address);
    const gone = (socket: { once(event: "close", done: () => void): unknown }) =>
      new Promise<void>((done) => socket.once("close", done));
    const garbage = connectTcp(where).on("error", () => undefined);
    garbage.write("GET / HTTP/1.1\r\n\r\n");
    await gone(garbage);
    const old = connectTls({ ...where, rejectUnauthorized: false, maxVersion: "TLSv1.2" });
    const refused = await new Promise<Error>((done) => old.once("error", done));
    assert.match(refused.message, /version|alert/i);
    const { certificate: cert, privateKey: key } = b.identity;
    const long = connectTls({ ...where, cert, key, rejectUnauthorized: false });
    long.on("error", () => undefined).on("data", () => undefined);
    long.write(Buffer.concat([Buffer.from([0xff, 0xff]), Buffer.alloc(3000)]));
    await gone(long);
    const crowd = Array.from({ length: UNAUTHENTICATED_MAX + 4 }, () =>
      connectTcp(where).on("error", () => undefined),
    );
    await Promise.race(crowd.map(gone));
    for (const one of crowd) one.destroy();
    await Promise.all(crowd.map(async (one) => one.closed || (await gone(one))));
    assert.ok(a.audit.some(({ reason }) => reason?.includes("too many") === true));
    await until(
      "the crowd is gone",
      async () =>
        await b.join(invite).then(
          () => true,
          () => false,
        ),
    );
    assert.equal(a.stored.length, 1);
  });
});
