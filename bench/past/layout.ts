// Where the many small files lie. Alone, so that the programs that write them stay small.

import { join } from "node:path";

export const FILES_A_DIRECTORY = 1000;

/** The file with this number: `data/dN/fM`. The root has one entry, however many there are. */
export function fileOf(root: string, number: number): string {
  return join(root, "data", `d${Math.floor(number / FILES_A_DIRECTORY)}`, `f${number}`);
}
