// The admin socket: whose it is, who gets in, what happens to bad requests.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, lstatSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { ErrorBody } from "../../src/daemon/protocol.js";
import { Place, until, withoutRoot } from "../daemon-fixture.js";

interface Reply {
  status: number;
  text: string;
}

describe("admin socket", () => {
  const place = new Place();
  const socket = join(place.state, "admin.sock");

  before(() => place.start());
  after(() => place.remove());

  function send(
    method: string,
    path: string,
    options: { headers?: Record<string, string>; body?: string } = {},
  ) {
    return new Promise<Reply>((done, fail) => {
      const outgoing = request({ socketPath: socket, method, path, headers: options.headers }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => {
          text += part;
        });
        response.on("end", () => done({ status: response.statusCode ?? 0, text }));
      });
      outgoing.on("error", fail);
      outgoing.end(options.body);
    });
  }

  it("is 0600, in a folder of 0700", () => {
    assert.equal(lstatSync(socket).mode & 0o7777, 0o600);
    assert.ok(lstatSync(socket).isSocket());
    assert.equal(statSync(place.state).mode & 0o7777, 0o700);
  });

  it("refuses another uid, even where file modes would let it in", { skip: withoutRoot }, async () => {
    const script = `
      process.setgroups([]); process.setgid(65534); process.setuid(65534);
      const request = require("node:http").get({ socketPath: ${JSON.stringify(socket)}, path: "/v1/status" });
      request.on("response", (response) => { console.log(response.statusCode); response.pipe(process.stdout); });
      request.on("error", (error) => console.log(error.code));
    `;
    const asNobody = () => spawnSync(process.execPath, ["-e", script], { encoding: "utf8", cwd: "/" }).stdout;
    assert.equal(asNobody().trim(), "EACCES");
    const opened = [place.folder, place.state, socket];
    for (const path of opened) chmodSync(path, 0o777);
    try {
      const [status, body] = asNobody().trim().split("\n");
      assert.equal(status, "403");
      assert.deepEqual(JSON.parse(body ?? ""), {
        code: "Denied",
        message: "uid 65534 may not talk to this daemon",
        hint: "",
      });
    } finally {
      for (const path of opened) chmodSync(path, path === socket ? 0o600 : 0o700);
    }
    await until("the refusal is in the log", () => place.log.includes("refused a caller"));
  });

  it("refuses web pages", async () => {
    const reply = await send("GET", "/v1/status", { headers: { origin: "http://evil" } });
    assert.equal(reply.status, 403);
  });

  const bad: [string, string, string | undefined, number, string][] = [
    ["GET", "/", undefined, 404, "NotFound"],
    ["GET", "/v2/status", undefined, 404, "NotFound"],
    ["POST", "/v1/status", undefined, 400, "Invalid"],
    ["POST", "/v1/pools", "{", 400, "Invalid"],
    ["POST", "/v1/pools", "[]", 400, "Invalid"],
    ["POST", "/v1/pools", '{"name":"p","drives":[]}', 400, "Invalid"],
    ["POST", "/v1/pools", '{"name":"p","drives":[{"path":"relative"}]}', 400, "Invalid"],
    ["POST", "/v1/pools", '{"name":"p","drives":[{"path":"/x"}],"unknown":1}', 400, "Invalid"],
    ["POST", "/v1/volumes", '{"name":"v","pool":"p","rf":4}', 400, "Invalid"],
    ["POST", "/v1/mounts", '{"volume":"v","path":"/a\\u0000b","options":[]}', 400, "Invalid"],
    ["GET", "/v1/pools/%zz", undefined, 400, "Invalid"],
    ["GET", "/v1/pools/__proto__", undefined, 404, "NotFound"],
    ["POST", "/v1/pools", `{"name":"${"x".repeat(2 ** 20)}"}`, 400, "Invalid"],
  ];
  for (const [method, path, body, status, code] of bad) {
    it(`answers ${method} ${path} ${(body ?? "").slice(0, 60)} with ${code}`, async () => {
      const reply = await send(method, path, body === undefined ? {} : { body });
      assert.equal(reply.status, status, reply.text);
      const error = JSON.parse(reply.text) as ErrorBody;
      assert.equal(error.code, code);
      assert.deepEqual(Object.keys(error), ["code", "message", "hint"]);
    });
  }

  it("outlives garbage and slow callers", async () => {
    const garbage = connect(socket);
    garbage.on("error", () => undefined);
    garbage.write("\x16\x03\x01 this is not HTTP\r\n\r\n");
    const slow = connect(socket);
    slow.write("GET /v1/status HTTP/1.1\r\nhost:");
    await until(
      "garbage is cut off",
      () => garbage.readableEnded || garbage.destroyed || garbage.resume().closed,
    );
    assert.equal((await send("GET", "/v1/status")).status, 200);
    slow.destroy();
  });

  it("serves metrics", async () => {
    const reply = await send("GET", "/metrics");
    assert.equal(reply.status, 200);
    assert.match(reply.text, /^holdfast_ready 1$/m);
    assert.match(reply.text, /^# HELP holdfast_pool_bytes /m);
  });
});

describe("life of the daemon", () => {
  const place = new Place();
  after(() => place.remove());

  it("a second one on the same state is refused and changes nothing", async () => {
    await place.start();
    const refused = place.fails(5, "daemon");
    assert.equal(refused.code, "Conflict");
    assert.match(refused.message, new RegExp(`process ${place.pid}\\b`));
    assert.equal(place.cli("status").code, 0);
  });

  it("SIGTERM ends it in order, and the socket says so", async () => {
    assert.equal(await place.stop("SIGTERM"), 0);
    const error = place.fails(3, "status");
    assert.equal(error.code, "Unavailable");
    assert.match(error.hint, /holdfast daemon --state/);
  });

  it("SIGINT, too", async () => {
    await place.start();
    assert.equal(await place.stop("SIGINT"), 0);
  });

  it("starts again after kill -9, over the socket that was left", async () => {
    await place.start();
    assert.equal(await place.stop("SIGKILL"), "SIGKILL");
    assert.ok(lstatSync(join(place.state, "admin.sock")).isSocket());
    assert.match(place.fails(3, "status").message, /no daemon runs/);
    await place.start();
    assert.equal(await place.stop(), 0);
  });

  it("refuses an unknown key, and says which are known", () => {
    const file = join(place.folder, "bad.yaml");
    writeFileSync(file, "history:\n  windw: 1h\n");
    const error = place.fails(2, "daemon", "--config", file);
    assert.match(error.message, /unknown key history\.windw/);
    assert.match(error.hint, /window, thin, limit/);
    assert.match(place.fails(4, "daemon", "--config", join(place.folder, "none.yaml")).message, /none\.yaml/);
  });
});
