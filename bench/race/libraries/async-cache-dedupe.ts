import { createCache } from 'async-cache-dedupe';
import { Redis } from 'ioredis';
import { type Contestant, type Load, TTL_MS, versionOf } from '../contestant.js';
import { PRODUCT_ID } from '../product-row.js';

const library = 'async-cache-dedupe';
const version = versionOf(library);
const REFERENCE = `product~${PRODUCT_ID}`;

export const asyncCacheDedupe: readonly Contestant[] = [
  {
    library,
    version,
    invalidatedBy: 'invalidateAll(references)',
    open: async (redisUrl, load) => {
      const { redis, cache } = openCache(redisUrl, load);
      return {
        read: () => cache.product(PRODUCT_ID),
        invalidate: () => cache.invalidateAll([REFERENCE]),
        close: async () => redis.disconnect(),
      };
    },
  },
  {
    library,
    version,
    invalidatedBy: 'clear(name, arg)',
    open: async (redisUrl, load) => {
      const { redis, cache } = openCache(redisUrl, load);
      return {
        read: () => cache.product(PRODUCT_ID),
        invalidate: () => cache.clear('product', PRODUCT_ID),
        close: async () => redis.disconnect(),
      };
    },
  },
];

function openCache(redisUrl: string, load: Load) {
  const redis = new Redis(redisUrl);
  const ttl = TTL_MS / 1_000;
  const cache = createCache({
    ttl,
    storage: { type: 'redis', options: { client: redis, invalidation: { referencesTTL: ttl } } },
  }).define('product', { references: () => [REFERENCE] }, (_id: number) => load());
  return { redis, cache };
}
