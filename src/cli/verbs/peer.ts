// holdfast peer pair|list|set|rename|remove

import type { Command } from "commander";
import type {
  PeerAnswer,
  PeerInviteAnswer,
  PeerInviteStatus,
  PeerPairRequest,
} from "../../daemon/protocol.js";
import type { Client } from "../client.js";
import { collect, contextOf, requireYes } from "../context.js";
import { CliError } from "../errors.js";
import { print, table } from "../output.js";

/** One long poll for the end of an invite. */
const WAIT_S = 25;

export function addPeer(program: Command): void {
  const peer = program
    .command("peer")
    .description("other daemons: make them peers, list them, let go of them");
  addPair(peer);
  addList(peer);
  addSet(peer);
  addRename(peer);
  addRemove(peer);
}

interface PairOptions {
  invite?: boolean;
  name?: string;
  listen?: string;
  address?: string;
  role?: string[];
  wait?: boolean;
}

function addPair(peer: Command): void {
  peer
    .command("pair [invite]")
    .description("at one site with --invite, then at the other with what that printed")
    .option("--invite", "make an invite: 10 minutes, one use")
    .option("--name <name>", "what this site calls the other; default: what it calls itself")
    .option(
      "--role <role>",
      "what it may do here; repeat for each (default: replica-write, read, may-own)",
      collect,
    )
    .option("--listen <host:port>", "with --invite: where to listen while it is open; port 0: any")
    .option("--address <host:port>", "with --invite: what the other site calls, behind a forwarded port")
    .option("--wait", "with --invite: until the other site has paired")
    .action(async (invite: string | undefined, options: PairOptions, command: Command) => {
      if ((invite === undefined) === (options.invite !== true)) {
        throw new CliError(
          "Invalid",
          "either --invite, or the invite that the other site printed",
          "first: holdfast peer pair --invite",
        );
      }
      const { client, output } = contextOf(command);
      const request = {
        ...(options.name === undefined ? {} : { name: options.name }),
        ...(options.role === undefined ? {} : { roles: options.role }),
      };
      if (invite === undefined) return await makeInvite(client, output, options, request as PeerPairRequest);
      const paired = await client.post<PeerAnswer>("/v1/peers/join", { ...request, invite });
      print(output, paired, () => `paired\n${describe(paired)}`);
    });
}

async function makeInvite(
  client: Client,
  output: { json: boolean },
  options: PairOptions,
  request: PeerPairRequest,
): Promise<void> {
  const { listen, address } = options;
  const made = await client.post<PeerInviteAnswer>("/v1/peers/invite", {
    ...request,
    ...(listen === undefined ? {} : { listen }),
    ...(address === undefined ? {} : { address }),
  });
  print(output, made, () =>
    [
      `at the other site, within 10 minutes:`,
      "",
      `    holdfast peer pair ${made.invite}`,
      "",
      `it calls ${made.address}, and expects the key ${made.fingerprint}`,
    ].join("\n"),
  );
  if (options.wait !== true) return;
  const paired = await waitFor(client, made.id);
  print(output, paired, () => `paired\n${describe(paired)}`);
}

async function waitFor(client: Client, id: number): Promise<PeerAnswer> {
  for (;;) {
    const { state, peer } = await client.get<PeerInviteStatus>(`/v1/peers/invite/${id}?wait=${WAIT_S}`);
    if (state === "open") continue;
    if (peer !== null) return peer;
    throw new CliError("Unavailable", `the invite is over: ${REASONS[state]}`, "make a new one");
  }
}

const REASONS = {
  paired: "the peer was removed again",
  expired: "nobody used it within 10 minutes",
  spent: "too many callers did not know its secret",
  closed: "it was closed, or another one was made",
};

function addList(peer: Command): void {
  peer
    .command("list")
    .description("who they are, where they are looked for, what they may do here")
    .action(async (_options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const peers = await client.get<PeerAnswer[]>("/v1/peers");
      print(output, peers, () => peerTable(peers));
    });
}

function addSet(peer: Command): void {
  peer
    .command("set <name>")
    .description("what a peer may do here, or where it is looked for")
    .option("--role <role>", "in place of all roles; repeat for each", collect)
    .option("--address <host:port>", "in place of all addresses; repeat for each", collect)
    .action(async (name: string, options: { role?: string[]; address?: string[] }, command: Command) => {
      const { client, output } = contextOf(command);
      const { role: roles, address: addresses } = options;
      const change = { ...(roles ? { roles } : {}), ...(addresses ? { addresses } : {}) };
      const changed = await client.patch<PeerAnswer>(urlOf(name), change);
      print(output, changed, () => describe(changed));
    });
}

function addRename(peer: Command): void {
  peer
    .command("rename <name> <new>")
    .description("call a peer something else, at this site")
    .action(async (name: string, renamed: string, _options: object, command: Command) => {
      const { client, output } = contextOf(command);
      const changed = await client.patch<PeerAnswer>(urlOf(name), { name: renamed });
      print(output, changed, () => describe(changed));
    });
}

function addRemove(peer: Command): void {
  peer
    .command("remove <name>")
    .description("let go of a peer: its connections end at once, and it has to be paired again")
    .option("--yes", "do it")
    .action(async (name: string, options: { yes?: boolean }, command: Command) => {
      requireYes(options, `removing peer ${name}`);
      const { client, output } = contextOf(command);
      await client.delete(urlOf(name));
      print(output, { removed: name }, () => `peer ${name} is removed`);
    });
}

function urlOf(name: string): string {
  return `/v1/peers/${encodeURIComponent(name)}`;
}

function peerTable(peers: readonly PeerAnswer[]): string {
  const rows = peers.map(({ name, addresses, roles, fingerprint, connected, problem }) => [
    name,
    connected ? "connected" : problem || "not connected",
    addresses.join(" ") || "calls us",
    roles.join(" ") || "none",
    fingerprint.slice(0, 32),
  ]);
  return table(
    ["peer", "state", "addresses", "may here", "key"],
    rows,
    "no peers; pair one: holdfast peer pair --invite",
  );
}

function describe({ name, fingerprint, addresses, roles }: PeerAnswer): string {
  return [
    `${name}  ${fingerprint}`,
    `looked for at: ${addresses.join(", ") || "nowhere; it calls us"}`,
    `may here: ${roles.join(", ") || "nothing"}`,
  ].join("\n");
}
