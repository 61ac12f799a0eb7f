// Two sites in one process: their links without a worker, and what each stored and noted.

import assert from "node:assert/strict";
import type { AuditLine } from "../../src/nearsync-lws/audit.js";
import { createIdentity, fingerprintOf } from "../../src/nearsync-lws/identity.js";
import type { Identity } from "../../src/nearsync-lws/identity.js";
import { Links } from "../../src/nearsync-lws/links.js";
import type { Daemon, LinksOptions } from "../../src/nearsync-lws/links.js";
import { ROLES_DEFAULT } from "../../src/nearsync-lws/peers.js";
import type { Peer } from "../../src/nearsync-lws/peers.js";
import type { LinkState } from "../../src/nearsync-lws/transport/sessions.js";
import type { InviteState, Paired } from "../../src/nearsync-lws/pairing/host.js";
import { HoldfastError } from "../../src/io-path/errors.js";
import type { ErrorCode } from "../../src/io-path/errors.js";

export class TestSite {
  readonly identity: Identity = createIdentity();
  readonly fingerprint = fingerprintOf(this.identity.certificate);
  readonly stored: Paired[] = [];
  readonly audit: AuditLine[] = [];
  readonly linkStates: LinkState[] = [];
  readonly invites: InviteState[] = [];
  /** Set: what storing a peer fails with. */
  refuses: HoldfastError | undefined;
  readonly links: Links;

  constructor(
    readonly name: string,
    options: Partial<LinksOptions> = {},
  ) {
    const daemon: Daemon = {
      pair: async ({ paired }) => {
        if (this.refuses !== undefined) throw this.refuses;
        this.stored.push(paired);
      },
      inviteEnded: ({ state }) => void this.invites.push(state),
      audit: (line) => void this.audit.push(line),
      link: (state) => void this.linkStates.push(state),
    };
    this.links = new Links({ identity: this.identity, daemon, ...options });
  }

  get site() {
    return { name: this.name, addresses: ["127.0.0.1:7421"] };
  }

  async invite(): Promise<{ invite: string; address: string }> {
    return await this.links.invite({ ticket: 1, listen: "127.0.0.1:0", site: this.site });
  }

  async join(invite: string): Promise<void> {
    await this.links.join({ ticket: 2, invite, site: this.site });
  }
}

/** A site as the other one knows it. */
export function peerOf({ name, fingerprint, identity }: TestSite, addresses: string[] = []): Peer {
  const { certificate } = identity;
  return {
    name,
    fingerprint,
    certificate,
    addresses,
    roles: [...ROLES_DEFAULT],
    groupRoles: {},
    pairedSeconds: 0,
  };
}

/** For assert.rejects and assert.throws: this code, and these words in message or hint. */
export function failsWith(code: ErrorCode, ...words: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof HoldfastError, String(error));
    assert.equal(error.code, code, error.message);
    for (const word of words) assert.ok(`${error.message} ${error.hint}`.includes(word), error.message);
    return true;
  };
}
