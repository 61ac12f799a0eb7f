// Names of pools, volumes and groups.

import { HoldfastError } from "../io-path/errors.js";

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

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
