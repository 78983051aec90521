/** Returns a number from 0 to 1, 1 excluded. */
export type Random = () => number;

/** The same numbers for the same seed, so that runs compare: mulberry32, with a period of 2^32, which suffices to choose rows. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function pick<T>(items: readonly T[], random: Random): T {
  return items[Math.floor(random() * items.length)]!;
}

/** Chooses each item with a probability in proportion to its weight; a choice is a binary search. */
export function weighted<T>(items: readonly T[], weightOf: (item: T) => number, random: Random): () => T {
  const sums = new Float64Array(items.length);
  let sum = 0;
  items.forEach((item, i) => (sums[i] = sum += weightOf(item)));
  return () => {
    const wanted = random() * sum;
    let low = 0;
    let high = items.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle]! > wanted) high = middle;
      else low = middle + 1;
    }
    return items[low]!;
  };
}
