/**
 * The name that a misspelt one probably stands for, for the question "did you mean ...?" in messages. Undefined if none of
 * `names` is near. A third of the longer name's characters may differ, and one always; a name that begins with the other
 * is near, too: `org`, `organization`.
 */
export function nearestName(name: string, names: Iterable<string>): string | undefined {
  let nearest: string | undefined;
  let least = Infinity;
  for (const other of names) {
    const distance = editDistance(name.toLowerCase(), other.toLowerCase());
    const limit = Math.max(1, Math.floor(Math.max(name.length, other.length) / 3));
    if ((distance <= limit || isBeginning(name, other)) && distance < least) {
      least = distance;
      nearest = other;
    }
  }
  return nearest;
}

/** Two letters begin too many words. */
const BEGINNING_MIN = 3;

function isBeginning(a: string, b: string): boolean {
  return Math.min(a.length, b.length) >= BEGINNING_MIN && (a.startsWith(b) || b.startsWith(a));
}

/**
 * Insertions, deletions, substitutions, and swaps of neighbours that turn `a` into `b` (optimal string alignment: Damerau,
 * CACM 7 (3), 1964; Wagner and Fischer, JACM 21 (1), 1974). A swap counts once, unlike in Levenshtein's distance, which the
 * common packages have: `ogr` is one step from `org`. Takes `a.length * b.length` steps.
 */
export function editDistance(a: string, b: string): number {
  let [beforeLast, last]: [number[], number[]] = [[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const differs = a[i - 1] === b[j - 1] ? 0 : 1;
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row.push(
        Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + differs, swapped ? beforeLast[j - 2]! + 1 : Infinity),
      );
    }
    [beforeLast, last] = [last, row];
  }
  return last[b.length]!;
}
