// The state of a pool in plain words, each with the command that comes next.

import type { DriveStatus, PoolAnswer, PoolStatus, VolumeAnswer } from "../../daemon/protocol.js";
import { bytes, duration } from "../output.js";

export interface Finding {
  check: string;
  ok: boolean;
  detail: string;
  hint: string;
}

/** What there is to say about a pool, its drives and its volumes. */
export function poolFindings(pool: PoolAnswer, volumes: readonly VolumeAnswer[]): Finding[] {
  const { name, status, problem } = pool;
  const check = `pool ${name}`;
  if (status === null) {
    const hint =
      problem?.hint === "" ? "attach its drives; the daemon tries again every second" : problem?.hint;
    return [{ check, ok: false, detail: problem?.message ?? "not open", hint: hint ?? "" }];
  }
  const free = `${bytes(status.freeBytes)} free of ${bytes(status.totalBytes)} on ${status.drives.length} drives`;
  return [
    { check, ok: true, detail: free, hint: "" },
    ...status.drives.filter(({ state }) => state !== "active").map((drive) => driveFinding(name, drive)),
    ...copiesFindings(name, status),
    ...volumes.filter((volume) => volume.pool === name).flatMap(volumeFinding),
    ...scrubFindings(name, status),
  ];
}

/** Whether a warning of the status is told by `poolFindings` already. */
export function isTold(warning: string): boolean {
  return /^pool \S+: (?:drive .* is (?:out|missing|stale|slow|failing)\b|volume )/u.test(warning);
}

function driveFinding(pool: string, { path, uuid, state, reason }: DriveStatus): Finding {
  const drive = path === "" ? uuid : path;
  const check = `drive ${drive}`;
  const replace = `holdfast pool replace-drive ${pool} ${drive} --drive NEW`;
  const remove = `holdfast pool remove-drive ${pool} ${drive}`;
  switch (state) {
    case "draining":
      return { check, ok: true, detail: "is being emptied and leaves the pool then", hint: "" };
    case "slow":
    case "failing":
      return {
        check,
        ok: false,
        detail: `is ${state}: ${reason}`,
        hint: `put another one in its place: ${replace}`,
      };
    case "missing":
      return {
        check,
        ok: false,
        detail: "is not there; after five minutes its copies are made anew on the others",
        hint: `attach it and restart the daemon, or give it up: ${remove}`,
      };
    case "stale":
      return {
        check,
        ok: false,
        detail: `came back after it missed writes and is not read: ${reason}`,
        hint: "nothing to do: it is emptied and used again once nothing needs what it held",
      };
    default:
      return {
        check,
        ok: false,
        detail: `is ${state}: ${reason}; what it held is copied to the others`,
        hint: `put another one in its place: holdfast pool add-drive ${pool} --drive NEW; then: ${remove}`,
      };
  }
}

function copiesFindings(pool: string, { healing }: PoolStatus): Finding[] {
  const check = `copies in pool ${pool}`;
  const eta = healing.etaSeconds === null ? "" : `, about ${duration(healing.etaSeconds)} to go`;
  const findings: Finding[] = [];
  if (healing.bytesLeft > 0) {
    const risk = healing.bytesSingle === 0 ? "" : `; ${bytes(healing.bytesSingle)} have one copy left`;
    const detail = `${bytes(healing.bytesLeft)} are being copied${eta}${risk}`;
    findings.push({ check, ok: healing.bytesSingle === 0, detail, hint: "nothing to do but to wait" });
  }
  if (healing.thingsLost > 0) {
    const detail = `${healing.thingsLost} pieces have no copy on any drive that is there`;
    findings.push({
      check,
      ok: false,
      detail,
      hint: "attach the drives that are away and restart the daemon",
    });
  }
  if (healing.thingsMisplaced > 0) {
    const detail = `${healing.thingsMisplaced} pieces have copies that share a failure domain`;
    const hint = `add a drive in another one (holdfast pool add-drive ${pool}), or say where drives are (pool label)`;
    findings.push({ check, ok: false, detail, hint });
  }
  if (healing.bytesUnbalanced > 0) {
    const detail = `${bytes(healing.bytesUnbalanced)} are moving to emptier drives`;
    findings.push({ check, ok: true, detail, hint: "" });
  }
  const hint = `add a drive: holdfast pool add-drive ${pool} --drive NEW; or delete something`;
  return [...findings, ...healing.stuck.map((detail) => ({ check, ok: false, detail, hint }))];
}

function volumeFinding({ name, trouble }: VolumeAnswer): Finding[] {
  if (trouble === "") return [];
  const hint = `holdfast pool add-drive; or: holdfast volume set ${name} --rf | --domain | --min-write-copies`;
  return [{ check: `volume ${name}`, ok: false, detail: trouble, hint }];
}

function scrubFindings(pool: string, { scrub }: PoolStatus): Finding[] {
  if (scrub.badCopies === 0) return [];
  const check = `scrub of pool ${pool}`;
  const lost = scrub.lost === 0 ? "" : `, ${scrub.lost} pieces are right nowhere`;
  const detail = `pass ${scrub.pass} found ${scrub.badCopies} bad copies and repaired ${scrub.repaired}${lost}`;
  const [first = ""] = scrub.findings;
  return [
    {
      check,
      ok: scrub.lost === 0,
      detail: first === "" ? detail : `${detail}: ${first}`,
      hint: "restore what is lost",
    },
  ];
}
