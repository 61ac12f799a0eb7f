// Prometheus text from one status.

import { Gauge, Registry } from "prom-client";
import type { StatusAnswer } from "./protocol.js";

/** Whose data is. */
const DATA_KINDS = [
  ["live", "liveBytes"],
  ["clones", "cloneBytes"],
  ["history", "historyBytes"],
  ["snapshots", "snapshotBytes"],
  ["dead", "deadBytes"],
] as const;

/** What bytes go to drives for. */
const CAUSES = ["logged", "packed", "cleaned", "tables", "manifest"] as const;

type MakeGauge = (name: string, help: string, labelNames: string[]) => Gauge;

export function renderMetrics(status: StatusAnswer): Promise<string> {
  const registry = new Registry();
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name: `holdfast_${name}`, help, labelNames, registers: [registry] });

  gauge("ready", "1 when replay and remounts are done").set(status.ready ? 1 : 0);
  gauge("uptime_seconds", "Seconds since the daemon started").set(status.uptimeSeconds);
  gauge("resident_bytes", "Resident memory of the daemon").set(process.memoryUsage.rss());
  const bytes = gauge("pool_bytes", "Bytes of a pool by what they hold", ["pool", "kind"]);
  const drive = gauge("drive_active", "1 while a drive is active", ["pool", "drive", "state"]);
  const latency = gauge("drive_latency_seconds", "What calls took lately, mean", ["pool", "drive", "call"]);
  const short = gauge("pool_short_bytes", "Bytes that still lack copies: all, with one left", [
    "pool",
    "copies",
  ]);
  const lost = gauge("pool_lost_pieces", "Pieces without a copy on any drive that is there", ["pool"]);
  const counter = gauge("pool_events", "Events of a pool since start, by name", ["pool", "name"]);
  const written = gauge("pool_drive_bytes_written", "Bytes to drives since start, all copies, by cause", [
    "pool",
    "cause",
  ]);
  const amplification = gauge(
    "pool_write_amplification",
    "Bytes to drives for each byte written and copy, since start",
    ["pool"],
  );
  for (const { name: pool, status: pooled } of status.pools) {
    if (pooled === null) continue;
    bytes.set({ pool, kind: "total" }, pooled.totalBytes);
    bytes.set({ pool, kind: "free" }, pooled.freeBytes);
    bytes.set({ pool, kind: "evictable" }, pooled.evictableBytes);
    bytes.set({ pool, kind: "log" }, pooled.logBytes);
    bytes.set({ pool, kind: "metadata" }, pooled.metadataBytes);
    bytes.set({ pool, kind: "data" }, pooled.dataBytes);
    for (const [kind, key] of DATA_KINDS) bytes.set({ pool, kind }, pooled.usage[key]);
    for (const { path, state, readMicroseconds, writeMicroseconds } of pooled.drives) {
      drive.set({ pool, drive: path, state }, state === "active" ? 1 : 0);
      latency.set({ pool, drive: path, call: "read" }, readMicroseconds / 1e6);
      latency.set({ pool, drive: path, call: "write" }, writeMicroseconds / 1e6);
    }
    const { healing } = pooled;
    short.set({ pool, copies: "fewer" }, healing.bytesLeft);
    short.set({ pool, copies: "one" }, healing.bytesSingle);
    lost.set({ pool }, healing.thingsLost);
    for (const [name, value] of Object.entries(pooled.counters)) counter.set({ pool, name }, value);
    for (const cause of CAUSES) written.set({ pool, cause }, pooled.counters[`drive_bytes_${cause}`] ?? 0);
    const { payload_copy_bytes: users = 0, drive_bytes_written: drives = 0 } = pooled.counters;
    if (users > 0) amplification.set({ pool }, drives / users);
  }
  const lsn = gauge("volume_lsn", "Log positions of a volume's group", ["volume", "kind"]);
  for (const volume of status.volumes) {
    lsn.set({ volume: volume.name, kind: "newest" }, volume.newestLsn);
    lsn.set({ volume: volume.name, kind: "durable" }, volume.durableLsn);
    lsn.set({ volume: volume.name, kind: "drained" }, volume.drainedLsn);
  }
  volumeMetrics(status, gauge);
  const mounted = gauge("mounted", "1 while a wanted mount is there", ["volume", "transport"]);
  for (const { volume, transport, state } of status.mounts) {
    mounted.set({ volume, transport }, state === "mounted" ? 1 : 0);
  }
  policyMetrics(status, gauge);
  protectionMetrics(status, gauge);
  failoverMetrics(status, gauge);
  return registry.metrics();
}

