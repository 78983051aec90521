import { memoryStore, type MemoryStoreOptions, type Store } from '../../lib/index.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { lendRedis } from './redis.js';

/** Every store by its name: a function that makes one place, and opens it again and again as several processes would. */
export function sharedStores(options: MemoryStoreOptions = {}): Readonly<Record<string, () => () => Store>> {
  return {
    memoryStore: () => {
      const shared = memoryStore(options);
      return () => shared;
    },
    redisStore: () => () => redisStore(lendRedis({ lazyConnect: true })),
  };
}
