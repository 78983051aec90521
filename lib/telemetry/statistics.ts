import type { Attributes } from './events.js';
import type { MissCause } from '../model/outcome.js';
import type { Emitter } from './emitter.js';

/**
 * The counters of a cache. They only grow; `load_duration_ms` is a sum, to be divided by `queries_run`.
 * Each counter adds up one event, whose declaration (`events.ts`) names its emitter and its moment.
 */
export const COUNTERS = {
  /** Entries that the store, or the local tier, answered to `fetch`, `fetchMany`, `lookup` and `peek`. */
  hits: 'read',
  /** Hits of a cached absence: there is no such row. */
  absent_hits: 'read',
  /** Of `hits` and `absent_hits`: those whose value the local tier had. */
  local_hits: 'read',
  /** Of `local_hits`: those without a command, since the store tells which generations change. */
  tracked_hits: 'read',
  /** Values of the local tier that a read could not use, by `reason`. */
  local_unverified: 'localUnverified',
  /** Values that the local tier dropped for want of room. */
  local_evictions: 'localEviction',
  /** Values served within a grace, by `reason`: beyond their TTL, or in an outage of the store. */
  stale_hits: 'staleHit',
  /** Misses, by `cause`. */
  misses: 'read',
  /** Entries read from the source while the store must not be used, by `reason`. */
  bypasses: 'read',
  /** Queries that a hit, or a load joined with another call, saved. */
  queries_avoided: 'read',
  /** Calls of loaders to answer callers. A loader that sends two statements counts as one. */
  queries_run: 'load',
  /** Calls of loaders by `verifyRate`. */
  queries_verifying: 'load',
  /** Sum of the time in loaders, in ms. */
  load_duration_ms: 'load',
  load_errors: 'load',
  /** Entries stored. */
  fills: 'fill',
  /** Entries loaded and not stored, by `reason`. */
  refused_fills: 'fill',
  /** Scopes bumped, by `namespace` and `cause`. */
  bumps: 'bump',
  /** Calls of `bump` and `bumpMany` that rejected, by `namespace` and `cause`. */
  failed_bumps: 'bump',
  /** Entries and generations in the store that could not be used, by `reason`. */
  decode_failures: 'decodeFailure',
  /** Failures of the store, by `operation`. */
  store_failures: 'storeFailure',
  /** Times that a breaker opened, by `operation`. */
  breaker_openings: 'breakerChanged',
  /** Hits compared with the source. */
  verified: 'verify',
  /** Confirmed stale entries. */
  stale_entries: 'staleEntry',
} as const;

export type Counter = keyof typeof COUNTERS;

/** One counter with one set of labels: `cache`, `namespace`, `entry`, the counter's own labels, and the caller's attributes. */
export interface Series {
  readonly counter: Counter;
  readonly labels: Readonly<Record<string, string | number | boolean>>;
  readonly value: number;
}

/** Series with attributes, or with causes of bumps, above this number share series labelled `overflow: true`. */
const SERIES_MAX = 2_000;

interface CommonLabels {
  readonly cache: string;
  readonly namespace?: string | undefined;
  readonly entry?: string | undefined;
  readonly attributes?: Attributes | undefined;
}

/** Hits of one entry name that cost less than an event. */
export interface CheapHits extends CommonLabels {
  readonly hits: number;
  readonly absentHits: number;
  readonly queriesAvoided: number;
}

/** Adds up the events of a cache. */
export class Statistics {
  readonly #hitSources: (() => CheapHits)[] = [];
  readonly #series = new Map<string, OwnSeries>();
  /** The series of `#series` without further labels, by counter, namespace and entry: each hit finds some, without making a key. */
  readonly #plain = new Map<Counter, Map<string | undefined, Map<string | undefined, OwnSeries>>>();

