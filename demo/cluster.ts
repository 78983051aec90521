import { Cluster } from 'ioredis';
import { redisStore } from '../lib/store/redis/index.js';
import { startRedisCluster } from '../spec/support/redis-cluster.js';
import { hasRedis } from '../spec/support/servers/binaries.js';
import type { DemoRedis } from './redis.js';

/** Starts a Redis Cluster of three primaries. Rejects where `redis-server` is missing. */
export async function openCluster(isInstalled: () => boolean = hasRedis): Promise<DemoRedis> {
  if (!isInstalled()) {
    throw new Error(
      'With --cluster the demo starts three servers by redis-server, which is neither in PATH nor in the folders where ' +
        'packages put it. Install Redis, name the program in REDIS_SERVER, or leave out --cluster.',
    );
  }
  const cluster = await startRedisCluster({ replicas: 0 });
  // The stores take the address alone.
  const client = new Cluster([{ host: '127.0.0.1', port: cluster.nodes[0]!.port }], { lazyConnect: true });
  const open = () => redisStore(client);
  const store = open();
  const relayStore = open();
  return {
    kind: 'cluster',
    where: 'a Redis Cluster of three primaries, which the demo has started',
    store,
    relayStore,
    async close() {
      await Promise.all([store.close(), relayStore.close()]);
      await cluster.stop();
    },
  };
}
