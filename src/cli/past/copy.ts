// Copies a file or tree with everything that belongs to it, through cp of GNU coreutils: it knows holes, hard links,
// owners, modes, times, ACLs and extended attributes, closes a tree to others until it is complete, and asks for
// copies by reference (copy_file_range), which a volume answers by sharing stored pages.

import { spawn, spawnSync } from "node:child_process";
import { asArgument, raw } from "../bytes.js";
import type { Bytes } from "../bytes.js";
import { CliError } from "../errors.js";
import { fromMessages } from "./failure.js";

/** The first that asks for copies by reference. */
const COREUTILS_MIN = 9;
const LOCALE = { LC_ALL: "C" };
const MESSAGES_MAX = 2000;
const NEWLINE = 0x0a;

/** A name in an open directory. */
export interface Place {
  directory: number;
  name: Bytes;
}

export interface Copy {
  from: Place;
  /** An ASCII name that is not there. */
  to: Place;
  /** Everything that was kept must come, also attributes that the target may not know. */
  exact: boolean;
  what: string;
  started: (pid: number) => void;
  /** Is called for each entry that is copied. */
  entry?: (() => void) | undefined;
}

/** Refuses a `cp` that could not do it. */
export function requireCp(): void {
  const { stdout = "", error } = spawnSync("cp", ["--version"], {
    encoding: "utf8",
    env: { ...process.env, ...LOCALE },
  });
  const version = /^cp \(GNU coreutils\) (\d+)\.\S*/.exec(stdout);
  if (Number(version?.[1]) >= COREUTILS_MIN) return;
  const found =
    error !== undefined
      ? "there is none"
      : version === null
        ? "this one is another"
        : `this is ${version[0]}`;
  const hint = `install it, or copy by hand: cp -a MOUNT/.holdfast/at/TIME/PATH TARGET`;
  throw new CliError(
    "Unavailable",
    `cp of GNU coreutils ${COREUTILS_MIN} or newer is needed; ${found}`,
    hint,
  );
}

/** What the child calls the descriptors. */
const [FROM, TO] = [3, 4];

/** Its warnings. Fails where anything is missing in the copy; what is there then is the caller's to remove. */
export async function copy({ from, to, exact, what, started, entry }: Copy): Promise<string> {
  const preserve = exact ? "mode,ownership,timestamps,links,xattr" : "all";
  const verbose = entry === undefined ? [] : ["-v"];
  const how = ["-dR", `--preserve=${preserve}`, "--reflink=auto", "--sparse=auto", "-T"];
  const options = [...how, ...verbose, "--"];
  const source = `/proc/self/fd/${FROM}/${from.name}` as Bytes;
  const target = `/proc/self/fd/${TO}/${to.name}`;
  const text = asArgument(source);
  // Node passes text only; xargs passes bytes.
  const [program, args, input]: [string, string[], Buffer] =
    text === undefined
      ? ["xargs", ["-0", "-n", "2", "cp", ...options], raw(`${source}\0${target}\0` as Bytes)]
      : ["cp", [...options, text, target], Buffer.alloc(0)];
  const child = spawn(program, args, {
    // A group of its own, so that one signal ends all of it.
    detached: true,
    env: { ...process.env, ...LOCALE },
    stdio: ["pipe", entry === undefined ? "ignore" : "pipe", "pipe", from.directory, to.directory],
  });
  // With -v, and in this locale, cp writes a line for each entry; a newline in a name is escaped.
  child.stdout?.on("data", (lines: Buffer) => {
    for (const byte of lines) if (byte === NEWLINE) entry?.();
  });
  const end = new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve(code ?? -1));
  });
  let messages = "";
  child.stderr?.on("data", (text: Buffer) => {
    if (messages.length < MESSAGES_MAX) messages += text.toString("utf8");
  });
  // One that ended at once does not read.
  child.stdin?.on("error", () => undefined);
  child.stdin?.end(input);
  const { pid } = child;
  if (pid !== undefined) started(pid);
  const status = await interruptible(pid, end, what);
  const said = readable(messages, from, what);
  if (status === 0) return said;
  throw fromMessages(said === "" ? `cp ended with status ${status}` : said, what);
}

/** Ends the copy when we are to end. */
async function interruptible(pid: number | undefined, end: Promise<number>, what: string): Promise<number> {
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  let interrupted = "";
  const interrupt = (signal: NodeJS.Signals): void => {
    interrupted = signal;
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  };
  for (const signal of signals) process.on(signal, interrupt);
  try {
    const status = await end;
    if (interrupted !== "")
      throw new CliError("Unavailable", `${what}: ended by ${interrupted}, nothing was changed`);
    return status;
  } finally {
    for (const signal of signals) process.off(signal, interrupt);
  }
}

/** The child's names for things are not those of who reads. */
function readable(messages: string, from: Place, what: string): string {
  const source = asArgument(from.name) ?? from.name;
  return messages
    .replaceAll(`/proc/self/fd/${FROM}/${source}`, source)
    .replaceAll(/\/proc\/self\/fd\/4\/[a-z]+/g, what.includes("'") ? "the copy" : "its copy")
    .replaceAll(/^(?:cp|xargs): /gm, "")
    .trim()
    .replaceAll("\n", "; ");
}

/** Makes a copy durable before it gets its name, in a file system whose order of changes nobody promises. */
export function syncFileSystem(directory: number): void {
  const { status, stderr } = spawnSync("sync", ["-f", "/proc/self/fd/3"], {
    encoding: "utf8",
    stdio: ["ignore", "ignore", "pipe", directory],
  });
  if (status !== 0) throw fromMessages(stderr.trim(), "making the copy durable");
}
