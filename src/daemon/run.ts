// The daemon's life: lock the state folder, listen, replay and remount, serve, stop in order.

import { execFile } from "node:child_process";
import type { Server } from "node:http";
import { loadConfig } from "./config.js";
import type { Config } from "./config.js";
import { failoverRoutes } from "./failover-routes.js";
import { forkRoutes } from "./fork-routes.js";
import { Forks } from "./forks.js";
import { Handovers } from "./handovers.js";
import { createLog } from "./log.js";
import type { Log } from "./log.js";
import { Peers } from "./peers.js";
import { Protections } from "./protections.js";
import { Replicas } from "./replicas.js";
import { Reconciliations } from "./reconciliations.js";
import { Returns } from "./returns.js";
import type { Route } from "./route.js";
import { createRoutes } from "./routes.js";
import { forgetRuntimeFolder, openRuntimeFolder } from "./runtime-folder.js";
import type { RuntimeFolder } from "./runtime-folder.js";
import { startAdminServer } from "./server.js";
import { Siblings } from "./siblings.js";
import { StateFolder } from "./state-folder.js";
import { statementRoutes } from "./statement-routes.js";
import { Statements } from "./statements.js";
import { Supervisor } from "./supervisor.js";
import { TestFailovers } from "./test-failovers.js";
import { verificationRoutes } from "./verification-routes.js";
import { Verifications } from "./verifications.js";

export interface DaemonOptions {
  state: string;
  config: string | undefined;
}

/** Fulfils when the daemon has stopped in order; fails when it cannot start or cannot stop cleanly. */
export async function runDaemon(options: DaemonOptions): Promise<void> {
  process.umask(0o077);
  const config = await loadConfig(options.config);
  const log = createLog(config.log.level);
  const folder = StateFolder.open(options.state);
  try {
    folder.lock();
    const runtime = openRuntimeFolder(folder, config.runtimeDir);
    log.info({ state: folder.path, runtime: runtime.path, tmpfs: runtime.tmpfs }, "starting");
    const daemon = assemble({ folder, runtime, config, log });
    const stop = nextSignal(log);
    const server = await startAdminServer({ folder, routes: daemon.routes, log });
    try {
      await daemon.start();
      const problems = daemon.problems();
      log.info({ problems }, problems.length === 0 ? "ready" : "started with problems");
      notifySystemd(log);
      await stop;
    } finally {
      try {
        await daemon.stop();
        forgetRuntimeFolder(folder);
      } finally {
        await closeServer(server);
      }
    }
  } finally {
    folder.close();
  }
}

interface Daemon {
  routes: Route[];
  start: () => Promise<void>;
  /** Of pools and mounts that could not be brought up. */
  problems: () => readonly string[];
  stop: () => Promise<void>;
}

interface Ground {
  folder: StateFolder;
  runtime: RuntimeFolder;
  config: Config;
  log: Log;
}

/** All parts, which know each other; nothing is done yet. */
function assemble({ folder, runtime, config, log }: Ground): Daemon {
  const supervisor = new Supervisor({ folder, runtime, config, log });
  const { pool, site } = config.replication;
  const isConnected = (peer: string): boolean => peers.isConnected(peer);
  const promoted = (group: string): Promise<void> => peers.promoted(group);
  const statements = new Statements({
    folder,
    peers: { call: (method, argument) => peers.call(method, argument) },
  });
  const others = (group: string, source: string) => siblings.others(group, source);
  const renewed = (group: string) => protections.renew(group);
  const replicas: Replicas = new Replicas({
    ...{ folder, supervisor, pool, isConnected, promoted, statements, others, renewed },
  });
  const peers: Peers = new Peers({
    ...{ folder, config: config.replication, log },
    serves: {
      place: (wanted) => replicas.place(wanted),
      handover: (said) => handovers.heard(said),
      succeededBy: (question) => returns.succeededBy(question),
      follow: (request) => protections.follow(request),
      fenced: (what) => returns.fenced(what),
      accountOf: (question) => reconciliations.accountOf(question),
    },
  });
  const protections: Protections = new Protections({ folder, supervisor, peers, site, log });
  const parts = { folder, supervisor, peers, protections, replicas, log };
  const isHandedOver = (uuid: string): boolean => handovers.keeps(uuid);
  const returns: Returns = new Returns({ ...parts, isHandedOver });
  const handovers: Handovers = new Handovers({ ...parts, returns });
  replicas.revoke = (uuid) => handovers.revoke(uuid);
  const siblings: Siblings = new Siblings({ ...parts, returns });
  const reconciliations: Reconciliations = new Reconciliations({ ...parts, statements });
  const { verifyEvery: every } = config.replication;
  const verifications = new Verifications({ ...parts, every });
  const tests = new TestFailovers({ folder, supervisor, protections, log });
  const routes = [
    ...createRoutes({ ...parts, handovers, returns, reconciliations, siblings }),
    ...forkRoutes(new Forks(supervisor), returns),
    ...failoverRoutes(handovers, tests),
    ...statementRoutes(replicas),
    ...verificationRoutes(verifications),
  ];
  const start = async (): Promise<void> => {
    await supervisor.start();
    await tests.start();
    await peers.start();
    returns.start();
    await protections.start();
    await handovers.start();
    verifications.start();
    reconciliations.start();
    siblings.start();
  };
  const stop = async (): Promise<void> => {
    reconciliations.stop();
    siblings.stop();
    for (const part of [verifications, handovers, returns, protections, peers, supervisor]) await part.stop();
  };
  const problems = () => [...supervisor.pools.problems(), ...supervisor.mounts.problems()];
  return { routes, start, stop, problems };
}

/** The first signal stops the daemon; later ones change nothing: a stop is bounded by `stop.grace`. */
function nextSignal(log: Log): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
      process.on(signal, () => {
        log.info({ signal }, "stopping");
        resolve(signal);
      });
    }
  });
}

function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  return closed;
}

/** Type=notify: Node has no datagram sockets in the Unix domain, so systemd's own program says it. */
function notifySystemd(log: Log): void {
  if (process.env.NOTIFY_SOCKET === undefined) return;
  execFile("systemd-notify", ["--ready", `--pid=${process.pid}`], (error) => {
    if (error !== null) log.warn({ error: error.message }, "systemd-notify failed");
  });
}
