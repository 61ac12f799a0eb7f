// The benches' arithmetic: plans, ratios within pairs, verdicts, tables. Nothing is measured here.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BARS, JUICEFS } from "../../bench/bars.js";
import type { Bar, RatioBar } from "../../bench/bars.js";
import { PAIRS, SYSTEMS, barsOf, planOf, systemsOf, worksOf } from "../../bench/plan.js";
import type { Mode, SystemName } from "../../bench/plan.js";
import { latencySvg, slowerThan } from "../../bench/plots.js";
import { lossText, replaced } from "../../bench/readme.js";
import { allMet, rowsOf, spread, tableOf, verdictText, verdictsOf } from "../../bench/report.js";
import type { Sample } from "../../bench/report.js";
import { mergeHistograms } from "../../bench/results.js";

const MODES: readonly Mode[] = ["quick", "full", "bars"];
const EVERYTHING = new Set(SYSTEMS);

interface Given {
  work?: string;
  jobs?: number;
  blockBytes?: number;
  system: SystemName;
  pair: number;
  rate: number;
}

function sample({ work = "write", jobs = 1, blockBytes = 4096, system, pair, rate }: Given): Sample {
  const latencyMicroseconds = { p50: 1, p90: 2, p99: 3, p999: 4, max: 5 };
  const rates = { operations: rate, seconds: 1, operationsPerSecond: rate, mibPerSecond: rate };
  return { system, pair, work, jobs, blockBytes, ...rates, latencyMicroseconds, histogram: [[1000, rate]] };
}

/** Every system's rates, pair by pair. */
function samplesOf(
  rates: Partial<Record<SystemName, readonly number[]>>,
  rest: Partial<Given> = {},
): Sample[] {
  return Object.entries(rates).flatMap(([system, list]) =>
    list.map((rate, pair) => sample({ ...rest, system: system as SystemName, pair, rate })),
  );
}

function bar(rest: Partial<RatioBar>): Bar {
  const usual = { kind: "ratio", issue: 5, words: "w", measure: "write/4/1", subject: "holdfast" } as const;
  return { ...usual, against: "libfuse", least: 1, ...rest };
}

const verdict = (samples: readonly Sample[], rest: Partial<RatioBar>) => {
  const [only] = verdictsOf(samples, [], [bar(rest)]);
  assert.ok(only !== undefined);
  return only;
};

describe("bench: spread", () => {
  it("takes the middle of odd counts and the mean of the middle two of even ones, in any order", () => {
    for (const values of [[5], [1, 9], [3, 1, 2], [4, 1, 3, 2], [10, 2, 38, 23, 38, 23, 21]]) {
      const sorted = [...values].sort((a, b) => a - b);
      const half = sorted.length / 2;
      const wanted =
        sorted.length % 2 === 1 ? sorted[Math.floor(half)] : (sorted[half - 1]! + sorted[half]!) / 2;
      for (const order of [values, [...values].reverse(), sorted]) {
        const found = spread(order);
        assert.equal(found?.median, wanted, String(order));
        assert.deepEqual(
          [found?.least, found?.most, found?.count],
          [sorted[0], sorted.at(-1), values.length],
        );
      }
    }
    assert.equal(spread([]), undefined);
  });
});

