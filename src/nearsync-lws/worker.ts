// The worker's entry: `Site` behind a message port. See worker-host.ts for the other end.

import { setFlagsFromString } from "node:v8";
import { parentPort, workerData } from "node:worker_threads";
import type { Daemon } from "./links.js";
import { Rpc } from "./rpc.js";
import { Site } from "./site.js";
import type { DaemonCalls, LinkEvents, WorkerCalls, WorkerSetup } from "./worker-api.js";

/** Of a heap of 12 MiB. */
const HEAP_GROWING_PERCENT = 300;

if (parentPort === null) throw new Error("this file runs in a worker only");

// V8 collects everything each time that memory outside its heap has grown by 8 MiB, which here are 30 chunks: ten times
// a second, and half of what replication costs. Chunks die young: with room until the small collections come, those do
// it all. The flag is the process's; what grows by it is what lives, some 10 MiB in either thread.
setFlagsFromString(`--heap-growing-percent=${HEAP_GROWING_PERCENT}`);

const port = parentPort;
const daemon: Daemon & Omit<DaemonCalls, keyof LinkEvents> = {
  pair: (request) => rpc.call("pair", request),
  inviteEnded: (ended) => rpc.call("inviteEnded", ended),
  audit: (line) => rpc.call("audit", line),
  link: (state) => rpc.call("link", state),
  place: (wanted) => rpc.call("place", wanted),
  handover: (said) => rpc.call("handover", said),
  succeededBy: (question) => rpc.call("succeededBy", question),
  accountOf: (question) => rpc.call("accountOf", question),
  follow: (request) => rpc.call("follow", request),
  fenced: (what) => void rpc.call("fenced", what),
};
const site: WorkerCalls = new Site(workerData as WorkerSetup, daemon);
const rpc: Rpc<DaemonCalls, WorkerCalls> = new Rpc(port, site);
