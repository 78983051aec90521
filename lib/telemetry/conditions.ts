import { monotonicMs } from '../async/scheduling.js';

/** Most conditions that are remembered; the oldest is forgotten, and its next line is written at once. */
const CONDITIONS_MAX = 1_000;

/**
 * Collapses the lines of a log that are about one condition: the first line is written at once, then one in each interval
 * with the number of those left out, and at the end of the condition how many there were since the last line. An outage of
 * the store would otherwise write a line for each read.
 */
export class Conditions {
  readonly #everyMs: number;
  readonly #known = new Map<string, Condition>();

  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /** Writes a line about a condition, or counts it. */
  write(condition: string, line: string, write: (line: string) => void): void {
    const nowMs = monotonicMs();
    const known = this.#known.get(condition);
    if (known !== undefined && nowMs - known.writtenAtMs < this.#everyMs) {
      known.leftOut++;
      return;
    }
    write(line + leftOut(known));
    this.#known.delete(condition);
    const [oldest] = this.#known.keys();
    if (this.#known.size >= CONDITIONS_MAX) this.#known.delete(oldest!);
    this.#known.set(condition, { writtenAtMs: nowMs, leftOut: 0 });
  }

  /** Ends every condition whose name begins so. Returns the number of lines left out, as the end of a line. */
  end(prefix: string): string {
    let count = 0;
    for (const [condition, known] of this.#known) {
      if (!condition.startsWith(prefix)) continue;
      count += known.leftOut;
      this.#known.delete(condition);
    }
    return leftOut({ leftOut: count });
  }
}

interface Condition {
  readonly writtenAtMs: number;
  leftOut: number;
}

function leftOut(condition: Pick<Condition, 'leftOut'> | undefined): string {
  return condition === undefined || condition.leftOut === 0 ? '' : ` (${condition.leftOut} more since the last line)`;
}
