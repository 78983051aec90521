import { Redis } from 'ioredis';
import { GroupLoader, Loader, RedisCache, RedisGroupCache } from 'layered-loader';
import { type Contestant, type Load, TTL_MS, versionOf } from '../contestant.js';
import type { ProductRow } from '../product-row.js';

const library = 'layered-loader';
const version = versionOf(library);
const KEY = '1';
const GROUP = 'product';

/**
 * Its README ("Applying invalidations from your own transport") says that an invalidation keeps running loads out of the
 * tier in memory, and that they still reach Redis. So Redis races, and memory alone.
 */
export const layeredLoader: readonly Contestant[] = [
  {
    library,
    version,
    invalidatedBy: 'invalidateCacheForGroup(group)',
    open: async (redisUrl, load) => {
      const redis = new Redis(redisUrl);
      const loader = new GroupLoader<ProductRow>({
        asyncCache: new RedisGroupCache<ProductRow>(redis, { prefix: 'group', json: true, ttlInMsecs: TTL_MS }),
        dataSources: [
          { name: 'rows', getFromGroup: load, getManyFromGroup: async (keys) => Promise.all(keys.map(() => load())) },
        ],
      });
      return {
        read: () => loader.get(KEY, GROUP),
        invalidate: () => loader.invalidateCacheForGroup(GROUP),
        close: async () => redis.disconnect(),
      };
    },
  },
  {
    library,
    version,
    invalidatedBy: 'invalidateCacheFor(key)',
    open: async (redisUrl, load) => {
      const redis = new Redis(redisUrl);
      const loader = new Loader<ProductRow>({
        asyncCache: new RedisCache<ProductRow>(redis, { prefix: 'single', json: true, ttlInMsecs: TTL_MS }),
        dataSources: [rowsBy(load)],
      });
      return {
        read: () => loader.get(KEY),
        invalidate: () => loader.invalidateCacheFor(KEY),
        close: async () => redis.disconnect(),
      };
    },
  },
  {
    library,
    version,
    store: 'memory of one process, no Redis',
    invalidatedBy: 'invalidateCacheFor(key)',
    open: async (_redisUrl, load) => {
      const loader = new Loader<ProductRow>({ inMemoryCache: { ttlInMsecs: TTL_MS }, dataSources: [rowsBy(load)] });
      return {
        read: () => loader.get(KEY),
        invalidate: () => loader.invalidateCacheFor(KEY),
        close: async () => {},
      };
    },
  },
];

function rowsBy(load: Load) {
  return { name: 'rows', get: load, getMany: (keys: string[]) => Promise.all(keys.map(() => load())) };
}
