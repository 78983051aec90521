import { createKeyv } from '@keyv/redis';
import { createCache } from 'cache-manager';
import { type Contestant, TTL_MS, versionOf } from '../contestant.js';

const library = 'cache-manager';
const KEY = 'product:1';

export const cacheManager: readonly Contestant[] = [
  {
    library,
    version: versionOf(library),
    invalidatedBy: 'del(key)',
    async open(redisUrl, load) {
      const cache = createCache({ stores: [createKeyv(redisUrl)], ttl: TTL_MS });
      return {
        read: () => cache.wrap(KEY, load),
        invalidate: () => cache.del(KEY),
        close: () => cache.disconnect(),
      };
    },
  },
];