function volumeMetrics(status: StatusAnswer, gauge: MakeGauge): void {
  const space = gauge("volume_bytes", "Bytes of content that fit, as df says", ["volume", "kind"]);
  const usage = gauge("group_bytes", "Bytes on drives of a group, all copies, by what they hold", [
    "group",
    "kind",
  ]);
  const window = gauge("group_window_seconds", "Every second back to here: promised, and held", [
    "group",
    "kind",
  ]);
  const points = gauge("group_points", "Recovery points of a group", ["group", "kind"]);
  const short = gauge("group_window_short", "1 while seconds that were promised are gone for want of space", [
    "group",
  ]);
  for (const { name: volume, group, space: told, usage: used, retention } of status.volumes) {
    space.set({ volume, kind: "total" }, told.totalBytes);
    space.set({ volume, kind: "available" }, told.availableBytes);
    usage.set({ group, kind: "live" }, used.liveBytes);
    usage.set({ group, kind: "history" }, used.historyBytes);
    usage.set({ group, kind: "snapshots" }, used.snapshotBytes);
    usage.set({ group, kind: "log" }, used.logBytes);
    usage.set({ group, kind: "metadata" }, used.metadataBytes);
    window.set({ group, kind: "promised" }, retention.windowSeconds);
    window.set({ group, kind: "held" }, retention.heldWindowSeconds);
    points.set({ group, kind: "seconds" }, retention.ticks);
    points.set({ group, kind: "snapshots" }, retention.snapshots);
    short.set({ group }, retention.isShort ? 1 : 0);
  }
}

function protectionMetrics(status: StatusAnswer, gauge: MakeGauge): void {
  const labels = ["group", "peer"];
  const link = gauge("protection_up", "1 while the peer takes what is sent", labels);
  const promised = gauge("protection_rpo_promised_seconds", "How far a peer may be behind", labels);
  const lag = gauge(
    "protection_rpo_seconds",
    "How far a peer is behind, measured; absent: it has nothing yet",
    labels,
  );
  const parts = gauge("protection_lag_seconds", "Parts of how far a peer is behind", [...labels, "part"]);
  const told = gauge(
    "protection_headers_lag_seconds",
    "Until so long ago a peer knows everything that was done; absent: it is not told now",
    labels,
  );
  const ops = gauge("protection_backlog_ops", "Operations that the peer does not have", labels);
  const sent = gauge("protection_sent_bytes", "Bytes of batches sent since the daemon began to", labels);
  const compared = gauge(
    "protection_verified_seconds",
    "When the newest comparison of a replica with its owner that came to an end began",
    labels,
  );
  const differences = gauge("protection_differences", "Differences that it found, and that are left", labels);
  for (const { group, peer, rpoMs, lag: behind, ...rest } of status.protections) {
    link.set({ group, peer }, rest.link === "up" ? 1 : 0);
    promised.set({ group, peer }, rpoMs / 1000);
    const { lagMs } = rest.headers;
    if (lagMs !== null) told.set({ group, peer }, lagMs / 1000);
    if (behind.rpoMs !== null) lag.set({ group, peer }, behind.rpoMs / 1000);
    parts.set({ group, peer, part: "cut" }, behind.cutMs / 1000);
    parts.set({ group, peer, part: "ship" }, behind.shipMs / 1000);
    parts.set({ group, peer, part: "apply" }, behind.applyMs / 1000);
    parts.set({ group, peer, part: "flush" }, behind.flushMs / 1000);
    ops.set({ group, peer }, rest.backlog.ops);
    sent.set({ group, peer }, rest.bytesSent);
    if (rest.verified === null || rest.verified.state === "failed" || rest.verified.state === "running")
      continue;
    compared.set({ group, peer }, Date.parse(rest.verified.started) / 1000);
    differences.set({ group, peer }, rest.verified.left);
  }
}

/** Of one group the newest counts. */
function failoverMetrics(status: StatusAnswer, gauge: MakeGauge): void {
  const ops = gauge(
    "failover_lost_operations",
    "Operations that failing over to here cost, as far as known",
    ["group", "kind"],
  );
  const reconciled = gauge("failover_reconciled", "1 when the former owner has told what it did", ["group"]);
  const contradicted = gauge(
    "failover_contradicted",
    "1 when what was said to be lost is not what the former owner has",
    ["group"],
  );
  for (const { group, ops: all, fsyncedOps, isReconciled, isContradicted } of status.failovers) {
    ops.set({ group, kind: "all" }, all);
    ops.set({ group, kind: "fsynced" }, fsyncedOps);
    reconciled.set({ group }, isReconciled ? 1 : 0);
    contradicted.set({ group }, isContradicted ? 1 : 0);
  }
}

function policyMetrics(status: StatusAnswer, gauge: MakeGauge): void {
  const snapshots = gauge("policy_snapshots", "Snapshots by a policy since start, by what became of them", [
    "policy",
    "what",
  ]);
  const success = gauge("policy_last_success_seconds", "When a policy last took every snapshot it should", [
    "policy",
  ]);
  const failures = gauge("policy_failures_in_a_row", "Runs of a policy that failed since the last success", [
    "policy",
  ]);
  for (const { name: policy, taken, failed, pruned, ...rest } of status.policies) {
    snapshots.set({ policy, what: "taken" }, taken);
    snapshots.set({ policy, what: "failed" }, failed);
    snapshots.set({ policy, what: "pruned" }, pruned);
    if (rest.lastSuccessSeconds !== null) success.set({ policy }, rest.lastSuccessSeconds);
    failures.set({ policy }, rest.failures);
  }
}
