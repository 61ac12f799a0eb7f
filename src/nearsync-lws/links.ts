// Everything that has a socket to another site, in one place: the invite's listener now and then, calls to an invite.
// It runs in the worker; tests run it without one.

import { networkInterfaces } from "node:os";
import { formatAddress, isWildcard, parseAddress } from "./address.js";
import type { Address } from "./address.js";
import { Admission } from "./admission.js";
import { fingerprintOf } from "./identity.js";
import type { Identity } from "./identity.js";
import { createInvite, parseInvite, writeInvite } from "./invite.js";
import { INVITE_MS } from "./limits.js";
import { acceptInvite } from "./pairing/guest.js";
import { PairingHost } from "./pairing/host.js";
import type { DaemonCalls, InviteRequest, JoinRequest, OpenInvite, WorkerCalls } from "./worker-api.js";

/** The daemon's side, however it is reached; nothing is awaited but `pair`. */
export type Daemon = {
  [K in keyof DaemonCalls]: (argument: Parameters<DaemonCalls[K]>[0]) => unknown;
};

export class Links implements WorkerCalls {
  readonly #identity: Identity;
  readonly #daemon: Daemon;
  readonly #admission: Admission;
  #open: { ticket: number; host: PairingHost } | undefined;

  constructor(identity: Identity, daemon: Daemon) {
    this.#identity = identity;
    this.#daemon = daemon;
    this.#admission = new Admission((line) => void daemon.audit(line));
  }

  async invite({ ticket, listen, advertise, site }: InviteRequest): Promise<OpenInvite> {
    this.#open?.host.close();
    this.#open = undefined;
    const where = parseAddress(listen, "--listen");
    const named = advertise === undefined ? undefined : parseAddress(advertise, "--address");
    const invite = createInvite(where, fingerprintOf(this.#identity.certificate));
    const host = await PairingHost.open({
      identity: this.#identity,
      secret: invite.secret,
      listen: where,
      site,
      admission: this.#admission,
      accept: async (paired) => void (await this.#daemon.pair({ ticket, paired })),
      ended: (state) => void this.#daemon.inviteEnded({ ticket, state }),
      audit: (line) => void this.#daemon.audit(line),
    });
    this.#open = { ticket, host };
    const address = named ?? callable({ host: where.host, port: host.port });
    this.#daemon.audit({ event: "invite opened", from: formatAddress({ ...where, port: host.port }) });
    const said = { ...invite, address: { ...address, port: address.port === 0 ? host.port : address.port } };
    return { invite: writeInvite(said), address: formatAddress(said.address), lifeMs: INVITE_MS };
  }

  closeInvite({ ticket }: { ticket: number }): void {
    if (this.#open?.ticket === ticket) this.#open.host.close();
  }

  async join({ ticket, invite, site }: JoinRequest): Promise<void> {
    await acceptInvite({
      identity: this.#identity,
      invite: parseInvite(invite),
      site,
      accept: async (paired) => void (await this.#daemon.pair({ ticket, paired })),
    });
  }

  close(): void {
    this.#open?.host.close();
    this.#admission.close();
  }
}

/** For a listener on every interface: the first that others can see, else this machine's own. */
function callable(address: Address): Address {
  if (!isWildcard(address)) return address;
  const seen = Object.values(networkInterfaces())
    .flat()
    .find((at) => at !== undefined && !at.internal && (at.family === "IPv4" || address.host === "::"));
  return { host: seen?.address ?? "127.0.0.1", port: address.port };
}
