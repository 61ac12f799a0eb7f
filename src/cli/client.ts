// Talks to a daemon on STATE/admin.sock.

import { closeSync, constants, openSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { ADMIN_SOCKET } from "../daemon/protocol.js";
import type { ErrorBody } from "../daemon/protocol.js";
import { CliError } from "./errors.js";

/** Longest path of a Unix socket; a longer one is reached through a descriptor of its folder. */
const SOCKET_PATH_BYTES_MAX = 107;

export interface Answer<T> {
  status: number;
  body: T;
}

export class Client {
  constructor(readonly state: string) {}

  get<T>(path: string): Promise<T> {
    return this.#checked("GET", path);
  }

  post<T>(path: string, body: object): Promise<T> {
    return this.#checked("POST", path, body);
  }

  patch<T>(path: string, body: object): Promise<T> {
    return this.#checked("PATCH", path, body);
  }

  delete<T>(path: string): Promise<T> {
    return this.#checked("DELETE", path);
  }

  async #checked<T>(method: string, path: string, body?: object): Promise<T> {
    const answer = await this.send<T | ErrorBody>(method, path, body);
    if (answer.status < 400) return answer.body as T;
    const failure = answer.body as ErrorBody;
    throw new CliError(failure.code, failure.message, failure.hint);
  }

  /** Any answer that is JSON, whatever its status. */
  async send<T>(method: string, path: string, body?: object): Promise<Answer<T>> {
    const { status, text } = await this.#exchange(method, path, body);
    try {
      return { status, body: JSON.parse(text) as T };
    } catch {
      throw new CliError(
        "Unavailable",
        `the daemon of ${this.state} answered with no JSON`,
        "look at its log",
      );
    }
  }

  #exchange(method: string, path: string, body?: object): Promise<{ status: number; text: string }> {
    const folder = this.#socket();
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = payload === undefined ? {} : { "content-type": "application/json" };
    return new Promise<{ status: number; text: string }>((resolve, reject) => {
      const outgoing = request({ socketPath: folder.socketPath, method, path, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") });
        });
      });
      outgoing.on("error", reject);
      outgoing.end(payload);
    })
      .catch((error: unknown) => {
        throw this.#unreachable(error as NodeJS.ErrnoException);
      })
      .finally(() => folder.close());
  }

  #socket(): { socketPath: string; close(): void } {
    const socketPath = join(this.state, ADMIN_SOCKET);
    if (Buffer.byteLength(socketPath) <= SOCKET_PATH_BYTES_MAX) return { socketPath, close: () => undefined };
    try {
      const fd = openSync(this.state, constants.O_RDONLY | constants.O_DIRECTORY);
      return { socketPath: `/proc/self/fd/${fd}/${ADMIN_SOCKET}`, close: () => closeSync(fd) };
    } catch (error) {
      throw this.#unreachable(error as NodeJS.ErrnoException);
    }
  }

  #unreachable(error: NodeJS.ErrnoException): CliError {
    const where = `state folder ${this.state}`;
    if (error.code === "ENOENT" || error.code === "ECONNREFUSED") {
      const hint = `start one: holdfast daemon --state ${this.state}`;
      return new CliError("Unavailable", `no daemon runs on ${where}`, hint);
    }
    if (error.code === "EACCES" || error.code === "EPERM") {
      return new CliError(
        "Denied",
        `you may not talk to the daemon of ${where}`,
        "ask as its user, or as root",
      );
    }
    return new CliError("Unavailable", `the daemon of ${where} does not answer: ${error.message}`);
  }
}
