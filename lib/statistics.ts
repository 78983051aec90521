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
      const { key, labels } = labelling(event);
      this.#add('hits', event.hits, key, labels);
      this.#add('absent_hits', event.absentHits, key, labels);
      this.#add('stale_hits', event.staleHits, key, labels);
      this.#add('misses', event.misses, key, labels);
      this.#add('bypasses', event.bypasses, key, labels);
      this.#add('queries_avoided', event.queriesAvoided, key, labels);
    });
    telemetry.on('load', (event) => {
      const { key, labels } = labelling(event);
      this.#add(event.purpose === 'read' ? 'queries_run' : 'queries_verifying', event.queries, key, labels);
      this.#add('load_duration_ms', event.durationMs, key, labels);
      this.#add('load_errors', event.error === undefined ? 0 : 1, key, labels);
    });
    telemetry.on('fill', (event) => {
      const { key, labels } = labelling(event);
      this.#add('fills', event.fills, key, labels);
      this.#addLabelled('refused_fills', event.refused, () => ({ ...labels(), reason: event.reason! }));
    });
    telemetry.on('bump', ({ cache, level, cause, attributes, bumps, error }) => {
      const labels = () => ({ ...attributes, cache, level, cause });
      if (error === undefined) this.#addLabelled('bumps', bumps, labels);
      else this.#addLabelled('failed_bumps', 1, labels);
    });
    telemetry.on('decodeFailure', (event) => {
      this.#addLabelled('decode_failures', 1, () => ({ ...labelling(event).labels(), reason: event.reason }));
    });
    telemetry.on('storeFailure', ({ cache, operation }) => {
      this.#addLabelled('store_failures', 1, () => ({ cache, operation }));
    });
    telemetry.on('verify', (event) => this.#addLabelled('verified', event.verified, labelling(event).labels));
    telemetry.on('staleEntry', (event) => this.#addLabelled('stale_entries', 1, labelling(event).labels));
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

  #addLabelled(counter: Counter, value: number, labels: () => Series['labels']): void {
    if (value > 0) this.#add(counter, value, JSON.stringify(labels()), labels);
  }

  /** `key` tells label sets of one counter apart; `labels` makes them, once. */
  #add(counter: Counter, value: number, key: string, labels: () => Series['labels']): void {
    if (value === 0) return;
    const id = `${counter} ${key}`;
    const series = this.#series.get(id);
    if (series) series.value += value;
    else if (this.#series.size < SERIES_MAX || key === OVERFLOW) {
      this.#series.set(id, { counter, labels: labels(), value });
    } else this.#add(counter, value, OVERFLOW, () => ({ cache: labels()['cache']!, overflow: true }));
  }
}

const OVERFLOW = 'overflow';

/** The labels of an event. Every hit comes by here, so a call without attributes makes one short string. */
function labelling(event: { cache: string; entry: string; attributes?: Attributes | undefined }): {
  key: string;
  labels: () => Series['labels'];
} {
  const { cache, entry, attributes } = event;
  return {
    key: attributes === undefined ? entry : `${entry} ${JSON.stringify(attributes)}`,
    labels: () => ({ ...attributes, cache, entry }),
  };
}

function has(labels: Series['labels'], wanted: Series['labels']): boolean {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}
