import { Redis } from 'ioredis';
import { memoryStore, type Store } from '../lib/index.js';
import { redisStore } from '../lib/store/redis/index.js';
import { keyPrefix } from '../lib/model/key.js';

export interface DemoRedis {
  readonly kind: 'embedded' | 'external';
  /** For people. */
  readonly where: string;
  readonly store: Store;
  /** For the relay, which closes it. */
  readonly relayStore: Store;
  /** Removes the cache's keys and ends the connection. Close the cache before. */
  close(): Promise<void>;
}

/** The Redis of `url`, or this process's memory. `cache`: the name of the cache, in all of its keys. */
export async function openRedis(url: string | undefined, cache: string): Promise<DemoRedis> {
  if (url === undefined) {
    const store = memoryStore();
    const where = 'an in-memory store, embedded';
    return { kind: 'embedded', where, store, relayStore: store, close: async () => {} };
  }
  const redis = new Redis(url, { maxRetriesPerRequest: 1 });
  // Errors reach whoever awaits a command; without a listener ioredis prints them besides.
  redis.on('error', () => {});
  try {
    await redis.ping();
  } catch (error) {
    redis.disconnect();
    throw new Error(`REDIS_URL names a Redis that does not answer: ${(error as Error).message}`, { cause: error });
  }
  const store = redisStore(redis);
  const relayStore = redisStore(redis);
  return {
    kind: 'external',
    where: 'the Redis of REDIS_URL',
    store,
    relayStore,
    async close() {
      try {
        await Promise.all([store.close(), relayStore.close()]);
        // A demo may scan: the library never does.
        for await (const keys of redis.scanStream({ match: `${keyPrefix(cache)}*`, count: 1_000 })) {
          if (keys.length > 0) await redis.unlink(...(keys as string[]));
        }
      } finally {
        redis.disconnect();
      }
    },
  };
}
