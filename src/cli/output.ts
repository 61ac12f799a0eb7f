// What is printed: JSON for programs, tables and sentences for people.

import Table from "cli-table3";

export interface Output {
  json: boolean;
}

/** One value in both forms. */
export function print(output: Output, value: unknown, forPeople: () => string): void {
  process.stdout.write(output.json ? `${JSON.stringify(value)}\n` : `${forPeople()}\n`);
}

/** What a change of a file is marked with. */
export const CHANGE_SIGNS = { added: "+", removed: "-", renamed: ">", changed: "M", attributes: "a" };

const BORDERLESS = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  mid: "",
  "mid-mid": "",
  right: "",
  "right-mid": "",
  middle: "  ",
};

/** Columns under a head; numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[], empty: string): string {
  if (rows.length === 0) return empty;
  const colAligns = head.map((_title, column) =>
    rows.every((row) => /^[\d.,]+( ?[KMGTP]?i?B|%)?$/.test(row[column] ?? ""))
      ? ("right" as const)
      : ("left" as const),
  );
  const style = { "padding-left": 0, "padding-right": 0, head: [], border: [], compact: true };
  const drawn = new Table({
    head: head.map((title) => title.toUpperCase()),
    chars: BORDERLESS,
    style,
    colAligns,
  });
  drawn.push(...rows.map((row) => row.map(printable)));
  return drawn
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
}

/** Control characters would reach the terminal, those of eight bits too. */
export function printable(text: string): string {
  return text.replace(
    /[\x00-\x1f\x7f-\x9f]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** 1536 → `1.5 KiB`. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** A bar of `width` characters for `part` of `whole`. */
export function bar(part: number, whole: number, width = 20): string {
  const filled = whole <= 0 ? 0 : Math.min(width, Math.round((part / whole) * width));
  return `[${"#".repeat(filled)}${".".repeat(width - filled)}]`;
}

/** 3725 → `1h 2m`. */
export function duration(seconds: number): string {
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [Math.floor(seconds) % 60, "s"],
  ] as const;
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0s";
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count}${unit}`)
    .join(" ");
}