describe("bench: ratios and verdicts", () => {
  it("takes ratios within pairs, not between medians", () => {
    // Medians alone would say 20 ÷ 10 = 2; pair by pair it is 1, 1, 100.
    const [row] = rowsOf(samplesOf({ ext4: [10, 20, 1], holdfast: [10, 20, 100] }));
    assert.deepEqual(row?.ratios.ext4, { median: 1, least: 1, most: 100, count: 3 });
    assert.equal(row?.rates.holdfast?.median, 20);
  });

  it("leaves out pairs that only one side has", () => {
    const samples = samplesOf({ glusterfs: [1], holdfast: [10, 20, 30] });
    const found = verdict(samples, { against: "glusterfs", least: 10 });
    assert.deepEqual([found.state, found.value?.count, found.value?.median], ["met", 1, 10]);
  });

  it("libfuse is the better one of the run, work by work, and says which", () => {
    for (const [classic, ring, best, ratio] of [
      [10, 20, "passthrough_hp, io_uring", 1],
      [40, 20, "passthrough_ll", 0.5],
    ] as const) {
      const samples = samplesOf({ passthrough_ll: [classic], passthrough_hp_uring: [ring], holdfast: [20] });
      const found = verdict(samples, { least: 0.5 });
      assert.equal(found.value?.median, ratio);
      assert.equal(found.against, `libfuse (${best})`);
      assert.equal(found.state, "met");
      assert.equal(verdict(samples, { least: 1.01 }).state, "missed");
    }
  });

  it("the bar itself is met: at least means at least", () => {
    const samples = samplesOf({ passthrough_ll: [100, 100, 100], holdfast: [70, 80, 90] });
    for (const [least, state] of [
      [0.79, "met"],
      [0.8, "met"],
      [0.81, "missed"],
    ] as const) {
      assert.equal(verdict(samples, { against: "passthrough_ll", least }).state, state);
    }
  });

  it("a share of the reference counts, and the stretch may have a reference of its own", () => {
    const samples = samplesOf({ ext4: [100], passthrough_ll: [50], holdfast: [40] });
    const share = { of: 0.5, words: "half" };
    const found = verdict(samples, { against: "ext4", share, least: 0.8, stretch: { least: 0.9 } });
    assert.deepEqual(
      [found.value?.median, found.state, found.stretchMet, found.against],
      [0.8, "met", false, "half"],
    );
    const other = verdict(samples, { least: 0.8, stretch: { least: 0.4, against: "ext4" } });
    assert.deepEqual([other.state, other.stretchMet], ["met", true]);
    assert.match(other.stretch, /plain directory/);
  });

  it("what was not measured is missed, unless its baseline may be missing", () => {
    const samples = samplesOf({ ext4: [1], holdfast: [1] });
    const states = (["ext4", "passthrough_ll", "libfuse", "glusterfs"] as const).map((against) => {
      return verdict(samples, { against, least: 1 }).state;
    });
    assert.deepEqual(states, ["met", "missed", "missed", "not measured"]);
    assert.ok(!allMet(verdictsOf(samples, [])));
    assert.ok(allMet(verdictsOf(samples, [], [bar({ against: "glusterfs" })])));
    assert.equal(verdict([], { against: "ext4" }).state, "missed");
  });

  it("figures must stay below, by the median", () => {
    const figure: Bar = {
      kind: "figure",
      issue: 5,
      words: "w",
      measure: "drive-bytes-mean",
      subject: "holdfast",
      unit: "KiB",
      most: 8.2,
      stretch: 8,
    };
    const states = [[8.2], [1, 8.3, 99], [7, 8, 99], []].map((values) => {
      const figures = values.map((value, pair) => ({ measure: "drive-bytes-mean", pair, value }));
      const [found] = verdictsOf([], figures, [figure]);
      return [found?.state, found?.stretchMet];
    });
    assert.deepEqual(states, [
      ["met", false],
      ["missed", false],
      ["met", true],
      ["missed", undefined],
    ]);
  });

  it("streams are compared by MiB/s, block sizes and jobs are rows of their own", () => {
    const sizes = [4096, 2 ** 20].flatMap((blockBytes) => [1, 4].map((jobs) => ({ blockBytes, jobs })));
    const works = ["sequential-read", "random-read"];
    const samples = works.flatMap((work) =>
      sizes.flatMap((size) => samplesOf({ ext4: [2], holdfast: [1] }, { work, ...size })),
    );
    const rows = rowsOf(samples);
    assert.equal(rows.length, 8);
    assert.equal(new Set(rows.map(({ key }) => key)).size, 8);
    const units = new Set(rows.map(({ work, unit }) => `${work} ${unit}`));
    assert.deepEqual([...units], ["sequential-read MiB/s", "random-read /s"]);
  });
});

