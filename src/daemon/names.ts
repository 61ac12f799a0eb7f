// Names of pools, volumes and groups.

import { HoldfastError } from "../io-path/errors.js";

export const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

export function checkName(what: string, name: string): string {
  if (!NAME.test(name)) {
    throw new HoldfastError(
      "Invalid",
      `${what}: ${JSON.stringify(name)} is not a name`,
      "a name has 1 to 63 letters, digits, dots, underscores or hyphens and begins with a letter or a digit",
    );
  }
  return name;
}

/** A name made of what somebody else calls themselves; `site` where nothing of it fits. */
export function nameFrom(text: string): string {
  const name = text
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^[^A-Za-z0-9]+/, "")
    .slice(0, 63);
  return name === "" ? "site" : name;
}
