// Mount options, as mount(8) writes them.

import { HoldfastError } from "../io-path/errors.js";
import type { MountFlags } from "../io-path/mount.js";

const DEFAULTS: MountFlags = {
  allowOther: false,
  suid: false,
  dev: false,
  readOnly: false,
  noatime: false,
  noexec: false,
  transport: "auto",
};

const OPTIONS: Readonly<Record<string, Partial<MountFlags>>> = {
  defaults: {},
  default_permissions: {},
  allow_other: { allowOther: true },
  ro: { readOnly: true },
  rw: { readOnly: false },
  suid: { suid: true },
  nosuid: { suid: false },
  dev: { dev: true },
  nodev: { dev: false },
  atime: { noatime: false },
  relatime: { noatime: false },
  noatime: { noatime: true },
  exec: { noexec: false },
  noexec: { noexec: true },
  "transport=auto": { transport: "auto" },
  "transport=dev": { transport: "dev" },
  "transport=uring": { transport: "uring" },
};

/** The last word wins, as in mount(8). `default_permissions` is always on, so `allow_other` never comes without. */
export function parseMountOptions(options: readonly string[]): MountFlags {
  let flags = DEFAULTS;
  for (const option of options) {
    const change = OPTIONS[option];
    if (change === undefined || !Object.hasOwn(OPTIONS, option)) {
      throw new HoldfastError(
        "Invalid",
        `mount option ${JSON.stringify(option)} is not known`,
        `known: ${Object.keys(OPTIONS).join(", ")}`,
      );
    }
    flags = { ...flags, ...change };
  }
  return flags;
}
