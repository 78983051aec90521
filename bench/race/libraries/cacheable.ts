import KeyvRedis from '@keyv/redis';
import { Cacheable } from 'cacheable';
import { type Contestant, TTL_MS, versionOf } from '../contestant.js';
import type { ProductRow } from '../product-row.js';

const library = 'cacheable';
const version = versionOf(library);
const KEY = 'product:1';

/** Redis is its only tier. `getOrSet` takes no tags, so that with tags a reader gets, loads and sets, and joins nothing. */
export const cacheable: readonly Contestant[] = [
  {
    library,
    version,
    invalidatedBy: 'tags.invalidateTag(tag)',
    async open(redisUrl, load) {
      const cache = new Cacheable({ primary: new KeyvRedis(redisUrl), tags: true, ttl: TTL_MS });
      return {
        read: async () => {
          const cached = await cache.get<ProductRow>(KEY);
          if (cached !== undefined) return cached;
          const row = await load();
          await cache.set(KEY, row, { tags: [KEY] });
          return row;
        },
        invalidate: () => cache.tags.invalidateTag(KEY),
        close: () => cache.disconnect(),
      };
    },
  },
  {
    library,
    version,
    invalidatedBy: 'delete(key)',
    async open(redisUrl, load) {
      const cache = new Cacheable({ primary: new KeyvRedis(redisUrl), ttl: TTL_MS });
      return {
        read: () => cache.getOrSet(KEY, load),
        invalidate: () => cache.delete(KEY),
        close: () => cache.disconnect(),
      };
    },
  },
];
