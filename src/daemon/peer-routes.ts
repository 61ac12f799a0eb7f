// Routes below /v1/peers.

import { HoldfastError } from "../io-path/errors.js";
import type { Peers } from "./peers.js";
import type { Protections } from "./protections.js";
import * as requests from "./requests.js";
import type { Route } from "./route.js";

export function peerRoutes(peers: Peers, protections: Protections): Route[] {
  return [
    { method: "GET", path: "/v1/peers", run: async () => ({ json: peers.answers() }) },
    {
      method: "PATCH",
      path: "/v1/peers/:name",
      run: async ({ params: [name = ""], body }) => ({
        json: await peers.set(name, requests.parse(requests.peerSet, body)),
      }),
    },
    {
      method: "DELETE",
      path: "/v1/peers/:name",
      run: async ({ params: [name = ""] }) => {
        protections.requireUnused(name);
        await peers.remove(name);
        return { json: {} };
      },
    },
    {
      method: "POST",
      path: "/v1/peers/invite",
      run: async ({ body }) => ({
        status: 201,
        json: await peers.invite(requests.parse(requests.peerInvite, body)),
      }),
    },
    {
      method: "GET",
      path: "/v1/peers/invite/:id",
      run: async ({ params: [id = ""], query }) => {
        const { wait } = requests.parse(requests.inviteWait, Object.fromEntries(query));
        return { json: await peers.inviteStatus(ticketOf(id), wait * 1000) };
      },
    },
    {
      method: "DELETE",
      path: "/v1/peers/invite/:id",
      run: async ({ params: [id = ""] }) => {
        await peers.closeInvite(ticketOf(id));
        return { json: {} };
      },
    },
    {
      method: "POST",
      path: "/v1/peers/join",
      run: async ({ body }) => ({
        status: 201,
        json: await peers.join(requests.parse(requests.peerJoin, body)),
      }),
    },
  ];
}

function ticketOf(id: string): number {
  if (/^\d{1,9}$/.test(id)) return Number(id);
  throw new HoldfastError("NotFound", `there is no invite ${JSON.stringify(id.slice(0, 20))}`);
}
