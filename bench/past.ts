// `npm run bench -- --past`: the bars of the past (issue 6). Each bench has a Holdfast of its own, made below the disk that
// is given and removed afterwards.

import { PAST_BARS } from "./past/bars.js";
import { measureChain } from "./past/chain.js";
import { measureCost } from "./past/cost.js";
import { FULL, QUICK } from "./past/ground.js";
import type { Wishes } from "./past/ground.js";
import { MOMENT_PARTS, measureMoments } from "./past/moments.js";
import type { MomentPart } from "./past/moments.js";
import { measurePoints } from "./past/points.js";
import { measurePostgres } from "./past/postgres.js";
import { measureReading } from "./past/reading.js";
import { oneBench, runSuite } from "./suite.js";
import type { Bench, Suite } from "./suite.js";

const USAGE = `npm run bench -- --past [NAME,NAME…] [options]
  open        snapshots, clones and openings of the past at 100 and at 1,000,000 files     3 minutes, 10 GiB
  diff        10 changes among 1,000,000 files                                             3 minutes, 10 GiB
  restore     1 GiB out of 1,000,000 files                                                 3 minutes, 10 GiB
              (open, diff and restore together make the files once)
  points      100,000 points of one volume                                                 2 minutes, 5 GiB
  chain       100 clones, each of the one before                                           3 minutes, 7 GiB
  reading     reading then against reading now                                             3 minutes, 7 GiB
  cost        random overwrites with and without 60 s of retention                        21 minutes, 10 GiB
  postgres    PostgreSQL on clones of random moments; as root                             10 minutes, 7 GiB
  --quick        small sizes: does it work at all? The figures mean nothing
  --files N      files of the large volume (default ${FULL.files})
  --points N     (default ${FULL.points})
  --minutes N    of overwriting, each (default ${FULL.minutes})
  --mib N        of the file that is overwritten (default ${FULL.costMib}): larger, and the minute is not held
  --clones N     of PostgreSQL's volume (default ${FULL.clones})
  --pairs N      of chain and reading (default 7)
  --disk DIR     where everything lies (default: holdfast-data/)
  --load FILE    a holdfast-load that is already built
  --keep         keeps the result where it is committed`;

const isMoment = (name: string): name is MomentPart => MOMENT_PARTS.some((part) => part === name);

const BENCHES: readonly Bench<Wishes>[] = [
  {
    names: MOMENT_PARTS,
    needs: 10,
    measures: { open: /^(?:snapshot|clone|open)-/, diff: /^diff/, restore: /^restore-/ },
    take: (place, wishes, wanted) => measureMoments(place, wishes, new Set([...wanted].filter(isMoment))),
  },
  oneBench("points", 5, measurePoints),
  oneBench("chain", 7, measureChain),
  oneBench("reading", 7, measureReading, "past"),
  { ...oneBench("cost", 10, measureCost), load: true },
  oneBench("postgres", 7, measurePostgres),
];

const SUITE: Suite<Wishes> = {
  kind: "past",
  usage: USAGE,
  benches: BENCHES,
  bars: PAST_BARS,
  full: FULL,
  quick: QUICK,
  pairs: { full: 7, quick: 2 },
  options: { files: "files", points: "points", minutes: "minutes", clones: "clones", mib: "costMib" },
  fractions: ["minutes"],
};

/** Exit status: 0, 1 when a bar is missed. */
export const runPast = (root: string, args: readonly string[]): Promise<number> =>
  runSuite(SUITE, root, args);
