// Finds changes in a row of states by halving.

/**
 * Every index from `first + 1` to `last` whose key differs from the one before, greatest first. Asks for
 * about changes × log2(row) keys, as long as equal keys mean that nothing changed between.
 */
export function* changes(first: number, last: number, key: (index: number) => string): Generator<number> {
  if (last <= first || key(first) === key(last)) return;
  if (last - first === 1) {
    yield last;
    return;
  }
  const middle = first + Math.floor((last - first) / 2);
  yield* changes(middle, last, key);
  yield* changes(first, middle, key);
}

/** The least index from `first` to `last` for which `is` holds, if it holds from there on; `last + 1`: for none. */
export function firstWhere(first: number, last: number, is: (index: number) => boolean): number {
  let [low, high] = [first, last + 1];
  while (low < high) {
    const middle = low + Math.floor((high - low) / 2);
    if (is(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
