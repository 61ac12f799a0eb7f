// One path of the API and what answers it.

export interface RouteRequest {
  /** Decoded parts of the path that stand for `:name` in the pattern. */
  params: readonly string[];
  query: URLSearchParams;
  body: unknown;
}

/** `text` is sent as it is, everything else as JSON. */
export type RouteAnswer = { status?: number; json: unknown } | { text: string };

export interface Route {
  method: string;
  /** `/v1/pools/:name`; `:` parts match one segment. */
  path: string;
  run(request: RouteRequest): Promise<RouteAnswer>;
}
