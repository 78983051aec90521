import { monotonicMs } from '../async/scheduling.js';

/** Most conditions that are remembered; the oldest is forgotten, and its next line is written at once. */
const CONDITIONS_MAX = 1_000;
/** How often a condition that ends and begins again is written in an interval. */
const BEGINNINGS_MAX = 5;

/**
 * Collapses the lines of a log that are about one condition: the first line is written at once, then one in each interval
 * with the number of those left out, and at the end of the condition how many there were since the last line. An outage of
 * the store would otherwise write a line for each read. A condition that comes and goes, such as a connection that flaps,
 * writes its first beginnings and ends of each interval alone.
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
    const isRecent = known !== undefined && nowMs - known.writtenAtMs < this.#everyMs;
    const beginnings = isRecent ? known.beginnings + (known.hasEnded ? 1 : 0) : 1;
    if (isRecent && (!known.hasEnded || beginnings > BEGINNINGS_MAX)) {
      known.leftOut++;
      return;
    }
    write(line + leftOut(known));
    this.#known.delete(condition);
    const [oldest] = this.#known.keys();
    if (this.#known.size >= CONDITIONS_MAX) this.#known.delete(oldest!);
    const writtenAtMs = isRecent ? known.writtenAtMs : nowMs;
    this.#known.set(condition, { writtenAtMs, leftOut: 0, hasEnded: false, beginnings });
  }

  /**
   * Ends every condition whose name begins so. Returns the number of lines left out, as the end of a line; undefined if no
   * line is to be written, since the beginning was left out.
   */
  end(prefix: string): string | undefined {
    let count = 0;
    let hasBeginning = false;
    let isSilent = false;
    for (const [condition, known] of this.#known) {
      if (!condition.startsWith(prefix)) continue;
      if (known.hasEnded) {
        isSilent ||= known.leftOut > 0;
        continue;
      }
      count += known.leftOut;
      known.leftOut = 0;
      known.hasEnded = true;
      hasBeginning = true;
    }
    return isSilent && !hasBeginning ? undefined : leftOut({ leftOut: count });
  }
}

interface Condition {
  /** When the first line of the interval was written. */
  readonly writtenAtMs: number;
  leftOut: number;
  hasEnded: boolean;
  /** How often it was written that it began, in the interval. */
  readonly beginnings: number;
}

function leftOut(condition: Pick<Condition, 'leftOut'> | undefined): string {
  return condition === undefined || condition.leftOut === 0 ? '' : ` (${condition.leftOut} more since the last line)`;
}