describe("bench: plans", () => {
  it("works have names of their own, and every measure one source", () => {
    for (const mode of MODES) {
      const works = worksOf(mode);
      assert.equal(new Set(works.map(({ id }) => id)).size, works.length);
      const keys = works.flatMap(({ gives }) => gives);
      assert.equal(new Set(keys).size, keys.length);
    }
  });

  it("covers what issue 5 lists: both sizes, both orders, every kind, 1 and 4 jobs", () => {
    const keys = new Set(planOf({ mode: "full", available: EVERYTHING }).flatMap(({ work }) => work.gives));
    for (const work of ["write", "write-fsync", "random-read"])
      for (const rest of ["4/1", "4/4", "1024/1", "1024/4"])
        assert.ok(keys.has(`${work}/${rest}`), `${work}/${rest}`);
    for (const work of ["sequential-write", "sequential-write-fsync", "sequential-read"])
      for (const rest of ["4/1", "4/4", "1024/1", "1024/4"])
        assert.ok(keys.has(`${work}/${rest}`), `${work}/${rest}`);
    for (const work of ["create", "create-fsync", "stat", "readdir", "open-read", "rename", "unlink"])
      assert.ok(keys.has(`${work}/4/1`), work);
    for (const work of ["git-clone", "tar-out"]) assert.ok(keys.has(`${work}/0/1`), work);
  });

  it("a run for bars measures what every bar needs, nine times, and nothing else", () => {
    const plan = planOf({ mode: "bars", available: EVERYTHING });
    for (const wanted of BARS) {
      const task = plan.find(({ work }) => work.gives.includes(wanted.measure));
      assert.ok(task !== undefined, wanted.measure);
      const names = wanted.kind === "figure" ? [] : wanted.against === "libfuse" ? [] : [wanted.against];
      for (const name of [wanted.subject, ...names])
        assert.equal(task.systems.get(name), PAIRS.bars, `${wanted.measure} ${name}`);
      if (wanted.kind === "ratio" && wanted.against === "libfuse")
        for (const name of ["passthrough_ll", "passthrough_hp_uring"] as const)
          assert.equal(task.systems.get(name), PAIRS.bars, `${wanted.measure} ${name}`);
    }
    const measured = new Set(BARS.map(({ measure }) => measure));
    for (const { work } of plan)
      assert.ok(
        work.gives.some((key) => measured.has(key)),
        work.id,
      );
    assert.ok(!systemsOf(plan).has("fuse_native"), "no bar names it");
    const gluster = plan.filter(({ systems }) => systems.has("glusterfs")).map(({ work }) => work.id);
    assert.deepEqual(gluster.sort(), ["files", "sequential-write", "write", "write-fsync"]);
  });

  it("--only takes an id or a measure, for the plan and for its bars alike", () => {
    for (const [only, ids, measures] of [
      ["write-fsync", ["write-fsync"], ["write-fsync/4/1"]],
      ["write-fsync-4", ["write-fsync-4"], ["write-fsync/4/4"]],
      ["stat", ["files"], ["stat/4/1"]],
      ["tree", ["tree"], ["git-clone/0/1", "tar-out/0/1"]],
      ["drive-bytes", ["drive-bytes"], ["drive-bytes-mean", "drive-bytes-worst"]],
    ] as const) {
      const plan = planOf({ mode: "bars", only, available: EVERYTHING });
      assert.deepEqual(
        plan.map(({ work }) => work.id),
        ids,
        only,
      );
      assert.deepEqual(
        [...new Set(barsOf(only).map(({ measure }) => measure))].sort(),
        [...measures].sort(),
        only,
      );
    }
    // A row without GlusterFS does not wait for it.
    assert.ok(!systemsOf(planOf({ mode: "bars", only: "stat", available: EVERYTHING })).has("glusterfs"));
    assert.ok(systemsOf(planOf({ mode: "bars", only: "create", available: EVERYTHING })).has("glusterfs"));
    assert.throws(
      () => planOf({ mode: "bars", only: "nothing", available: EVERYTHING }),
      /there are write-fsync/,
    );
  });

  it("every bar can be asked for alone, by the work that decides it", () => {
    for (const wanted of BARS) {
      const work = worksOf("bars").find(({ gives }) => gives.includes(wanted.measure));
      assert.ok(work !== undefined && barsOf(work.id).includes(wanted), wanted.measure);
    }
  });

  it("measures only what is there; slow systems less often where no bar asks", () => {
    const few = new Set<SystemName>(["ext4", "glusterfs", "holdfast"]);
    for (const { work, systems } of planOf({ mode: "full", available: few })) {
      assert.deepEqual([...systems.keys()], ["ext4", "glusterfs", "holdfast"], work.id);
      assert.deepEqual([...systems.values()], [PAIRS.full, 2, PAIRS.full], work.id);
    }
    const quick = systemsOf(planOf({ mode: "quick", available: EVERYTHING }));
    assert.ok(!quick.has("glusterfs") && !quick.has("fuse_native"));
    const named = systemsOf(planOf({ mode: "quick", named: true, available: EVERYTHING }));
    assert.ok(named.has("glusterfs"));
  });
});

