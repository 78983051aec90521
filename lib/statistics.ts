import type { Attributes } from './events.js';
import type { Telemetry } from './telemetry.js';

/**
 * The counters of a cache. They only grow; `load_duration_ms` is a sum, to be divided by `queries_run`.
 * Each is counted from one event, whose declaration (`events.ts`) says who emits it and when.
 */
export const COUNTERS = {
  /** Entries answered by the store, read by `fetch`, `fetchMany` and `lookup`. */
  hits: 'read',
  /** Of a cached "there is no such row". */
  absent_hits: 'read',
  /** Hits beyond their time, within a grace. */
  stale_hits: 'read',
  misses: 'read',
  /** Entries read from the source alone, since the store was not to be used. */
  bypasses: 'read',
  /** Queries callers would have run by themselves. */
  queries_avoided: 'read',
  /** Calls of loaders to answer callers. A loader that sends two statements counts as one. */
  queries_run: 'load',
  /** Calls of loaders by `verifyRate`. */
  queries_verifying: 'load',
  /** Milliseconds spent in loaders, together. */
  load_duration_ms: 'load',
  load_errors: 'load',
  /** Entries stored. */
  fills: 'fill',
  /** Entries loaded and not stored, by `reason`. */
  refused_fills: 'fill',
  /** Scopes asked to move, by `level` and `cause`. */
  bumps: 'bump',
  /** Calls of `bump` and `bumpMany` that rejected, by `level` and `cause`. */
  failed_bumps: 'bump',
  /** Entries and generations in the store that could not be used, by `reason`. */
  decode_failures: 'decodeFailure',
  /** By `operation`. */
  store_failures: 'storeFailure',
  /** Hits compared with the source. */
  verified: 'verify',
  /** Confirmed stale entries. */
  stale_entries: 'staleEntry',
} as const;

export type Counter = keyof typeof COUNTERS;

/** One counter with one set of labels: `cache`, `entry`, what the counter says, and the caller's attributes. */
export interface Series {
  readonly counter: Counter;
  readonly labels: Readonly<Record<string, string | number | boolean>>;
  readonly value: number;
}

/** Label sets beyond this many are counted together, under `overflow: true`. */
const SERIES_MAX = 2_000;

/** Adds up the events of a cache. */
export class Statistics {
  readonly #series = new Map<string, { counter: Counter; labels: Series['labels']; value: number }>();

  constructor(telemetry: Telemetry) {
    telemetry.on('read', (event) => {
      const labels = labelsOf(event);
      this.#add('hits', event.hits, labels);
      this.#add('absent_hits', event.absentHits, labels);
      this.#add('stale_hits', event.staleHits, labels);
      this.#add('misses', event.misses, labels);
      this.#add('bypasses', event.bypasses, labels);
      this.#add('queries_avoided', event.queriesAvoided, labels);
    });
    telemetry.on('load', (event) => {
      const labels = labelsOf(event);
      this.#add(event.purpose === 'read' ? 'queries_run' : 'queries_verifying', event.queries, labels);
      this.#add('load_duration_ms', event.durationMs, labels);
      if (event.error !== undefined) this.#add('load_errors', 1, labels);
    });
    telemetry.on('fill', (event) => {
      this.#add('fills', event.fills, labelsOf(event));
      if (event.refused > 0) this.#add('refused_fills', event.refused, labelsOf(event, { reason: event.reason! }));
    });
    telemetry.on('bump', (event) => {
      const labels = { ...event.attributes, cache: event.cache, level: event.level, cause: event.cause };
      if (event.error === undefined) this.#add('bumps', event.bumps, labels);
      else this.#add('failed_bumps', 1, labels);
    });
    telemetry.on('decodeFailure', (event) =>
      this.#add('decode_failures', 1, labelsOf(event, { reason: event.reason })),
    );
    telemetry.on('storeFailure', ({ cache, operation }) => this.#add('store_failures', 1, { cache, operation }));
    telemetry.on('verify', (event) => this.#add('verified', event.verified, labelsOf(event)));
    telemetry.on('staleEntry', (event) => this.#add('stale_entries', 1, labelsOf(event)));
  }

  /** The sum of a counter over the series that have all of these labels. */
  total(counter: Counter, labels: Series['labels'] = {}): number {
    let sum = 0;
    for (const series of this.#series.values()) {
      if (series.counter === counter && has(series.labels, labels)) sum += series.value;
    }
    return sum;
  }

  /** Every series, for an exporter. */
  series(): Series[] {
    return [...this.#series.values()].map((series) => ({ ...series }));
  }

  #add(counter: Counter, value: number, labels: Series['labels']): void {
    if (value === 0) return;
    const key = `${counter} ${JSON.stringify(labels)}`;
    let series = this.#series.get(key);
    if (!series && this.#series.size >= SERIES_MAX && labels['overflow'] === undefined) {
      return this.#add(counter, value, { cache: labels['cache']!, overflow: true });
    }
    if (!series) this.#series.set(key, (series = { counter, labels, value: 0 }));
    series.value += value;
  }
}

function labelsOf(
  event: { cache: string; entry: string; attributes?: Attributes | undefined },
  further?: Attributes,
): Series['labels'] {
  return { ...event.attributes, ...further, cache: event.cache, entry: event.entry };
}

function has(labels: Series['labels'], wanted: Series['labels']): boolean {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}