  constructor(telemetry: Emitter) {
    telemetry.on('read', (event) => {
      const { hits, absentHits, localHits, trackedHits, missed, bypasses, bypassReasons, queriesAvoided } = event;
      if (hits > 0) this.#add('hits', hits, event);
      if (absentHits > 0) this.#add('absent_hits', absentHits, event);
      if (localHits > 0) this.#add('local_hits', localHits, event);
      if (trackedHits > 0) this.#add('tracked_hits', trackedHits, event);
      if (missed.length > 0) this.#addEach('misses', countBy(missed), event, 'cause');
      if (bypasses > 0) this.#addEach('bypasses', Object.entries(bypassReasons), event, 'reason');
      if (queriesAvoided > 0) this.#add('queries_avoided', queriesAvoided, event);
    });
    telemetry.on('staleHit', (event) => this.#add('stale_hits', 1, event, { reason: event.reason }));
    telemetry.on('localUnverified', (event) => this.#add('local_unverified', 1, event, { reason: event.reason }));
    telemetry.on('localEviction', (event) => this.#add('local_evictions', 1, event));
    telemetry.on('load', (event) => {
      this.#add(event.purpose === 'read' ? 'queries_run' : 'queries_verifying', event.queries, event);
      this.#add('load_duration_ms', event.durationMs, event);
      this.#add('load_errors', event.error === undefined ? 0 : 1, event);
    });
    telemetry.on('fill', (event) => {
      this.#add('fills', event.fills, event);
      this.#addEach('refused_fills', Object.entries(event.refusalReasons), event, 'reason');
    });
    // A cause is the caller's text, and as unbounded as an attribute.
    telemetry.on('bump', ({ cache, namespace, cause, attributes, bumps, error }) => {
      const labels = { cache, namespace, attributes: { ...attributes, cause } };
      if (error === undefined) this.#add('bumps', bumps, labels);
      else this.#add('failed_bumps', 1, labels);
    });
    telemetry.on('decodeFailure', (event) => this.#add('decode_failures', 1, event, { reason: event.reason }));
    telemetry.on('storeFailure', (event) => this.#add('store_failures', 1, event, { operation: event.operation }));
    telemetry.on('breakerChanged', ({ cache, operation, isOpen }) => {
      if (isOpen) this.#add('breaker_openings', 1, { cache }, { operation });
    });
    telemetry.on('verify', (event) => this.#add('verified', event.verified, event));
    telemetry.on('staleEntry', (event) => this.#add('stale_entries', 1, event));
  }

  /** Adds the hits that `take` returns whenever counters are read. They are of the local tier, and tracked. */
  collect(take: () => CheapHits): void {
    this.#hitSources.push(take);
  }

  #collect(): void {
    for (const take of this.#hitSources) {
      const taken = take();
      const { hits, absentHits, queriesAvoided } = taken;
      this.#add('hits', hits, taken);
      this.#add('absent_hits', absentHits, taken);
      this.#add('local_hits', hits + absentHits, taken);
      this.#add('tracked_hits', hits + absentHits, taken);
      this.#add('queries_avoided', queriesAvoided, taken);
    }
  }

  /** Returns the sum of a counter over the series that have all of these labels. */
  total(counter: Counter, labels: Series['labels'] = {}): number {
    this.#collect();
    let sum = 0;
    for (const series of this.#series.values()) {
      if (series.counter === counter && has(series.labels, labels)) sum += series.value;
    }
    return sum;
  }

  /** Returns a copy of every series, for an exporter. */
  series(): Series[] {
    this.#collect();
    return [...this.#series.values()].map((series) => ({ ...series }));
  }

  /** Adds numbers that an event has by reason or by cause, each under its own label. */
  #addEach(counter: Counter, counts: Iterable<readonly [string, number]>, labels: CommonLabels, label: string): void {
    for (const [which, count] of counts) this.#add(counter, count, labels, { [label]: which });
  }

  #add(counter: Counter, value: number, labels: CommonLabels, further?: Series['labels']): void {
    if (value === 0) return;
    const { namespace, entry, attributes } = labels;
    if (further !== undefined || attributes !== undefined) this.#labelled(counter, labels, further).value += value;
    else {
      const plain = this.#plain.get(counter)?.get(namespace)?.get(entry) ?? this.#addPlain(counter, labels);
      plain.value += value;
    }
  }

  #addPlain(counter: Counter, labels: CommonLabels): OwnSeries {
    const { namespace, entry } = labels;
    let byNamespace = this.#plain.get(counter);
    if (byNamespace === undefined) this.#plain.set(counter, (byNamespace = new Map()));
    let byEntry = byNamespace.get(namespace);
    if (byEntry === undefined) byNamespace.set(namespace, (byEntry = new Map()));
    const series = this.#labelled(counter, labels, undefined);
    byEntry.set(entry, series);
    return series;
  }

  #labelled(
    counter: Counter,
    { cache, namespace, entry, attributes }: CommonLabels,
    further: Series['labels'] | undefined,
  ): OwnSeries {
    let key = `${counter} ${namespace} ${entry}`;
    for (const name in further) key += ` ${further[name]}`;
    for (const name in attributes) key += ` ${JSON.stringify(name)} ${JSON.stringify(attributes[name])}`;
    const found = this.#series.get(key);
    if (found !== undefined) return found;
    if (attributes !== undefined && attributes !== OVERFLOW && this.#series.size >= SERIES_MAX) {
      return this.#labelled(counter, { cache, namespace, entry, attributes: OVERFLOW }, further);
    }
    const own = { ...(namespace !== undefined && { namespace }), ...(entry !== undefined && { entry }) };
    const series = { counter, labels: { ...attributes, ...further, cache, ...own }, value: 0 };
    this.#series.set(key, series);
    return series;
  }
}

interface OwnSeries extends Series {
  value: number;
}

function countBy(missed: readonly { readonly cause: MissCause }[]): ReadonlyMap<MissCause, number> {
  const counts = new Map<MissCause, number>();
  for (const { cause } of missed) counts.set(cause, (counts.get(cause) ?? 0) + 1);
  return counts;
}

const OVERFLOW: Attributes = { overflow: true };

function has(labels: Series['labels'], wanted: Series['labels']): boolean {
  return Object.entries(wanted).every(([name, value]) => labels[name] === value);
}
