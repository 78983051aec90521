import { type CacheOptions, type Entry, GenerationalCache, integer } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import type { BypassReason, ReadEvent } from '../../lib/index.js';
import { deferred } from './deferred.js';
import { lend } from './lenders.js';
import { lendRedis, uniqueName } from './redis.js';

export interface LentCache {
  readonly name: string;
  readonly cache: GenerationalCache;
  /** What the loader reads: an item's value by its id. */
  readonly rows: Map<number, unknown>;
  /** The ids of each call of the loader. */
  readonly loads: number[][];
  readonly items: { bump(ids: { item: number }): Promise<void>; bumpMany(ids: { item: number }[]): Promise<void> };
  /** The row of an item, or undefined. */
  readonly value: Entry<{ item: number }, unknown>;
  /** Makes the loader wait; call what it returns to let it go on. */
  hold(): () => void;
}

/** Much longer than the default: a machine that is busy for 100 ms makes no bypass of a hit. */
export const READ_DEADLINE_MS = 5_000;

/**
 * One process of an application: a cache with a namespace `item` and an entry `value` that reads `rows`.
 * On the shared Redis, unless a store or a URL says otherwise. Closed after the spec.
 */
export function lendCache(
  options: Partial<CacheOptions<Record<never, never>, never>> & { url?: string; rows?: LentCache['rows'] } = {},
): LentCache {
  const { url, rows = new Map<number, unknown>(), ...rest } = options;
  const name = options.name ?? uniqueName();
  const store = options.store ?? redisStore(lendRedis(url === undefined ? {} : { url }));
  const cache = new GenerationalCache({ readDeadlineMs: READ_DEADLINE_MS, ...rest, name, store });
  lend({ what: `the cache ${name}`, close: () => cache.close() });
  const items = cache.namespace('item', integer());
  const loads: number[][] = [];
  let held: Promise<void> = Promise.resolve();
  const value = items.one('value', {
    async load(ids) {
      const asked = ids.map((id) => Number(id.item));
      loads.push(asked);
      const read = asked.filter((id) => rows.has(id)).map((id) => ({ id, value: rows.get(id) }));
      await held;
      return read;
    },
    by: (row) => ({ item: row.id }),
    value: (row) => row.value,
  });
  const hold = () => {
    const gate = deferred();
    held = gate.promise;
    return gate.resolve;
  };
  return { name, cache, rows, loads, items, value, hold };
}

/** Reads of a lent cache, with what came of them. */
export function watchReads({ cache, value }: Pick<LentCache, 'cache' | 'value'>) {
  const reads: ReadEvent[] = [];
  cache.on('read', (event) => reads.push(event));
  return {
    /** Of the entries bypassed so far, how many for this reason. */
    bypasses: (reason: BypassReason) => reads.reduce((sum, read) => sum + (read.bypassReasons[reason] ?? 0), 0),
    /** How a lookup ends: of a bypass, its reason. */
    async outcome(item = 1) {
      const looked = await value.lookup({ item });
      return looked.outcome === 'bypass' ? looked.reason : looked.outcome;
    },
    /** The value, when its fill has ended too. */
    async fetch(item = 1) {
      const fetched = await value.fetch({ item });
      await cache.settled();
      return fetched;
    },
  };
}
