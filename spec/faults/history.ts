/**
 * What was committed, what could be seen in PostgreSQL, and what was read, by one clock: the process's own, monotonic.
 *
 * A version is given once, to one change of one item, also where that change is never committed, or lost by a crash.
 * An observer asks PostgreSQL over and over; what it is told counts as visible from the instant of the answer, so that
 * every doubt is in the readers' favour.
 */
import { expect } from 'chai';
import { parseGeneration } from '../../lib/model/generation.js';

/** The values of an item's generations, root first; null where there is none. */
export type Values = readonly (string | null)[];

export interface Change {
  readonly item: number;
  readonly version: number;
  readonly strict: boolean;
  /** When the transaction began, and right before COMMIT was sent. */
  readonly before: Values[];
  /** When COMMIT was sent, and answered. */
  sentMs: number;
  committedMs: number;
}

export interface Read {
  readonly item: number;
  readonly version: number;
  readonly beganMs: number;
  readonly answeredMs: number;
}

/** A version that the observer saw, until it saw another. */
interface Sight {
  readonly version: number;
  readonly sinceMs: number;
}

export class History {
  readonly changes: Change[] = [];
  readonly #sights = new Map<number, Sight[]>();
  #versions = 0;

  /** Notes a change that is about to be made. */
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
   * Ladder step 4a: each read returns what was the truth at some instant from `boundMs` before it began until its answer.
   */
  judgeBound(reads: readonly Read[], boundMs: number): void {
    for (const read of reads) {
      const fromMs = read.beganMs - boundMs;
      const sights = this.#sights.get(read.item)!;
      const first = sights.findLastIndex(({ sinceMs }) => sinceMs <= fromMs);
      const good =
        sights.slice(Math.max(0, first)).some(({ version }) => version === read.version) ||
        // The observer may never have seen one that was soon followed by another.
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

  /** Ladder step 4b: no read returns what is older than the last strict commit that was visible when it began. */
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

  /** Every scope that a commit changed has generations which it never had before, or none. */
  judgeGenerations(item: number, now: Values): void {
    for (const change of this.changes) {
      if (change.item !== item || this.#visibleMs(change) === Infinity) continue;
      for (const before of change.before) {
        // Under quarantine, or without a generation, there is nothing that an old entry could be found by.
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
