import { Redis } from 'ioredis';
import { GenerationalCache, integer } from '../../../lib/index.js';
import { redisStore } from '../../../lib/store/redis/index.js';
import { type Contestant, type Load, TTL_MS, versionIn } from '../contestant.js';
import { PRODUCT_ID } from '../product-row.js';

const library = 'gencache';
const version = versionIn(new URL('../../../package.json', import.meta.url));

/** A bump of the entry's own scope, and a bump of everything. */
export const gencache: readonly Contestant[] = [
  {
    library,
    version,
    invalidatedBy: 'products.bump({ product })',
    open: async (redisUrl, load) => {
      const { products, rest } = openCache(redisUrl, load);
      return { ...rest, invalidate: () => products.bump({ product: PRODUCT_ID }) };
    },
  },
  {
    library,
    version,
    invalidatedBy: 'cache.bump()',
    open: async (redisUrl, load) => {
      const { cache, rest } = openCache(redisUrl, load);
      return { ...rest, invalidate: () => cache.bump() };
    },
  },
];

function openCache(redisUrl: string, load: Load) {
  const redis = new Redis(redisUrl);
  const cache = new GenerationalCache({ name: 'race', store: redisStore(redis), ttlMs: TTL_MS });
  const products = cache.namespace('product', integer());
  const rows = products.one('row', { load: async () => [await load()], by: ({ id }) => ({ product: id }) });
  const rest = {
    read: () => rows.fetch({ product: PRODUCT_ID }),
    settled: () => cache.settled(),
    close: async () => {
      await cache.close();
      redis.disconnect();
    },
  };
  return { cache, products, rest };
}
