import { Redis } from 'ioredis';
import { GroupLoader, RedisGroupCache } from 'layered-loader';
import { fiveWorkflows, TTL_MS } from '../workload.js';
import { expectFive, type StartRival } from './rival.js';

/** Groups have one level: the detector is the group, the environment the key. */
export const layeredLoader: StartRival = async (url, count) => {
  const redis = new Redis(url);
  const cache = new RedisGroupCache<unknown>(redis, { prefix: 'layered', json: true, ttlInMsecs: TTL_MS });
  const loader = new GroupLoader<unknown>({
    asyncCache: cache,
    dataSources: [{ name: 'none', getFromGroup: async () => undefined, getManyFromGroup: async () => [] }],
  });
  for (let index = 0; index < count; index++) {
    await loader.forceSetValueForGroup('environment:7', fiveWorkflows(7), `detector:${index}`);
  }
  return {
    name: 'layered-loader',
    subject: 'layered-loader groups, one level',
    get: async (index) => expectFive(await loader.get('environment:7', `detector:${index}`)),
    close: async () => redis.disconnect(),
  };
};
