import { BentoCache, bentostore } from 'bentocache';
import { redisDriver } from 'bentocache/drivers/redis';
import { Redis } from 'ioredis';
import { fiveWorkflows, TTL_MS } from '../workload.js';
import { expectFive, type StartRival } from './rival.js';

/** A tag for each level. */
export const bentocache: StartRival = async (url, count) => {
  const redis = new Redis(url);
  const cache = new BentoCache({
    default: 'redis',
    stores: { redis: bentostore().useL2Layer(redisDriver({ connection: redis as never })) },
    prefix: 'bento',
    ttl: TTL_MS,
  });
  for (let index = 0; index < count; index++) {
    const tags = ['global', `detector:${index}`, `detector:${index}:environment:7`];
    await cache.set({ key: `${index}:7`, value: fiveWorkflows(7), tags });
  }
  return {
    name: 'bentocache',
    subject: 'bentocache, three tags, no local tier',
    get: async (index) => expectFive(await cache.get({ key: `${index}:7` })),
    close: () => cache.disconnectAll(),
  };
};
