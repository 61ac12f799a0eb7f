// A mounted volume.

import { native, unwrap } from "./addon.js";

export interface MountFlags {
  allowOther: boolean;
  suid: boolean;
  dev: boolean;
  readOnly: boolean;
  noatime: boolean;
  noexec: boolean;
  transport: "auto" | "dev" | "uring";
}

export interface MountRequest extends MountFlags {
  dir: Buffer;
  /** Shown as the mount's source in /proc/self/mountinfo. */
  source: string;
  /** What was there then, for reading: a snapshot's name, a time, an LSN. */
  at?: string;
}

/** Calls `listener` soon after a mount ended by itself; which one is found with `alive`. One listener a process. */
export function onMountEnded(listener: () => void): void {
  native.onMountEnded(listener);
}

export class Mount {
  readonly #handle: number;

  constructor(handle: number) {
    this.#handle = handle;
  }

  /** False once the kernel has ended the connection (umount from outside, abort). */
  get alive(): boolean {
    return native.mountAlive(this.#handle);
  }

  /** `dev` or `uring`. */
  get transport(): string {
    return native.mountTransport(this.#handle);
  }

  /** Why it is that one, in words that finish "because". */
  get transportReason(): string {
    return native.mountTransportReason(this.#handle);
  }

  /** What programs changed through mappings is written back when it fulfils. `Unavailable`: not all within so long. */
  async writeBack(limitMs: number): Promise<void> {
    unwrap(await native.mountWriteBack(this.#handle, limitMs));
  }

  /** Unmounts; a busy mount is a `Conflict`, unless it is to be detached. */
  async stop(how: { detach: boolean }): Promise<void> {
    unwrap(await native.mountStop(this.#handle, how.detach));
  }
}
