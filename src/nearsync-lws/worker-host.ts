// The daemon's end of the worker that owns listener, TLS and sockets: strangers' bytes never meet the daemon's loop.

import { Worker } from "node:worker_threads";
import { HoldfastError } from "../io-path/errors.js";
import { Rpc } from "./rpc.js";
import type { DaemonCalls, WorkerCalls, WorkerSetup } from "./worker-api.js";

/** Sessions and calls to the engine end within this. */
const CLOSE_MS = 5000;

export class PeerWorker {
  readonly #worker: Worker;
  readonly #rpc: Rpc<WorkerCalls, DaemonCalls>;
  readonly #ended: Promise<void>;

  /** `failed` is called when the worker ends by itself. */
  constructor(setup: WorkerSetup, daemon: DaemonCalls, failed: (reason: string) => void) {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: setup, name: "peers" });
    this.#rpc = new Rpc(this.#worker, daemon);
    let reason = "it was stopped";
    this.#worker.on("error", (error) => {
      reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
      failed(reason);
    });
    this.#ended = new Promise((resolve) => {
      this.#worker.once("exit", () => {
        this.#rpc.close(workerGone(reason));
        resolve();
      });
    });
  }

  call<K extends keyof WorkerCalls>(
    method: K,
    argument: Parameters<WorkerCalls[K]>[0],
  ): Promise<Awaited<ReturnType<WorkerCalls[K]>>> {
    return this.#rpc.call(method, argument);
  }

  /** In order, so that nothing of it runs in the engine any more; after a while in any case. */
  async close(): Promise<void> {
    const late = new Promise<void>((resolve) => setTimeout(resolve, CLOSE_MS).unref());
    // A worker that has failed cannot end in order.
    await Promise.race([this.#rpc.call("close", null).catch(() => undefined), late]);
    await this.#worker.terminate();
    await this.#ended;
  }
}

function workerGone(reason: string): HoldfastError {
  return new HoldfastError(
    "Unavailable",
    `the thread that talks to peers ended: ${reason}`,
    "restart the daemon",
  );
}
