// Routes of failovers that are planned, or only tried: /v1/failovers/planned and /v1/failovers/tests.

import type { Handovers } from "./handovers.js";
import * as requests from "./requests.js";
import type { Route } from "./route.js";
import type { TestFailovers } from "./test-failovers.js";

export function failoverRoutes(handovers: Handovers, tests: TestFailovers): Route[] {
  return [
    {
      method: "POST",
      path: "/v1/failovers/planned",
      run: async ({ body }) => ({
        json: await handovers.planned(requests.parse(requests.plannedFailover, body)),
      }),
    },
    { method: "GET", path: "/v1/failovers/tests", run: async () => ({ json: await tests.list() }) },
    {
      method: "POST",
      path: "/v1/failovers/tests",
      run: async ({ body }) => {
        const { target, name, ...path } = requests.parse(requests.testFailover, body);
        const isMounted = path.path !== undefined || path.path_base64 !== undefined;
        const dir = isMounted ? requests.requirePath("mount point", path) : undefined;
        const told = await tests.begin({ target, name, dir });
        return { status: told.already ? 200 : 201, json: told };
      },
    },
    {
      method: "DELETE",
      path: "/v1/failovers/tests/:target",
      run: async ({ params: [target = ""] }) => ({ json: await tests.drop(target) }),
    },
  ];
}
