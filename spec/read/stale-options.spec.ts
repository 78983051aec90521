import { expect } from 'chai';
import { AsyncLocalStorage } from 'node:async_hooks';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type CacheOptions,
  ConfigurationError,
  GenerationalCache,
  integer,
  memoryStore,
  type Store,
} from '../../lib/index.js';
import { lend } from '../support/lenders.js';
import { uniqueName } from '../support/redis.js';

const TTL_MS = 30;

function lendCache(options: Partial<CacheOptions<Record<never, never>, never>> = {}) {
  const cache = new GenerationalCache({
    ...{ name: uniqueName(), store: memoryStore(), ttlMs: TTL_MS, ttlJitter: 0, staleMs: 60_000 },
    ...options,
  });
  lend({ what: 'a cache', close: () => cache.close() });
  const origin = { value: 'a' as unknown, loads: 0 };
  const value = cache.namespace('item', integer()).one('value', {
    async load(ids) {
      origin.loads++;
      return ids;
    },
    by: ({ item }) => ({ item }),
    value: () => origin.value,
  });
  const stale = async () => {
    await value.fetch({ item: 1 });
    await cache.settled();
    await sleep(TTL_MS + 5);
    origin.loads = 0;
  };
  return { cache, value, origin, stale };
}

describe('the options of leases and stale values', () => {
  it('rejects leases that are no boolean', () => {
    const leases = 'no' as unknown as boolean;
    const options = { name: uniqueName(), store: memoryStore() };
    expect(() => new GenerationalCache({ ...options, leases })).to.throw(ConfigurationError);
    const cache = new GenerationalCache(options);
    expect(() => cache.one('value', { leases, load: async () => [1], by: () => ({}) })).to.throw(ConfigurationError);
  });

  it('calls onStale in the async context of its call', async () => {
    const { value, stale } = lendCache();
    await stale();
    const requests = new AsyncLocalStorage<string>();
    const told: unknown[] = [];
    await requests.run('request 7', () => value.fetch({ item: 1 }, { onStale: () => told.push(requests.getStore()) }));
    expect(told).to.deep.equal(['request 7']);
  });

  it('leaves no rejection of an async onStale unhandled', async () => {
    const { value, stale } = lendCache();
    await stale();
    const unhandled: unknown[] = [];
    const listener = (error: unknown) => unhandled.push(error);
    const others = process.listeners('unhandledRejection');
    process.removeAllListeners('unhandledRejection');
    process.on('unhandledRejection', listener);
    try {
      const failing = async () => {
        throw new Error('the header was sent already');
      };
      const onStale = failing as () => unknown as () => void;
      await value.fetch({ item: 1 }, { onStale }).catch(() => {});
      await sleep(10);
    } finally {
      process.off('unhandledRejection', listener);
      for (const other of others) process.on('unhandledRejection', other as never);
    }
    expect(unhandled).to.deep.equal([]);
  });

  it('loads a stale value anew without a lease, where the store refuses claims alone', async () => {
    const store: Store = {
      ...memoryStore(),
      claim: () => Promise.reject(new Error('NOPERM')),
    };
    const { value, origin, cache, stale } = lendCache({ store });
    await stale();
    origin.value = 'b';
    await value.fetch({ item: 1 });
    await cache.settled();
    await sleep(1_100); // a refresh in vain rests for a second
    await value.fetch({ item: 1 });
    await cache.settled();
    expect(origin.loads).to.be.at.least(1);
  });

  it('stores a value again that was too large once, without a bump', async () => {
    const { value, origin, cache } = lendCache({ ttlMs: 60_000, maxValueBytes: 100, staleMs: 0 });
    origin.value = 'x'.repeat(1_000);
    await value.fetch({ item: 1 });
    await cache.settled();
    origin.value = 'y';
    for (let i = 0; i < 3; i++) {
      expect(await value.fetch({ item: 1 })).to.equal('y');
      await cache.settled();
    }
    expect(origin.loads).to.equal(2);
  });
});
