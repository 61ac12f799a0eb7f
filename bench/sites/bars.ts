// What must come out of two sites on one machine (issue 7), as data. A ratio that must be large is turned over, so that
// every bar is a most.

import type { FigureBar } from "../bars.js";

const figure = (measure: string, words: string, unit: string, most: number): FigureBar => ({
  kind: "figure",
  issue: 7,
  subject: "holdfast",
  measure,
  words,
  unit,
  most,
});

export const SITES_BARS: readonly FigureBar[] = [
  figure("rpo-p95", "RPO of 1 s, 50 MB/s changed: 95 of 100 looks", "s", 1.5),
  figure("rpo-p99", "the same, 99 of 100", "s", 2),
  figure("rpo-max", "the same, all", "s", 5),
  figure("cost-time", "fsynced 4 KiB writes of what is protected: time ÷ that of what is not", "×", 1 / 0.7),
  figure("cost-p95", "the same, p95 ÷ p95", "×", 1.3),
  figure("cost-tmpfs-p99", "the same, the peer's drives on tmpfs, p99 ÷ p99", "×", 1.3),
  figure("cost-stopped-time", "the same, the peer stopped for 60 s: time ÷ time", "×", 1 / 0.98),
  figure("cost-stopped-memory", "the same, growth of the owner's memory", "MiB", 64),
  figure("wire-aligned", "bytes sent for aligned blocks of 4 KiB ÷ (1.05 × changed + 16 B an op)", "×", 1),
  figure("wire-small", "bytes sent for 100 B writes ÷ (their bytes + 128 B an op)", "×", 1),
  figure("wire-one", "a file of 1 GiB with one changed block: KiB sent", "KiB", 16),
  figure("line-beat", "a line of 1 MiB/s, 10 MiB/s changed: round trip of a heartbeat, 99 of 100", "ms", 300),
  figure("line-headers", "the same: how old what the headers tell is, 99 of 100", "ms", 500),
  figure("line-rpo-least", "the same: most backlog ÷ line ÷ the greatest RPO", "×", 1),
  figure("line-rpo-most", "the same: the greatest RPO ÷ (most backlog ÷ line)", "×", 2),
  figure("line-after", "the same, nothing changed any more: time until caught up ÷ (backlog ÷ line)", "×", 2),
  figure("failover-large", "failover to mounted and written, 1,000,000 files", "s", 2),
  figure("failover-ratio", "the same ÷ that of 1,000 files", "×", 1.5),
  figure("replica-open", "1,000 points at the peer: opening one of them", "ms", 10),
  figure("replica-open-p99", "the same, 99 of 100", "ms", 10),
];
