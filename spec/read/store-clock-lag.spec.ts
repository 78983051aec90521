import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { GenerationalCache, integer } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { lend } from '../support/lenders.js';
import { lendRedis, uniqueName } from '../support/redis.js';

/** Blocks the event loop. */
function block(ms: number) {
  const endMs = performance.now() + ms;
  while (performance.now() < endMs);
}

describe('the age of a value, after the event loop was blocked', () => {
  it('is not taken for less: a value beyond its TTL is marked', async () => {
    const name = uniqueName();
    const make = () => {
      const cache = new GenerationalCache({
        ...{ ttlMs: 1_000, ttlJitter: 0, staleMs: 60_000, readDeadlineMs: 10_000, fillDeadlineMs: 10_000 },
        name,
        store: redisStore(lendRedis({ lazyConnect: true })),
      });
      lend({ what: 'a cache', close: () => cache.close() });
      const value = cache.namespace('item', integer()).one('value', {
        load: async (ids) => ids,
        by: ({ item }) => ({ item }),
      });
      return { cache, value };
    };
    const one = make();
    const other = make();
    await other.value.fetch({ item: 3 }); // connected
    await other.cache.settled();
    await one.value.fetch({ item: 1 });
    // The reply to the fill, which tells the time, arrives while the application computes.
    await new Promise((resolve) => setImmediate(resolve));
    block(2_000);
    await one.cache.settled();
    await other.value.fetch({ item: 2 });
    await other.cache.settled();
    const told: string[] = [];
    await sleep(1_300); // beyond the TTL of item 2
    await one.value.fetch({ item: 2 }, { onStale: ({ reason }) => told.push(reason) });
    expect(told).to.deep.equal(['refreshing']);
  });
});
