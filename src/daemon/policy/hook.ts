// Runs one hook: a program in a process group of its own, with a time limit, its output bounded.
//
// - At the limit the whole group gets SIGTERM, after a grace SIGKILL. Nothing that a hook does keeps its caller longer.
// - A hook that ended in time may leave a process in the background (a session that holds a database's backup mode);
//   such a process has to redirect its output: ours is closed.
// - No shell: the arguments are what the program gets.

import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import type { Hook } from "./file.js";

export interface HookResult {
  ok: boolean;
  /** Empty, or why it is not ok. */
  problem: string;
  /** The end of what it said, both streams. */
  output: string;
}

export interface HookOptions {
  environment: Readonly<Record<string, string>>;
  /** The daemon stops: the hook has this long then. */
  stop: AbortSignal;
  stopMs: number;
  /** From SIGTERM to SIGKILL. */
  graceMs: number;
}

const OUTPUT_BYTES_MAX = 8192;
/** For what is still in the pipes when the program has ended. */
const DRAIN_MS = 100;

/** Never rejects. */
export async function runHook(hook: Hook, options: HookOptions): Promise<HookResult> {
  const [program = "", ...args] = hook.run;
  const child = spawn(program, args, {
    cwd: "/",
    detached: true,
    env: { ...environmentOfHooks(), ...options.environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const output = collect(child);
  const limit = limitTime(child, hook.timeoutSeconds * 1000, options);
  const problem = await new Promise<string>((resolve) => {
    child.once("error", (error: NodeJS.ErrnoException) => {
      if (child.pid === undefined) resolve(`cannot be started: ${error.code ?? error.message}`);
    });
    child.once("exit", (code, signal) => {
      void limit.ended().then((why) => {
        if (why !== undefined) resolve(why);
        else if (signal !== null) resolve(`ended by ${signal}`);
        else resolve(code === 0 ? "" : `exited with ${code}`);
      });
    });
    void limit.gaveUp.then(resolve);
  });
  limit.clear();
  await drained(child);
  return { ok: problem === "", problem, output: output() };
}

/** The daemon's, without what is meant for the daemon alone. */
function environmentOfHooks(): Record<string, string | undefined> {
  const ours = new Set(["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"]);
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.has(name)));
}

/** Keeps the end of what is said. */
function collect(child: ChildProcess): () => string {
  let kept = Buffer.alloc(0);
  let dropped = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("error", () => undefined);
    stream?.on("data", (chunk: Buffer) => {
      const all = Buffer.concat([kept, chunk.subarray(-OUTPUT_BYTES_MAX)]);
      dropped ||= kept.length + chunk.length > OUTPUT_BYTES_MAX;
      kept = all.subarray(-OUTPUT_BYTES_MAX);
    });
  }
  return () => `${dropped ? "… " : ""}${kept.toString("utf8").trimEnd()}`;
}

interface Limit {
  /** After the program's own end: why it was ended, once nothing of its group is left. */
  ended(): Promise<string | undefined>;
  /** It outlived SIGKILL (a process that waits for a dead disk does). */
  gaveUp: Promise<string>;
  clear(): void;
}

function limitTime(child: ChildProcess, timeoutMs: number, options: HookOptions): Limit {
  const { stop, stopMs, graceMs } = options;
  const timers: NodeJS.Timeout[] = [];
  let why: string | undefined;
  let giveUp: (problem: string) => void = () => undefined;
  let killed: () => void = () => undefined;
  const gaveUp = new Promise<string>((resolve) => (giveUp = resolve));
  const killedAll = new Promise<void>((resolve) => (killed = resolve));
  const terminate = (reason: string): void => {
    if (why !== undefined) return;
    why = reason;
    signalGroup(child, "SIGTERM");
    timers.push(
      setTimeout(() => {
        signalGroup(child, "SIGKILL");
        killed();
        timers.push(setTimeout(() => giveUp(`${reason} and did not even end by SIGKILL`), graceMs));
      }, graceMs),
    );
  };
  const onStop = (): void => {
    timers.push(setTimeout(() => terminate("was ended because the daemon stops"), stopMs));
  };
  timers.push(setTimeout(() => terminate(`ran longer than ${timeoutMs / 1000} s`), timeoutMs));
  if (stop.aborted) onStop();
  else stop.addEventListener("abort", onStop, { once: true });
  return {
    ended: async () => {
      if (why !== undefined && signalGroup(child, 0)) await killedAll;
      return why;
    },
    gaveUp,
    clear: () => {
      stop.removeEventListener("abort", onStop);
      timers.forEach((timer) => clearTimeout(timer));
    },
  };
}

/** False when nobody is left. */
function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals | 0): boolean {
  if (pid === undefined) return false;
  try {
    return process.kill(-pid, signal);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Closes our ends of the pipes: at once when the others are closed, else a moment later. */
async function drained(child: ChildProcess): Promise<void> {
  const streams = [child.stdout, child.stderr].filter((stream) => stream !== null);
  const closed = Promise.all(
    streams.map((stream) =>
      stream.destroyed
        ? Promise.resolve()
        : new Promise<void>((resolve) => stream.once("close", () => resolve())),
    ),
  );
  const timer = setTimeout(() => streams.forEach((stream) => stream.destroy()), DRAIN_MS);
  await closed;
  clearTimeout(timer);
}