describe("bench: texts", () => {
  it("marks where we lose, quotes JuiceFS, and gives each issue its table", () => {
    const rates = { ext4: [100], passthrough_ll: [10], holdfast: [50] };
    const table = tableOf(rowsOf(samplesOf(rates)));
    assert.match(table, /\*\*0\.50\*\*/);
    assert.match(table, /\| 5\.00 /);
    assert.ok(table.includes((JUICEFS["write/4/1"] ?? NaN).toFixed(2)));
    const lines = table.split("\n");
    assert.equal(new Set(lines.map((line) => line.length)).size, 1, "columns line up");
    const text = verdictText(verdictsOf(samplesOf(rates), []));
    assert.match(text, /^Issue 3: 1 of 5 met$/m);
    assert.match(text, /^Issue 5: \d+ of \d+ met$/m);
    assert.match(text, /MISSED/);
    assert.match(text, /not measured/);
    assert.equal(verdictText([]), "");
  });

  it("every quoted ratio belongs to a row that exists", () => {
    const keys = new Set(worksOf("full").flatMap(({ gives }) => gives));
    for (const [key, value] of Object.entries(JUICEFS)) {
      assert.ok(keys.has(key), key);
      assert.ok(value > 0 && value < 1, `${key}: ${value}`);
    }
  });

  it("says in words where libfuse is better, the worst first", () => {
    const lost = samplesOf({ passthrough_ll: [100], holdfast: [50] });
    const worse = samplesOf({ passthrough_ll: [100], holdfast: [25] }, { work: "stat" });
    const won = samplesOf({ passthrough_ll: [100], holdfast: [200] }, { work: "create" });
    assert.match(lossText(rowsOf([...won, ...lost, ...worse])), /: stat \(0\.25 ×\); write \(0\.50 ×\)\.$/);
    assert.match(lossText(rowsOf(won)), /^No row is slower/);
  });

  it("replaces what lies between the README's marks, again and again", () => {
    const [begin, end] = ["<!-- benches: made by `npm run bench -- --readme` -->", "<!-- benches: end -->"];
    const readme = `# A\n${begin}\nold\n${end}\nrest\n`;
    const once = replaced(readme, "new");
    assert.equal(once, `# A\n${begin}\n\nnew\n\n${end}\nrest\n`);
    assert.equal(replaced(once, "new"), once);
    assert.throws(() => replaced("# A\n", "new"), /is missing/);
  });

  it("draws every system's curve from the whole down to nothing", () => {
    const histogram = [
      [1000, 90],
      [2000, 9],
      [8000, 1],
    ] as const;
    const points = slowerThan(histogram);
    assert.deepEqual(
      points.map(({ share }) => share),
      [1, 0.1, 0.01, 0],
    );
    assert.deepEqual(
      points.map(({ us }) => us),
      [1, 1.125, 2.25, 9],
    );
    const svg = latencySvg("a < b", "note", { ext4: histogram, holdfast: histogram });
    assert.equal(svg.match(/<polyline/g)?.length, 2);
    assert.match(svg, /a &lt; b/);
    assert.ok(!/NaN|Infinity/.test(svg));
    for (const [, x, y] of svg.matchAll(/(\d+\.\d),(\d+\.\d)/g)) {
      assert.ok(Number(x) >= 0 && Number(x) <= 760 && Number(y) >= 0 && Number(y) <= 420, `${x},${y}`);
    }
  });

  it("histograms add up, bucket by bucket", () => {
    const merged = mergeHistograms([
      [
        [8, 1],
        [16, 2],
      ],
      [],
      [
        [4, 5],
        [16, 3],
      ],
    ]);
    assert.deepEqual(merged, [
      [4, 5],
      [8, 1],
      [16, 5],
    ]);
  });
});
