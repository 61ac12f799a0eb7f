// Figures of Holdfast alone beside what they may be, as lines and in results.

export interface Check {
  what: string;
  measured: string;
  bar: string;
  met: boolean;
}

export function check(
  what: string,
  value: number,
  digits: number,
  sign: "≥" | "≤",
  bar: number,
  unit = "",
): Check {
  return {
    what,
    measured: `${value.toFixed(digits)}${unit}`,
    bar: `${sign} ${bar}${unit}`,
    met: sign === "≥" ? value >= bar : value <= bar,
  };
}

export function printCheck({ what, measured, bar, met }: Check): void {
  process.stdout.write(`${met ? "met   " : "MISSED"} ${what}: ${measured} (${bar})\n`);
}
