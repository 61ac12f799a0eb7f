// Routes of forks, and of giving a group up: /v1/forks, /v1/yields.

import type { Forks } from "./forks.js";
import * as requests from "./requests.js";
import type { Returns } from "./returns.js";
import type { Route } from "./route.js";

export function forkRoutes(forks: Forks, returns: Returns): Route[] {
  return [
    { method: "GET", path: "/v1/forks", run: async () => ({ json: await forks.list() }) },
    {
      method: "GET",
      path: "/v1/forks/:name",
      run: async ({ params: [name = ""] }) => ({ json: await forks.show(name) }),
    },
    {
      method: "DELETE",
      path: "/v1/forks/:name",
      run: async ({ params: [name = ""], query }) => {
        const { yes } = requests.parse(requests.forkDrop, Object.fromEntries(query));
        await forks.drop(name, { yes: yes === "true" });
        return { json: {} };
      },
    },
    {
      method: "POST",
      path: "/v1/yields",
      run: async ({ body }) => ({ json: await returns.yield(requests.parse(requests.yields, body)) }),
    },
  ];
}
