// A file of the state folder that is a list: `{"format": 1, "list": […]}`.

import { z } from "zod";
import type { StateFolder } from "./state-folder.js";
import { parseStored } from "./stored-json.js";

export interface ListFile<T extends z.ZodType> {
  /** Empty where there is no file; `Corrupt` with the first thing that is wrong. */
  read(folder: StateFolder): z.output<T>[];
  /** Durable when it returns. */
  write(folder: StateFolder, list: readonly z.input<T>[]): void;
}

/** `hint`: what to do when it cannot be read. */
export function listFile<T extends z.ZodType>(
  name: string,
  item: T,
  { most, hint }: { most?: number; hint: string },
): ListFile<T> {
  const items = z.array(item);
  const list = most === undefined ? items : items.max(most);
  const schema = z.strictObject({ format: z.literal(1), list });
  return {
    read(folder) {
      const text = folder.read(name);
      return text === undefined ? [] : parseStored(schema, text, `${folder.path}/${name}`, hint).list;
    },
    write(folder, written) {
      folder.write(name, `${JSON.stringify({ format: 1, list: written }, undefined, 2)}\n`);
    },
  };
}
