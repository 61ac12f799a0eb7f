// Text of a state file as what it should be.

import type { z } from "zod";
import { HoldfastError } from "../io-path/errors.js";

/** `Corrupt` with the first thing that is wrong in `what`, and `hint`. */
export function parseStored<T>(schema: z.ZodType<T>, text: string, what: string, hint: string): T {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new HoldfastError("Corrupt", `${what}: is not JSON`, hint);
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new HoldfastError("Corrupt", `${what}: ${issue?.path.join(".") ?? ""} ${issue?.message ?? ""}`, hint);
}
