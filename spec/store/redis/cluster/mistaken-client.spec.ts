/** A client of one server for a Redis Cluster, and the other way round. */
import { expect } from 'chai';
import { Cluster } from 'ioredis';
import { withDeadline } from '../../../../lib/async/deadline.js';
import { nonce } from '../../../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../../../lib/model/key.js';
import { Partitions } from '../../../../lib/ports/partitions.js';
import type { PartitionedStore, Store } from '../../../../lib/ports/store.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster } from '../../../support/redis-cluster.js';
import { lendRedis, privateRedis, uniqueName } from '../../../support/redis.js';
import { rejection } from '../../../support/rejection.js';

describe('a store with the client', () => {
  async function refusal(store: Store | PartitionedStore, name: string): Promise<string> {
    lend({ what: 'the store', close: () => store.close() });
    const { store: one, prefix } = new Partitions(store, name).first;
    const bump = withDeadline('bump', 1_000, (deadline) => one.bump([generationKey(prefix, '')], nonce(), 0, deadline));
    return (await rejection(bump)).message;
  }

  it('of one node of a Redis Cluster says which client to pass', async () => {
    const cluster = await privateRedisCluster({ replicas: 0 });
    const name = uniqueName();
    const owner = await cluster.owner(keyPrefix(name));
    const other = cluster.nodes.find((node) => node !== owner)!;
    const client = lendRedis({ url: other.server.url, lazyConnect: true });
    expect(await refusal(redisStore(client), name)).to.match(
      /: MOVED \d+ 127\.0\.0\.1:\d+\. The server is a node of a Redis Cluster: pass a Cluster client of ioredis, /,
    );
  });

  it('of a Redis Cluster, for a server without one, says which client to pass', async () => {
    const { port } = await privateRedis();
    const client = new Cluster([{ host: '127.0.0.1', port }], { lazyConnect: true });
    lend({ what: 'the Cluster client', close: () => client.disconnect() });
    expect(await refusal(redisStore(client), uniqueName())).to.match(
      /told its slots: ERR This instance has cluster support disabled\. The server is no node of a Redis Cluster: pass `new Redis/,
    );
  });
});
