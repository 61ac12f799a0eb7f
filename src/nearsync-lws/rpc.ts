// Calls between the daemon's thread and the worker that owns the sockets. Failures travel as data.

import { HoldfastError } from "../io-path/errors.js";
import type { ErrorCode } from "../io-path/errors.js";

/** What both ends of a MessageChannel and a Worker have. */
export interface Port {
  postMessage(message: unknown): void;
  on(event: "message", listener: (message: unknown) => void): unknown;
}

type Method = (argument: never) => unknown;
/** An object of functions with one argument each. */
export type Methods<T> = { [K in keyof T]: Method };

type Message =
  | { call: number; method: string; argument: unknown }
  | { answer: number; value: unknown }
  | { answer: number; failure: { code: ErrorCode; message: string; hint: string } };

interface Waiting {
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

/** Calls `Remote` at the other end and serves `Local` to it. */
export class Rpc<Remote extends Methods<Remote>, Local extends Methods<Local>> {
  readonly #port: Port;
  readonly #local: Local;
  readonly #waiting = new Map<number, Waiting>();
  #newest = 0;
  #closed: HoldfastError | undefined;

  constructor(port: Port, local: Local) {
    this.#port = port;
    this.#local = local;
    port.on("message", (message) => void this.#receive(message as Message));
  }

  call<K extends keyof Remote & string>(
    method: K,
    argument: Parameters<Remote[K]>[0],
  ): Promise<Awaited<ReturnType<Remote[K]>>> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    this.#newest += 1;
    const call = this.#newest;
    const answered = new Promise<unknown>((resolve, reject) => this.#waiting.set(call, { resolve, reject }));
    this.#port.postMessage({ call, method, argument });
    return answered as Promise<Awaited<ReturnType<Remote[K]>>>;
  }

  /** The other end is gone: what waits for it fails, and so does every later call. */
  close(reason: HoldfastError): void {
    this.#closed ??= reason;
    for (const { reject } of this.#waiting.values()) reject(this.#closed);
    this.#waiting.clear();
  }

  async #receive(message: Message): Promise<void> {
    if ("call" in message) {
      this.#port.postMessage(await this.#run(message.call, message.method, message.argument));
      return;
    }
    const waiting = this.#waiting.get(message.answer);
    this.#waiting.delete(message.answer);
    if ("failure" in message) {
      const { code, message: text, hint } = message.failure;
      waiting?.reject(new HoldfastError(code, text, hint));
    } else {
      waiting?.resolve(message.value);
    }
  }

  async #run(answer: number, method: string, argument: unknown): Promise<Message> {
    try {
      const run = this.#local[method as keyof Local] as unknown as (given: unknown) => unknown;
      return { answer, value: await run.call(this.#local, argument) };
    } catch (error) {
      const { code, hint } = error instanceof HoldfastError ? error : { code: "Internal" as const, hint: "" };
      const message = error instanceof Error ? error.message : String(error);
      return { answer, failure: { code, message, hint } };
    }
  }
}
