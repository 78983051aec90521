import { GencacheError } from '../errors/errors.js';
import type { BumpEvent, CacheEvents, LoadEvent } from '../telemetry/events.js';

type Name = keyof CacheEvents;

/** What `observe` needs of a cache, whatever its source. */
export interface Observable {
  on<K extends Name>(name: K, listener: (event: CacheEvents[K][0]) => void): () => void;
}

/** What a cache did since it is observed. */
export interface Observation {
  /** Calls of loaders, also those that failed. */
  readonly loads: number;
  /** Calls of `bump` and `bumpMany`, also those that failed. */
  readonly bumps: number;
  /** Resolves with the first load that ends after this call. Rejects when the observation is stopped before. */
  nextLoad(): Promise<LoadEvent>;
  /** Resolves with the first bump that ends after this call. Rejects when the observation is stopped before. */
  nextBump(): Promise<BumpEvent>;
  /** Every event of one name so far, oldest first. A copy. */
  events<K extends Name>(name: K): CacheEvents[K][0][];
  /** Hears nothing from now on. What was heard stays. Idempotent. */
  stop(): void;
}

/** Every event there is; the compiler sees to it that none is missing. */
const NAMES: Readonly<Record<Name, true>> = {
  read: true,
  load: true,
  fill: true,
  bump: true,
  decodeFailure: true,
  storeFailure: true,
  verify: true,
  staleEntry: true,
  storeUp: true,
  freshnessChanged: true,
  warning: true,
};

/**
 * Counts and awaits what a cache does, from now until `stop()`. Keeps every event: for tests.
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
    // A test that stops early and no longer awaits it is no error.
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
    `An event can be awaited while its cache is observed. The observation was stopped before a "${name}" came. ` +
      'Stop it after the last event that the test awaits.',
  );
}
