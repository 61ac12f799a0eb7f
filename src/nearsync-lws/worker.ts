// The worker's entry: `Links` behind a message port. See worker-host.ts for the other end.

import { parentPort, workerData } from "node:worker_threads";
import { Links } from "./links.js";
import type { Daemon } from "./links.js";
import { Rpc } from "./rpc.js";
import type { DaemonCalls, WorkerCalls, WorkerSetup } from "./worker-api.js";

if (parentPort === null) throw new Error("this file runs in a worker only");

const port = parentPort;
const { identity } = workerData as WorkerSetup;

const daemon: Daemon = {
  pair: (request) => rpc.call("pair", request),
  inviteEnded: (ended) => rpc.call("inviteEnded", ended),
  audit: (line) => rpc.call("audit", line),
  link: (state) => rpc.call("link", state),
};
const links: WorkerCalls = new Links({ identity, daemon });
const rpc: Rpc<DaemonCalls, WorkerCalls> = new Rpc(port, links);
