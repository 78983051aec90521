import { GencacheError } from '../errors/errors.js';
import type { BumpEvent, CacheEvents, LoadEvent } from '../telemetry/events.js';

type Name = keyof CacheEvents;

/** The part of a cache that `observe` needs, for a cache with any source. */
export interface Observable {
  on<K extends Name>(name: K, listener: (event: CacheEvents[K][0]) => void): () => void;
}

/** The events of a cache since the call of `observe`. */
export interface Observation {
  /** Calls of loaders, failed calls included. */
  readonly loads: number;
  /** Calls of `bump` and `bumpMany`, failed calls included. */
  readonly bumps: number;
  /** Resolves with the first load that ends after this call. Rejects when the observation is stopped before. */
  nextLoad(): Promise<LoadEvent>;
  /** Resolves with the first bump that ends after this call. Rejects when the observation is stopped before. */
  nextBump(): Promise<BumpEvent>;
  /** Every event of one name so far, oldest first. A copy. */
  events<K extends Name>(name: K): CacheEvents[K][0][];
  /** Ends the observation and keeps its events. Idempotent. */
  stop(): void;
}

/** The names of all events; a missing name does not compile. */
const NAMES: Readonly<Record<Name, true>> = {
  read: true,
  staleHit: true,
  load: true,
  fill: true,
  bump: true,
  decodeFailure: true,
  storeFailure: true,
  verify: true,
  staleEntry: true,
  storeUp: true,
  breakerChanged: true,
  freshnessChanged: true,
  localUnverified: true,
  localEviction: true,
  warning: true,
};

/**
 * Counts and awaits the events of a cache, from now until `stop()`. Keeps every event, so it is for tests.
 *
 *     const seen = observe(cache);
 *     const bumped = seen.nextBump();
 *     await renameWorkflow(9, 'nightly');
 *     expect((await bumped).paths).to.deep.equal(['detector=42']);
 *     expect(seen.loads).to.equal(0);
 */
export function observe(cache: Observable): Observation {
  const heard: { [K in Name]?: CacheEvents[K][0][] } = {};
  const waiting = new Set<{ name: Name; resolve(event: never): void; reject(error: Error): void }>();
  const names = Object.keys(NAMES) as Name[];
  const stops = names.map((name) =>
    cache.on(name, (event) => {
      ((heard[name] ??= []) as (typeof event)[]).push(event);
      for (const waiter of waiting) {
        if (waiter.name !== name) continue;
        waiting.delete(waiter);
        waiter.resolve(event as never);
      }
    }),
  );
  let stopped = false;

  function next<K extends Name>(name: K): Promise<CacheEvents[K][0]> {
    if (stopped) return Promise.reject(endedEarly(name));
    const event = new Promise<CacheEvents[K][0]>((resolve, reject) => waiting.add({ name, resolve, reject }));
    // A test may stop early and await this promise no more: no unhandled rejection then.
    event.catch(() => {});
    return event;
  }

  return {
    get loads() {
      return heard.load?.length ?? 0;
    },
    get bumps() {
      return heard.bump?.length ?? 0;
    },
    nextLoad: () => next('load'),
    nextBump: () => next('bump'),
    events: (name) => [...(heard[name] ?? [])],
    stop() {
      stopped = true;
      for (const stop of stops) stop();
      for (const { name, reject } of waiting) reject(endedEarly(name));
      waiting.clear();
    },
  };
}

function endedEarly(name: Name): GencacheError {
  return new GencacheError(
    'CLOSED',
    `The observation was stopped before an event "${name}" came. Stop it after the last event that the test awaits.`,
  );
}
