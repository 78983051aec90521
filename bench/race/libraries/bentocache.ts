import { BentoCache, bentostore } from 'bentocache';
import { redisDriver } from 'bentocache/drivers/redis';
import { Redis } from 'ioredis';
import { type Contestant, type OpenCache, TTL_MS, versionOf } from '../contestant.js';
import type { ProductRow } from '../product-row.js';

const library = 'bentocache';
const version = versionOf(library);
const KEY = 'product:1';

export const bentocache: readonly Contestant[] = [
  {
    library,
    version,
    invalidatedBy: 'deleteByTag({ tags })',
    open: async (redisUrl, factory) => {
      const cache = openCache(redisUrl);
      const tags = [KEY];
      return {
        read: () => cache.getOrSet({ key: KEY, tags, factory }),
        invalidate: () => cache.deleteByTag({ tags }),
        close: () => cache.disconnectAll(),
      } satisfies OpenCache;
    },
  },
  {
    library,
    version,
    invalidatedBy: 'delete({ key })',
    open: async (redisUrl, factory) => {
      const cache = openCache(redisUrl);
      return {
        read: () => cache.getOrSet<ProductRow>({ key: KEY, factory }),
        invalidate: () => cache.delete({ key: KEY }),
        close: () => cache.disconnectAll(),
      } satisfies OpenCache;
    },
  },
];

function openCache(redisUrl: string) {
  const driver = redisDriver({ connection: new Redis(redisUrl) as never });
  return new BentoCache({ default: 'redis', stores: { redis: bentostore().useL2Layer(driver) }, ttl: TTL_MS });
}
