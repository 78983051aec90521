import KeyvRedis from '@keyv/redis';
import { Cacheable } from 'cacheable';
import { fiveWorkflows, TTL_MS } from '../workload.js';
import { expectFive, type StartRival } from './rival.js';

/** A tag for each level; Redis is its only tier. */
export const cacheable: StartRival = async (url, count) => {
  const cache = new Cacheable({ primary: new KeyvRedis(url), tags: true, ttl: TTL_MS });
  for (let index = 0; index < count; index++) {
    const tags = ['global', `detector:${index}`, `detector:${index}:environment:7`];
    await cache.set(`cacheable:${index}:7`, fiveWorkflows(7), { tags });
  }
  return {
    name: 'cacheable',
    subject: 'cacheable, three tags, no local tier',
    get: async (index) => expectFive(await cache.get(`cacheable:${index}:7`)),
    close: () => cache.disconnect(),
  };
};
