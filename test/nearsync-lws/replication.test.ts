// What is refused between sites that have a session: no role, no right direction, no second owner; and then nothing is
// asked of the engine.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { GROUPS_MAX } from "../../src/nearsync-lws/limits.js";
import type { DoorCall, DoorPort } from "../../src/nearsync-lws/machines/door.js";
import { ROLES, authorize } from "../../src/nearsync-lws/peers.js";
import type { Peer, Role } from "../../src/nearsync-lws/peers.js";
import type { Pipe } from "../../src/nearsync-lws/replication/pipe.js";
import { Replication, portOf } from "../../src/nearsync-lws/replication/replication.js";
import { systemClock } from "../../src/nearsync-lws/seams.js";
import type { Body } from "../../src/nearsync-lws/wire/control.js";
import { HoldfastError } from "../../src/io-path/errors.js";
import { failsWith } from "./fixture.js";

const GROUP = "ab".repeat(16);
const EPOCH = "cd".repeat(8);

function site(roles: Role[] = ["replica-write"], groupRoles: Record<string, Role[]> = {}) {
  const calls: DoorCall["call"][] = [];
  const door: DoorPort = (call) => void calls.push(call.call);
  const peer: Peer = {
    ...{ name: "b", fingerprint: "b", certificate: "", addresses: [] },
    roles,
    groupRoles,
    pairedSeconds: 0,
  };
  const replication = new Replication({
    door,
    clock: systemClock,
    authorize: (_peer, role, group) => authorize(peer, role, group),
  });
  return { replication, calls };
}

function pipe() {
  const sent: [string, object][] = [];
  const made: Pipe = {
    send: (type, body) => void sent.push([type, body]),
    sendChunk: () => undefined,
    fail: (reason) => assert.fail(reason),
  };
  return { pipe: made, sent };
}

const offer = (group = GROUP): Body<"offer"> => {
  return { group, stream: 1, epochId: EPOCH, rpoMs: 1000, description: Buffer.from("d") };
};
const protection = {
  group: GROUP,
  epochId: EPOCH,
  rpoMs: 1000,
  description: Buffer.from("d"),
  bytesPerSecond: null,
};

describe("an offer", () => {
  it("needs the role replica-write, here and for this group, and no other role will do", () => {
    for (const role of ROLES) {
      for (const [roles, groupRoles] of [
        [[role], {}],
        [ROLES.filter((other) => other !== role), { [GROUP]: [role] }],
      ] as [Role[], Record<string, Role[]>][]) {
        const { replication, calls } = site(roles, groupRoles);
        const { pipe: to, sent } = pipe();
        replication.begin("b", to).message({ type: "offer", body: offer() });
        if (role === "replica-write") assert.deepEqual([calls, sent], [["replicaCreate"], []]);
        else {
          assert.deepEqual(calls, []);
          const [type, body] = sent[0] ?? ["", {}];
          assert.deepEqual(
            [type, (body as Body<"stop">).code, (body as Body<"stop">).retry],
            ["stop", "Denied", false],
          );
        }
      }
    }
  });

  it("is refused for a group that is owned here, and for one that another site sends", () => {
    const { replication, calls } = site();
    replication.protect({ ...protection, peer: "c" });
    const first = pipe();
    const work = replication.begin("b", first.pipe);
    work.message({ type: "offer", body: offer() });
    assert.match(JSON.stringify(first.sent), /owns the group itself/);
    const other = "ef".repeat(16);
    work.message({ type: "offer", body: offer(other) });
    const second = pipe();
    replication.begin("c", second.pipe).message({ type: "offer", body: offer(other) });
    assert.match(JSON.stringify(second.sent), /another site sends this group/);
    assert.deepEqual(calls, ["replicaCreate"]);
    work.closed("a test");
    const third = pipe();
    replication.begin("c", third.pipe).message({ type: "offer", body: offer(other) });
    assert.deepEqual(third.sent, []);
  });

  it("is refused beyond so many groups", () => {
    const { replication } = site();
    const { pipe: to, sent } = pipe();
    const work = replication.begin("b", to);
    for (let index = 0; index <= GROUPS_MAX; index += 1) {
      work.message({ type: "offer", body: offer(index.toString(16).padStart(32, "0")) });
    }
    assert.equal(sent.length, 1);
    assert.match(JSON.stringify(sent), /replicas already/);
  });
});

