// Routes of comparisons between sites: /v1/verifications.

import * as requests from "./requests.js";
import type { Route } from "./route.js";
import type { Verifications } from "./verifications.js";

export function verificationRoutes(verifications: Verifications): Route[] {
  return [
    {
      method: "POST",
      path: "/v1/verifications",
      run: async ({ body }) => ({
        status: 201,
        json: await verifications.begin(requests.parse(requests.verify, body)),
      }),
    },
    {
      method: "GET",
      path: "/v1/verifications/:target/:peer",
      run: async ({ params: [target = "", peer = ""] }) => ({
        json: await verifications.look({ target, peer }),
      }),
    },
    {
      method: "DELETE",
      path: "/v1/verifications/:target/:peer",
      run: async ({ params: [target = "", peer = ""] }) => ({
        json: await verifications.end({ target, peer }),
      }),
    },
  ];
}
