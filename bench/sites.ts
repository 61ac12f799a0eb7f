// `npm run bench -- --sites`: the bars of replication (issue 7). Both daemons run here, on the same processors and disk.

import { SITES_BARS } from "./sites/bars.js";
import { measureCost } from "./sites/cost.js";
import { measureFailover } from "./sites/failover.js";
import { FULL, QUICK } from "./sites/ground.js";
import type { Wishes } from "./sites/ground.js";
import { measureLine } from "./sites/line.js";
import { measureReplicaPoints } from "./sites/points.js";
import { measureRpo } from "./sites/rpo.js";
import { measureWire } from "./sites/wire.js";
import { oneBench, runSuite } from "./suite.js";
import type { Suite } from "./suite.js";

const USAGE = `npm run bench -- --sites [NAME,NAME…] [options]
  rpo         how far the peer is behind while ${FULL.rate} MB/s are changed      11 minutes, 22 GiB
  cost        what the owner's fsynced writes pay                        4 minutes, 10 GiB
  wire        bytes sent for bytes changed                               1 minute, 13 GiB
  line        a line of 1 MiB/s, 10 MiB/s changed                       13 minutes, 19 GiB
  failover    a thousand files and a million: command to written        5 minutes, 16 GiB
  points      1,000 points at the peer, each opened                      5 minutes, 7 GiB
  --quick        small sizes: does it work at all? The figures mean nothing
  --minutes N    of changing (default ${FULL.minutes})
  --rate N       MB/s that are changed (default ${FULL.rate})
  --files N      of the large group (default ${FULL.files})
  --points N     (default ${FULL.points})
  --pairs N      turns of cost (default 9)
  --disk DIR     where everything lies (default: holdfast-data/)
  --load FILE    a holdfast-load that is already built
  --keep         keeps the result where it is committed`;

const SUITE: Suite<Wishes> = {
  kind: "sites",
  usage: USAGE,
  benches: [
    oneBench("rpo", 22, measureRpo),
    { ...oneBench("cost", 10, measureCost), load: true },
    oneBench("wire", 13, measureWire),
    oneBench("line", 19, measureLine),
    oneBench("failover", 16, measureFailover),
    oneBench("points", 7, measureReplicaPoints, "replica"),
  ],
  bars: SITES_BARS,
  full: FULL,
  quick: QUICK,
  pairs: { full: 9, quick: 2 },
  options: { minutes: "minutes", rate: "rate", files: "files", points: "points" },
  fractions: ["minutes"],
};

/** Exit status: 0, 1 when a bar is missed. */
export const runSites = (root: string, args: readonly string[]): Promise<number> =>
  runSuite(SUITE, root, args);
