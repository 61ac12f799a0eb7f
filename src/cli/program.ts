// All verbs in one tree. The completion scripts are made from it, so they cannot fall behind.

import { readFileSync } from "node:fs";
import { Command } from "commander";
import { addClone } from "./verbs/clone.js";
import { addCompletion } from "./verbs/completion.js";
import { addCp } from "./verbs/cp.js";
import { addDaemon } from "./verbs/daemon.js";
import { addDiff } from "./verbs/diff.js";
import { addDoctor } from "./verbs/doctor.js";
import { addFailover } from "./verbs/failover.js";
import { addFork } from "./verbs/fork.js";
import { addFeed } from "./verbs/feed.js";
import { addMount } from "./verbs/mount.js";
import { addPeer } from "./verbs/peer.js";
import { addPolicy } from "./verbs/policy.js";
import { addPool } from "./verbs/pool.js";
import { addProtect, addUnprotect } from "./verbs/protect.js";
import { addRestore, addUndelete } from "./verbs/restore.js";
import { addStatus } from "./verbs/status.js";
import { addScrub } from "./verbs/scrub.js";
import { addSnapshot } from "./verbs/snapshot.js";
import { addTop } from "./verbs/top.js";
import { addUmount } from "./verbs/umount.js";
import { addVerify } from "./verbs/verify.js";
import { addVersions } from "./verbs/versions.js";
import { addVolume } from "./verbs/volume.js";

/** Failures are reported in one place (`report`), as JSON where it is asked for. */
const SILENT = { outputError: () => undefined, writeErr: () => undefined };

export function createProgram(): Command {
  const program = new Command("holdfast")
    .description("protected POSIX volumes: replicated, checksummed, mounted through FUSE")
    .version(packageVersion())
    .option("--state <dir>", "state folder of the daemon to talk to (environment: HOLDFAST_STATE)")
    .option("--json", "print JSON, errors too")
    .exitOverride()
    .configureOutput(SILENT);
  for (const add of [
    addDaemon,
    addPool,
    addVolume,
    addSnapshot,
    addClone,
    addPolicy,
    addPeer,
    addProtect,
    addUnprotect,
    addFailover,
    addFork,
    addDiff,
    addFeed,
    addVersions,
    addRestore,
    addUndelete,
    addCp,
    addMount,
    addUmount,
    addStatus,
    addScrub,
    addVerify,
    addTop,
    addDoctor,
    addCompletion,
  ]) {
    add(program);
  }
  for (const command of everyCommand(program)) {
    command.exitOverride().configureOutput(SILENT);
  }
  return program;
}

export function everyCommand(command: Command): Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