describe("protect", () => {
  it("is refused twice for one peer, and for a replica", () => {
    const { replication } = site();
    replication.protect({ ...protection, peer: "b" });
    assert.throws(() => replication.protect({ ...protection, peer: "b" }), failsWith("Conflict", "already"));
    replication.protect({ ...protection, peer: "c" });
    replication.unprotect(GROUP, "b");
    replication.protect({ ...protection, peer: "b" });
    const { replication: other } = site();
    other.begin("b", pipe().pipe).message({ type: "offer", body: offer() });
    assert.throws(() => other.protect({ ...protection, peer: "c" }), failsWith("Conflict", "replica here"));
    replication.close();
  });

  it("offers over a session that is there, or comes, and says who follows", () => {
    const { replication } = site();
    const { pipe: to, sent } = pipe();
    replication.protect({ ...protection, peer: "b" });
    const work = replication.begin("b", to);
    work.begun();
    assert.deepEqual(
      sent.map(([type]) => type),
      ["offer"],
    );
    assert.equal(replication.status(GROUP, "b")?.link, "offered");
    assert.equal(replication.status(GROUP, "b")?.rpoMs, null);
    assert.equal(replication.status(GROUP, "x"), undefined);
    work.closed("a test");
    assert.equal(replication.status(GROUP, "b")?.link, "down");
    replication.close();
  });
});

describe("messages that nobody asked for", () => {
  it("of groups that are not followed are let go; those of a handshake are refused", () => {
    const { replication, calls } = site();
    const { pipe: to, sent } = pipe();
    const work = replication.begin("b", to);
    const vector = {
      group: GROUP,
      stream: 1,
      epochId: EPOCH,
      arrived: 0,
      received: 5,
      applied: 5,
      flushed: 5,
      headers: null,
    };
    work.message({ type: "ack", body: vector });
    work.message({ type: "credit", body: { group: GROUP, stream: 1, bytesMax: 1 } });
    work.beatAck({ sentNs: 1n, bulkBytes: 0, acks: [vector] });
    const chunk = {
      ...{ group: GROUP, epochId: EPOCH, base: null, target: 5, stream: 1, sequence: 0, last: true },
    };
    work.chunk({ ...chunk, cursor: Buffer.alloc(0), payload: Buffer.alloc(0) });
    assert.deepEqual([calls, sent], [[], []]);
    assert.throws(() => work.message({ type: "ready", body: {} }), failsWith("Invalid", "does not belong"));
  });

  it("an acknowledgement of what was not sent ends the session", () => {
    const { replication } = site();
    replication.protect({ ...protection, peer: "b" });
    const work = replication.begin("b", pipe().pipe);
    work.begun();
    const state = {
      ...{ group: GROUP, stream: 1, epochId: null, last: null, staging: null, creditBytes: 1 },
      headers: null,
    };
    work.message({ type: "state", body: state });
    assert.throws(
      () => work.message({ type: "state", body: state }),
      failsWith("Invalid", "without an offer"),
    );
    const ack = {
      ...{ group: GROUP, stream: 1, epochId: EPOCH, received: 9, applied: 9, flushed: 9 },
      headers: null,
    };
    assert.throws(() => work.message({ type: "ack", body: ack }), failsWith("Invalid", "not sent"));
    work.message({ type: "ack", body: { ...ack, epochId: "00".repeat(8) } });
    work.message({ type: "ack", body: { ...ack, stream: 7 } });
    replication.close();
  });
});

describe("a door of promises", () => {
  it("answers once, with the value or the failure's code", async () => {
    const port = portOf((call) =>
      call.call === "deltaClose"
        ? Promise.resolve(null as never)
        : Promise.reject(new HoldfastError("NoSpace", "full")),
    );
    const answers = [
      await new Promise((done) => port({ call: "deltaClose", group: GROUP, delta: 1 }, done)),
      await new Promise((done) => port({ call: "replicaState", group: GROUP }, done)),
    ];
    assert.deepEqual(answers, [
      { ok: true, value: null },
      { ok: false, code: "NoSpace", message: "full" },
    ]);
  });
});
