import { BentoCache, bentostore } from 'bentocache';
import { memoryDriver } from 'bentocache/drivers/memory';
import { redisDriver } from 'bentocache/drivers/redis';
import { Redis } from 'ioredis';
import { Loader } from 'layered-loader';
import { TTL_MS } from '../workload.js';

/** Another cache whose Redis goes away, set up as its documentation advises for that case. */
export interface OutageRival {
  readonly name: string;
  readonly subject: string;
  read(key: number): Promise<unknown>;
  close(): Promise<unknown>;
}

type Start = (url: string, load: () => Promise<void>) => Promise<OutageRival>;

const VALUE = 'x'.repeat(600);

/** A client that fails fast, as both documentations advise: their own deadlines stand above it. */
const client = (url: string) => {
  const redis = new Redis(url, { maxRetriesPerRequest: 0, commandTimeout: 100, enableOfflineQueue: false });
  redis.on('error', () => {});
  return redis;
};

const bento =
  (withMemory: boolean): Start =>
  async (url, load) => {
    const redis = client(url);
    const remote = redisDriver({ connection: redis as never });
    const store = withMemory
      ? bentostore()
          .useL1Layer(memoryDriver({ maxItems: 1_000 }))
          .useL2Layer(remote)
      : bentostore().useL2Layer(remote);
    const cache = new BentoCache({
      ...{ default: 'store', stores: { store }, ttl: TTL_MS },
      ...{ suppressL2Errors: true, l2CircuitBreakerDuration: '1s' },
    });
    return {
      name: withMemory ? 'bentocache-two-tier' : 'bentocache-redis',
      subject: `bentocache, ${withMemory ? 'two tiers' : 'Redis alone'}, its breaker on`,
      read: (key) =>
        cache.getOrSet({
          key: `${key}`,
          async factory() {
            await load();
            return VALUE;
          },
        }),
      close: async () => {
        redis.disconnect();
        await cache.disconnectAll().catch(() => {});
      },
    };
  };

const layeredLoader: Start = async (url, load) => {
  const { RedisCache } = await import('layered-loader');
  const redis = client(url);
  const loader = new Loader<string>({
    inMemoryCache: { ttlInMsecs: TTL_MS, maxItems: 1_000 },
    asyncCache: new RedisCache<string>(redis, { prefix: 'outage', json: true, ttlInMsecs: TTL_MS }),
    dataSources: [
      {
        name: 'source',
        async get() {
          await load();
          return VALUE;
        },
        getMany: async () => [],
      },
    ],
    cacheErrorHandler: () => {},
  } as never);
  return {
    name: 'layered-loader',
    subject: 'layered-loader, in memory and Redis',
    read: (key) => Promise.resolve(loader.get(`${key}`)),
    close: async () => redis.disconnect(),
  };
};

export const startOutageRivals: readonly Start[] = [bento(true), bento(false), layeredLoader];
