/** Other caches with values in the process, warm, and what invalidates them there. */
import { BasicClientSideCache, createClient } from '@redis/client';
import { BentoCache, bentostore } from 'bentocache';
import { memoryDriver } from 'bentocache/drivers/memory';
import { redisDriver } from 'bentocache/drivers/redis';
import { Redis } from 'ioredis';
import { GroupLoader } from 'layered-loader';
import { TTL_MS } from '../workload.js';
import { expectFive, type Rival } from './rival.js';

type StartTiers = (url: string, count: number, value: () => object[]) => Promise<Rival>;

/** A tag for each level. Without a bus: what is measured is the hit. */
export const bentocacheTiers: StartTiers = async (url, count, value) => {
  const redis = new Redis(url);
  const cache = new BentoCache({
    default: 'tiers',
    stores: {
      tiers: bentostore()
        .useL1Layer(memoryDriver({ maxItems: 10_000 }))
        .useL2Layer(redisDriver({ connection: redis as never })),
    },
    prefix: 'bento-tiers',
    ttl: TTL_MS,
  });
  for (let index = 0; index < count; index++) {
    const tags = ['global', `detector:${index}`, `detector:${index}:environment:7`];
    await cache.set({ key: `${index}:7`, value: value(), tags });
  }
  return {
    name: 'bentocache',
    subject: 'bentocache, memory before Redis, three tags',
    get: async (index) => expectFive(await cache.get({ key: `${index}:7` })),
    close: () => cache.disconnectAll(),
  };
};

/** Groups in memory: an invalidation elsewhere would come by Redis' publish. */
export const groupsInMemory: StartTiers = async (_url, count, value) => {
  const loader = new GroupLoader<unknown>({
    inMemoryCache: { cacheType: 'lru-object', ttlInMsecs: TTL_MS, maxGroups: 10_000, maxItemsPerGroup: 10 },
    dataSources: [{ name: 'value', getFromGroup: async () => value(), getManyFromGroup: async () => [] }],
  });
  for (let index = 0; index < count; index++) await loader.get('environment:7', `detector:${index}`);
  return {
    name: 'layered-loader',
    subject: 'layered-loader groups in memory, one level',
    get: async (index) => expectFive(await loader.get('environment:7', `detector:${index}`)),
    close: async () => {},
  };
};

/** CLIENT TRACKING of each key. The cache holds the reply, which its caller decodes. */
export const nodeRedisCached: StartTiers = async (url, count, value) => {
  const clientSideCache = new BasicClientSideCache({ maxEntries: 10_000 });
  const client = await createClient({ url, RESP: 3, clientSideCache }).connect();
  for (let index = 0; index < count; index++) await client.set(`node-redis:${index}:7`, JSON.stringify(value()));
  return {
    name: 'node-redis',
    subject: 'node-redis GET with its client-side cache, and JSON.parse',
    get: async (index) => expectFive(JSON.parse((await client.get(`node-redis:${index}:7`)) ?? 'null')),
    close: async () => client.destroy(),
  };
};
