/**
 * The commits, the versions visible in PostgreSQL, and the reads, by one clock: the monotonic one of this process.
 *
 * Each version belongs to one change of one item, also if that change is never committed, or lost in a crash. An observer
 * queries PostgreSQL over and over. A version counts as visible from the instant of the observer's answer, so every
 * uncertainty favours the readers.
 */
import { expect } from 'chai';
import { parseGeneration } from '../../lib/model/generation.js';

/** The values of an item's generations, root first; null for a missing one. */
export type Values = readonly (string | null)[];

export interface Change {
  readonly item: number;
  readonly version: number;
  readonly strict: boolean;
  /** The values at the start of the transaction, and right before COMMIT was sent. */
  readonly before: Values[];
  /** The instants at which COMMIT was sent, and answered. */
  sentMs: number;
  committedMs: number;
}

export interface Read {
  readonly item: number;
  readonly version: number;
  readonly beganMs: number;
  readonly answeredMs: number;
}

/** A version that the observer saw, until the next one. */
interface Sight {
  readonly version: number;
  readonly sinceMs: number;
}

export class History {
  readonly changes: Change[] = [];
  readonly #sights = new Map<number, Sight[]>();
  #versions = 0;

  /** Notes a change before it is made. */
  begin(item: number, strict = false): Change {
    const version = ++this.#versions;
    const change = { item, version, strict, before: [], sentMs: Infinity, committedMs: Infinity };
    this.changes.push(change);
    return change;
  }

  observe(item: number, version: number, answeredMs: number): void {
    const sights = this.#sights.get(item) ?? [];
    this.#sights.set(item, sights);
    if (sights.at(-1)?.version !== version) sights.push({ version, sinceMs: answeredMs });
  }

  seen(item: number): number | undefined {
    return this.#sights.get(item)?.at(-1)?.version;
  }

  /**
   * Ladder step 4a: each read returns a version that was visible at an instant from `boundMs` before its start to its answer.
   */
  judgeBound(reads: readonly Read[], boundMs: number): void {
    for (const read of reads) {
      const fromMs = read.beganMs - boundMs;
      const sights = this.#sights.get(read.item)!;
      const first = sights.findLastIndex(({ sinceMs }) => sinceMs <= fromMs);
      const good =
        sights.slice(Math.max(0, first)).some(({ version }) => version === read.version) ||
        // The observer may miss a version that was replaced soon.
        this.changes.some(
          ({ version, sentMs, committedMs }) =>
            version === read.version && sentMs <= read.answeredMs && committedMs > fromMs,
        );
      if (good) continue;
      const { version, sinceMs } = sights[first]!;
      expect.fail(
        `item ${read.item}: a read returned version ${read.version}, and ${version} had been visible for ` +
          `${(read.beganMs - sinceMs).toFixed()} ms when it began; the bound is ${boundMs} ms`,
      );
    }
  }

  /** Ladder step 4b: no read returns a version older than the last strict commit that was visible at its start. */
  judgeStrict(reads: readonly Read[]): void {
    for (const { item, version, beganMs } of reads) {
      const visible = this.changes.filter(
        (change) => change.item === item && change.strict && this.#visibleMs(change) <= beganMs,
      );
      const least = Math.max(0, ...visible.map((change) => change.version));
      if (version >= least) continue;
      expect.fail(`item ${item}: a read returned version ${version}, and the strict commit of ${least} was visible`);
    }
  }

  /** Every scope that a commit changed has generations that it never had before, or none. */
  judgeGenerations(item: number, now: Values): void {
    for (const change of this.changes) {
      if (change.item !== item || this.#visibleMs(change) === Infinity) continue;
      for (const before of change.before) {
        // Under quarantine, or without a generation, no old entry can be found.
        if (![...before, ...now].every((value) => value !== null && parseGeneration(value)?.generation !== undefined))
          continue;
        expect(now, `item ${item}: its generations, unchanged by the commit of ${change.version}`).to.not.deep.equal(
          before,
        );
      }
    }
  }

  #visibleMs({ item, version, committedMs }: Change): number {
    const sight = this.#sights.get(item)?.find((seen) => seen.version === version);
    return Math.min(committedMs, sight?.sinceMs ?? Infinity);
  }
}
