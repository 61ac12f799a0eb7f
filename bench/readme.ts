// What is made from the kept results: the README's tables and the plots in `results/`.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { JUICEFS_SOURCE } from "./bars.js";
import { microTable } from "./micro.js";
import { LABELS, SYSTEMS } from "./plan.js";
import { latencySvg } from "./plots.js";
import { nameOf, tableOf, verdictText } from "./report.js";
import type { Row } from "./report.js";
import { readKept } from "./results.js";
import type { MicroResults, MountResults, Origin } from "./results.js";

const BEGIN = "<!-- benches: made by `npm run bench -- --readme` -->";
const END = "<!-- benches: end -->";

/** Rows whose distributions are drawn. */
const PLOTTED = [
  "write-fsync/4/1",
  "write-fsync/4/4",
  "write/4/1",
  "random-read/4/1",
  "create/4/1",
  "stat/4/1",
];

/** The exit status. */
export function writeReadme(root: string): number {
  const [mounts, bars, micro] = [
    readKept<MountResults>(root, "mounts"),
    readKept<MountResults>(root, "bars"),
    readKept<MicroResults>(root, "micro"),
  ];
  const shown = mounts ?? bars;
  if (shown === undefined && micro === undefined) {
    throw new Error("nothing is kept yet: run with --keep first");
  }
  const plots = shown === undefined ? [] : writePlots(root, shown);
  const parts = [
    shown === undefined ? "" : mountText(shown),
    shown === undefined ? "" : lossText(shown.rows),
    plots.map(({ title, file }) => `![${title}](bench/results/${file})`).join("\n"),
    bars === undefined ? "" : `The bars (${originText(bars)}):\n\n${verdictText(bars.bars)}`,
    micro === undefined ? "" : `Parts of the engine (${originText(micro)}):\n\n${microTable(micro.rows)}`,
  ];
  const path = join(root, "README.md");
  writeFileSync(path, replaced(readFileSync(path, "utf8"), parts.filter((part) => part !== "").join("\n\n")));
  process.stdout.write(`README.md and ${plots.length} plots are made\n`);
  return 0;
}

/** The text with everything between the marks replaced. */
export function replaced(readme: string, inside: string): string {
  const [begin, end] = [readme.indexOf(BEGIN), readme.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`README.md: ${BEGIN} … ${END} is missing`);
  return `${readme.slice(0, begin + BEGIN.length)}\n\n${inside}\n\n${readme.slice(end)}`;
}

function originText({ machine, commit, command, at }: Origin): string {
  const { processor, cores, memoryMib, kernel } = machine;
  const memory = `${Math.round(memoryMib / 1024)} GiB`;
  return `${processor}, ${cores} cores, ${memory}, Linux ${kernel}; commit ${commit}, ${at.slice(0, 10)}; \`${command}\``;
}

function mountText(results: MountResults): string {
  const setups = SYSTEMS.filter((system) => results.setups[system] !== undefined).map(
    (system) => `- ${LABELS[system]}: ${results.setups[system]}`,
  );
  const missing = Object.entries(results.missing).map(([system, reason]) => `- without ${system}: ${reason}`);
  const caches = results.cold ? "" : " Not run as root: look-ups and opens are warm.";
  return [
    `${originText(results)}.${caches} Rates are medians, ratios are taken within each pair: median (least–most). ` +
      "The baselines but GlusterFS have no redundancy. A ratio under 1 is bold.",
    [...setups, ...missing, `- ${JUICEFS_SOURCE}`].join("\n"),
    tableOf(results.rows),
  ].join("\n\n");
}

/** Where a baseline without redundancy is better, in words: a reader must not have to look for it. */
export function lossText(rows: readonly Row[]): string {
  const lost = rows.flatMap((row) => {
    const ratio = row.libfuse && row.ratios[row.libfuse]?.median;
    return ratio !== undefined && ratio < 1 ? [{ name: nameOf(row), ratio }] : [];
  });
  if (lost.length === 0) return "No row is slower than the better libfuse.";
  const worst = lost
    .sort((a, b) => a.ratio - b.ratio)
    .map(({ name, ratio }) => `${name} (${ratio.toFixed(2)} ×)`);
  return `Where we lose to the better libfuse, which stores one copy and checks nothing: ${worst.join("; ")}.`;
}

function writePlots(root: string, results: MountResults): { title: string; file: string }[] {
  return PLOTTED.flatMap((key) => {
    const row = results.rows.find((one) => one.key === key);
    const curves = results.latencies[key];
    if (row === undefined || curves === undefined || Object.keys(curves).length === 0) return [];
    const title = `${nameOf(row)}: share of operations that took longer`;
    const file = `latency-${key.replaceAll("/", "-")}.svg`;
    const { processor, cores, kernel } = results.machine;
    const note = `${processor}, ${cores} cores, Linux ${kernel}, commit ${results.commit}`;
    writeFileSync(join(root, "bench", "results", file), latencySvg(title, note, curves));
    return [{ title, file }];
  });
}
