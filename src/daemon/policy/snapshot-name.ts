// Names of the snapshots that a policy takes: PREFIX-2026-11-28T05-30-00Z, with -2, -3 … where the clock came by that
// second before. A policy knows its own by the whole form, so `auto` never takes `auto-old-…` for its own.

/** A name has 63 characters; the time takes 21, a number up to 3. */
export const PREFIX_CHARACTERS_MAX = 39;
const PREFIX = /^[A-Za-z0-9][A-Za-z0-9._-]{0,38}$/;
const REST = /^-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(?:-\d{1,2})?$/;
const TWINS_MAX = 99;

export function isPrefix(text: string): boolean {
  return PREFIX.test(text);
}

export function isOwn(prefix: string, name: string): boolean {
  return name.startsWith(prefix) && REST.test(name.slice(prefix.length));
}

/** The first name for this second that is not taken; `undefined` when a hundred are. */
export function freeName(prefix: string, wallMs: number, taken: ReadonlySet<string>): string | undefined {
  const time = new Date(Math.floor(wallMs / 1000) * 1000).toISOString().slice(0, 19).replaceAll(":", "-");
  const first = `${prefix}-${time}Z`;
  if (!taken.has(first)) return first;
  for (let number = 2; number <= TWINS_MAX; number += 1) {
    if (!taken.has(`${first}-${number}`)) return `${first}-${number}`;
  }
  return undefined;
}
