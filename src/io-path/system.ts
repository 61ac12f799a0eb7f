// What Node does not offer: who is at the other end of a socket, file locks, the mount table, detaching.

import { readFile } from "node:fs/promises";
import type { Socket } from "node:net";
import { native, unwrap } from "./addon.js";
import type { PeerCredentials } from "./addon.js";
import { HoldfastError } from "./errors.js";

export type { PeerCredentials } from "./addon.js";

/** Credentials as the kernel noted them at connect. Fails closed when the descriptor cannot be had. */
export function peerOf(socket: Socket): PeerCredentials {
  const fd = (socket as Socket & { _handle?: { fd?: unknown } })._handle?.fd;
  if (typeof fd !== "number" || fd < 0)
    throw new HoldfastError("Denied", "the caller's identity cannot be had");
  return unwrap(native.peerCredentials(fd));
}

/** False when another open file holds the lock. It lives as long as the descriptor. */
export function lockExclusive(fd: number): boolean {
  return unwrap(native.lockExclusive(fd));
}

export function addonVersion(): string {
  return native.addonVersion();
}

export interface MountEntry {
  dir: Buffer;
  type: string;
  source: string;
}

/** The mounts that this process sees, oldest first. */
export async function mountTable(): Promise<MountEntry[]> {
  const text = await readFile("/proc/self/mountinfo", "latin1");
  return text.split("\n").flatMap((line) => parseMountLine(line) ?? []);
}

/** One line of mountinfo(5): `id parent major:minor root DIR options [tags] - TYPE SOURCE …`, octal escapes. */
export function parseMountLine(line: string): MountEntry | undefined {
  const [before, after] = line.split(" - ");
  const dir = before?.split(" ")[4];
  const [type, source] = after?.split(" ") ?? [];
  if (dir === undefined || type === undefined || source === undefined) return undefined;
  return { dir: Buffer.from(unescapeOctal(dir), "latin1"), type, source: unescapeOctal(source) };
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Takes away the mounts of dead daemons at a directory; true if there were any. A live mount is left alone. */
export async function detachStale(dir: Buffer): Promise<boolean> {
  return unwrap(await native.detachStale(dir));
}
