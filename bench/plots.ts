// Latency distributions as SVG: for each system the share of ops that took longer than x, both axes logarithmic, so that
// the middle and the tail are seen in one picture.

import type { Histogram } from "./load.js";
import { LABELS, SYSTEMS } from "./plan.js";
import type { SystemName } from "./plan.js";

const WIDTH = 760;
const HEIGHT = 420;
const LEFT = 62;
const RIGHT = 190;
const TOP = 44;
const BOTTOM = 52;
/** Shares below it are not drawn: 1 in 100,000 ops. */
const SHARE_LEAST = 1e-5;

/** Distinct for the colour-blind (Okabe and Ito), and dashed where the hue alone would be close. */
const LINES: Readonly<Record<SystemName, { colour: string; dash?: string }>> = {
  ext4: { colour: "#000000" },
  passthrough_ll: { colour: "#56b4e9" },
  passthrough_ll_uring: { colour: "#56b4e9", dash: "6 3" },
  passthrough_hp_uring: { colour: "#0072b2" },
  fuse_native: { colour: "#e69f00" },
  glusterfs: { colour: "#009e73" },
  holdfast: { colour: "#d55e00" },
  holdfast_rf1: { colour: "#d55e00", dash: "6 3" },
};

export interface Point {
  us: number;
  share: number;
}

/** Points of the curve "share of ops slower than", from the whole down; a bucket ends where the next one begins. */
export function slowerThan(histogram: Histogram): Point[] {
  const total = histogram.reduce((sum, [, count]) => sum + count, 0);
  let left = total;
  return histogram.flatMap(([lowNs, count], index) => {
    const before = index === 0 ? [{ us: Math.max(lowNs, 1) / 1000, share: 1 }] : [];
    left -= count;
    return [...before, { us: (Math.max(lowNs, 1) * 9) / 8 / 1000, share: left / total }];
  });
}

/** One picture; `title` and `note` are shown. */
export function latencySvg(
  title: string,
  note: string,
  curves: Partial<Record<SystemName, Histogram>>,
): string {
  const systems = SYSTEMS.filter((system) => (curves[system]?.length ?? 0) > 0);
  const points = new Map(systems.map((system) => [system, slowerThan(curves[system] ?? [])]));
  const all = [...points.values()].flat();
  const [low, high] = [Math.min(...all.map(({ us }) => us)), Math.max(...all.map(({ us }) => us))];
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const x = (us: number) => LEFT + ((Math.log10(us) - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (share: number) => TOP + (Math.log10(share) / Math.log10(SHARE_LEAST)) * (HEIGHT - TOP - BOTTOM);
  const lines = systems.map((system, index) => {
    const { colour, dash } = LINES[system];
    const drawn = (points.get(system) ?? []).filter(({ share }) => share >= SHARE_LEAST);
    const path = drawn.map(({ us, share }) => `${x(us).toFixed(1)},${y(share).toFixed(1)}`).join(" ");
    const stroke = `fill="none" stroke="${colour}" stroke-width="2"${dash === undefined ? "" : ` stroke-dasharray="${dash}"`}`;
    const row = TOP + 14 + index * 20;
    const key = WIDTH - RIGHT + 14;
    return [
      `<polyline ${stroke} points="${path}"/>`,
      `<line ${stroke} x1="${key}" y1="${row - 4}" x2="${key + 22}" y2="${row - 4}"/>`,
      text(key + 28, row, LABELS[system]),
    ].join("\n");
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}">`,
    `<style>text { font: 12px system-ui, sans-serif; fill: #222 } .grid { stroke: #ddd }</style>`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    `<text x="${LEFT}" y="24" font-weight="bold">${escape(title)}</text>`,
    ...gridX(first, last, x),
    ...gridY(y),
    ...lines,
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 26, "latency", "middle"),
    text(LEFT, HEIGHT - 8, note),
    `</svg>`,
    "",
  ].join("\n");
}

function gridX(first: number, last: number, x: (us: number) => number): string[] {
  return Array.from({ length: last - first + 1 }, (_, at) => {
    const us = 10 ** (first + at);
    const place = x(us).toFixed(1);
    const line = `<line class="grid" x1="${place}" y1="${TOP}" x2="${place}" y2="${HEIGHT - BOTTOM}"/>`;
    return `${line}\n${text(Number(place), HEIGHT - BOTTOM + 16, timeText(us), "middle")}`;
  });
}

function gridY(y: (share: number) => number): string[] {
  return ["100 %", "10 %", "1 %", "0.1 %", "0.01 %", "0.001 %"].map((words, at) => {
    const place = y(10 ** -at).toFixed(1);
    const line = `<line class="grid" x1="${LEFT}" y1="${place}" x2="${WIDTH - RIGHT}" y2="${place}"/>`;
    return `${line}\n${text(LEFT - 6, Number(place) + 4, words, "end")}`;
  });
}

function timeText(us: number): string {
  if (us < 1) return `${Math.round(us * 1000)} ns`;
  if (us < 1000) return `${Math.round(us)} µs`;
  return us < 1e6 ? `${Math.round(us / 1000)} ms` : `${Math.round(us / 1e6)} s`;
}

function text(x: number, y: number, words: string, anchor = "start"): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}">${escape(words)}</text>`;
}

function escape(words: string): string {
  return words.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
