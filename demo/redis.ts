import { Redis } from 'ioredis';
import { memoryStore, type PartitionedStore, type Store } from '../lib/index.js';
import { redisStore } from '../lib/store/redis/index.js';
import { keyPrefix } from '../lib/model/key.js';

export interface DemoRedis {
  readonly kind: 'embedded' | 'external' | 'cluster';
  /** Its name in the output. */
  readonly where: string;
  readonly store: Store | PartitionedStore;
  /** The store of the relay, which closes it. */
  readonly relayStore: Store | PartitionedStore;
  /** Deletes the cache's keys and ends the connection, or ends the demo's own servers. Close the cache first. */
  close(): Promise<void>;
}

/** Opens the Redis of `url`, or an in-memory store. `cache`: the name of the cache, which every key contains. */
export async function openRedis(url: string | undefined, cache: string): Promise<DemoRedis> {
  if (url === undefined) {
    const store = memoryStore();
    const where = 'an in-memory store, embedded';
    return { kind: 'embedded', where, store, relayStore: store, close: async () => {} };
  }
  const redis = new Redis(url, { maxRetriesPerRequest: 1 });
  // A failed command rejects; without a listener ioredis would print the error besides.
  redis.on('error', () => {});
  try {
    await redis.ping();
  } catch (error) {
    redis.disconnect();
    throw new Error(
      `The Redis of REDIS_URL is unreachable: ${(error as Error).message}. Check the address, the server and the network.`,
      { cause: error },
    );
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
        // The demo may scan; the library never does.
        for await (const keys of redis.scanStream({ match: `${keyPrefix(cache)}*`, count: 1_000 })) {
          if (keys.length > 0) await redis.unlink(...(keys as string[]));
        }
      } finally {
        redis.disconnect();
      }
    },
  };
}
