// The HTTP server on STATE/admin.sock: 0600, and only the daemon's own user and root get past the door.

import { chmodSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { HoldfastError, fromSystem } from "../io-path/errors.js";
import { peerOf } from "../io-path/system.js";
import { HTTP_STATUS, toErrorBody } from "./failure.js";
import type { Log } from "./log.js";
import { ADMIN_SOCKET } from "./protocol.js";
import type { Route, RouteAnswer } from "./route.js";
import type { StateFolder } from "./state-folder.js";

const BODY_BYTES_MAX = 1 << 20;
const CONNECTIONS_MAX = 64;

export interface AdminServerOptions {
  folder: StateFolder;
  routes: readonly Route[];
  log: Log;
  /** Who may talk to the daemon; by default its own user and root. */
  mayTalk?: (uid: number) => boolean;
}

/** Listens; a socket that a dead daemon left is replaced (the state folder's lock says that it is dead). */
export async function startAdminServer(options: AdminServerOptions): Promise<Server> {
  const { folder, routes, log } = options;
  const mayTalk = options.mayTalk ?? ((uid) => uid === 0 || uid === process.geteuid?.());
  const server = createServer({ headersTimeout: 5000, requestTimeout: 30_000 }, (request, response) => {
    void answer(routes, request, response, { log, mayTalk });
  });
  server.maxConnections = CONNECTIONS_MAX;
  const path = folder.at(ADMIN_SOCKET);
  rmSync(path, { force: true });
  const umask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, resolve);
    });
  } catch (error) {
    throw fromSystem(error, `admin socket ${folder.path}/${ADMIN_SOCKET}`);
  } finally {
    process.umask(umask);
  }
  chmodSync(path, 0o600);
  return server;
}

interface Door {
  log: Log;
  mayTalk: (uid: number) => boolean;
}

async function answer(
  routes: readonly Route[],
  request: IncomingMessage,
  response: ServerResponse,
  door: Door,
) {
  try {
    checkCaller(request, door);
    send(response, await dispatch(routes, request));
  } catch (error) {
    const body = toErrorBody(error);
    const level = body.code === "Internal" ? "error" : "debug";
    door.log[level]({ method: request.method, url: request.url, error: body }, "request failed");
    if (body.code === "Internal") door.log.error(error);
    response.setHeader("connection", "close");
    send(response, { status: HTTP_STATUS[body.code], json: body });
    request.resume();
  }
}

function checkCaller(request: IncomingMessage, { mayTalk, log }: Door): void {
  const { uid, pid } = peerOf(request.socket);
  if (!mayTalk(uid)) {
    log.warn({ uid, pid }, "refused a caller on the admin socket");
    throw new HoldfastError("Denied", `uid ${uid} may not talk to this daemon`);
  }
  // Only browsers send it, and no browser has business here.
  if (request.headers.origin !== undefined)
    throw new HoldfastError("Denied", "requests of web pages are refused");
}

async function dispatch(routes: readonly Route[], request: IncomingMessage): Promise<RouteAnswer> {
  const url = new URL(request.url ?? "/", "http://holdfast");
  const there = routes.flatMap((route) => {
    const params = match(route.path, url.pathname);
    return params === undefined ? [] : [{ route, params }];
  });
  const found = there.find(({ route }) => route.method === request.method);
  if (found !== undefined) {
    return await found.route.run({
      params: found.params,
      query: url.searchParams,
      body: await readBody(request),
    });
  }
  const what = `${request.method} ${url.pathname}`;
  if (there.length === 0) throw new HoldfastError("NotFound", `${what}: there is no such path in this API`);
  throw new HoldfastError(
    "Invalid",
    `${what}: allowed here: ${there.map(({ route }) => route.method).join(", ")}`,
  );
}

/** The parts that stand for `:name`, or `undefined` when the path does not fit. */
export function match(pattern: string, pathname: string): string[] | undefined {
  const wanted = pattern.split("/");
  const given = pathname.split("/");
  if (wanted.length !== given.length) return undefined;
  const params: string[] = [];
  for (const [index, part] of wanted.entries()) {
    const value = given[index] ?? "";
    if (part.startsWith(":")) params.push(decode(value));
    else if (part !== value) return undefined;
  }
  return params;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new HoldfastError("Invalid", `${part}: broken percent-encoding`);
  }
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX)
      throw new HoldfastError("Invalid", `a request has at most ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  if (bytes === 0) return {};
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    throw new HoldfastError("Invalid", "the request is not JSON");
  }
}

function send(response: ServerResponse, answered: RouteAnswer): void {
  if ("text" in answered) {
    response
      .writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" })
      .end(answered.text);
    return;
  }
  response.writeHead(answered.status ?? 200, { "content-type": "application/json" });
  response.end(`${JSON.stringify(answered.json)}\n`);
}
