// Where a daemon listens or is reached: `HOST:PORT`, `[IPV6]:PORT`.

import { isIPv6 } from "node:net";
import { HoldfastError } from "../io-path/errors.js";
import { ADDRESS_CHARACTERS_MAX } from "./limits.js";

export interface Address {
  host: string;
  /** 0, where one listens: any that is free. */
  port: number;
}

const PORT_MAX = 65_535;
const HOST = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;

/** `Invalid` with an example when it is none. */
export function parseAddress(text: string, what = "address"): Address {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const [, six, name, digits] = match ?? [];
  const port = Number(digits);
  const fits = six === undefined ? HOST.test(name ?? "") : isIPv6(six);
  if (match === null || !fits || port > PORT_MAX || text.length > ADDRESS_CHARACTERS_MAX) {
    const shown = JSON.stringify(text.slice(0, ADDRESS_CHARACTERS_MAX));
    throw new HoldfastError(
      "Invalid",
      `${what}: ${shown} is not HOST:PORT`,
      "write it like backup.example.org:7421, 192.0.2.7:7421 or [2001:db8::7]:7421",
    );
  }
  return { host: six ?? name ?? "", port };
}

export function formatAddress({ host, port }: Address): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Listens on every interface, so it does not say where to connect to. */
export function isWildcard({ host }: Address): boolean {
  return host === "0.0.0.0" || host === "::";
}

/** An address that others can use: the one at which we were seen stands in for "every interface". */
export function reachableAs(address: Address, seenAt: string): Address {
  return isWildcard(address)
    ? { host: seenAt.replace(/^::ffff:(?=\d+\.)/, ""), port: address.port }
    : address;
}
