// The loss statement, as text: before a failover, with its answer, and later.

import type { LossAnswer, LossStatement, ReconciledLoss } from "../../daemon/protocol.js";
import { bytes, table } from "../output.js";

export function statementText({ group, recovered, known, unknown, reconciled }: LossStatement): string {
  const { lsn, time } = recovered;
  return [
    `recovered to LSN ${lsn} of the former owner${time === null ? "" : `, cut at ${time}`}`,
    lossText("known lost", known, group),
    unknownText(unknown),
    ...(reconciled === null ? [] : [reconciledText(reconciled, group)]),
  ].join("\n");
}

function reconciledText(
  { time, peer, known, unknown, total, isContradicted }: ReconciledLoss,
  group: string,
) {
  const sums = `${known.ops} operations, of these fsynced: ${known.fsynced.ops}`;
  return [
    isContradicted
      ? `CONTRADICTED by ${peer}, ${time}: in its log are up to LSN ${known.lastLsn} ${sums}`
      : `reconciled with ${peer}, ${time}: what was known is what it has`,
    lossText("lost, and was not known", unknown, group),
    lossText("lost in all", total, group),
    ...(total.ops === 0 ? [] : [`there it is kept; at ${peer}: holdfast fork list`]),
  ].join("\n");
}

function unknownText({ afterLsn, since, opsAtLeast }: LossStatement["unknown"]): string {
  const more =
    opsAtLeast === 0 ? "" : `; ${opsAtLeast} records more were there, of which nothing else is known`;
  const from = since === null ? "" : `, or since ${since}`;
  return `not known: what it did after LSN ${afterLsn}${from}${more}`;
}

function lossText(what: string, loss: LossAnswer, group: string): string {
  const { firstLsn, lastLsn, ops, fsynced, isExact, named } = loss;
  if (lastLsn < firstLsn) return `${what}: nothing`;
  const lsns = `LSN ${firstLsn} to ${lastLsn}`;
  const sums = `${ops} operations, ${bytes(loss.bytes)}, in ${loss.files} files`;
  const synced = `${fsynced.ops} operations, ${bytes(fsynced.bytes)}, in ${fsynced.files} files`;
  const bound = isExact ? "" : " (about: not all of it is known in detail)";
  const rows = named.map((file) => [
    // A volume that is alone in its group has its name.
    (file.volume === null || file.volume === group ? "" : `${file.volume}:`) +
      (file.path ?? (file.path_base64 === undefined ? `inode ${file.inode}` : `base64:${file.path_base64}`)),
    `${file.ops}`,
    bytes(file.bytes),
    `${file.fsyncedOps}`,
  ]);
  const files = rows.length === 0 ? [] : [table(["file", "operations", "bytes", "fsynced"], rows, "")];
  return [`${what}: ${lsns}: ${sums}; of these fsynced: ${synced}${bound}`, ...files].join("\n");
}
