// Routes of replication: /v1/protections and /v1/failovers.

import type { Protections } from "./protections.js";
import type { Replicas } from "./replicas.js";
import * as requests from "./requests.js";
import type { Route } from "./route.js";
import type { Siblings } from "./siblings.js";

export function protectionRoutes(protections: Protections, replicas: Replicas, siblings: Siblings): Route[] {
  return [
    { method: "GET", path: "/v1/protections", run: async () => ({ json: await protections.answers() }) },
    {
      method: "POST",
      path: "/v1/protections",
      run: async ({ body }) => ({
        status: 201,
        json: await protections.protect(requests.parse(requests.protect, body)),
      }),
    },
    {
      method: "DELETE",
      path: "/v1/protections/:target/:peer",
      run: async ({ params: [target = "", peer = ""] }) => {
        if (!(await siblings.forget(target, peer))) await protections.unprotect(target, peer);
        return { json: {} };
      },
    },
    {
      method: "POST",
      path: "/v1/failovers",
      run: async ({ body }) => ({ json: await replicas.failover(requests.parse(requests.failover, body)) }),
    },
  ];
}
