// Routes of loss statements: /v1/failovers/:target/statement.

import type { Replicas } from "./replicas.js";
import type { Route } from "./route.js";

export function statementRoutes(replicas: Replicas): Route[] {
  return [
    {
      method: "GET",
      path: "/v1/failovers/:target/statement",
      run: async ({ params: [target = ""] }) => ({ json: await replicas.statement(target) }),
    },
  ];
}
