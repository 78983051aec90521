/** More commands at once than one primary may have under way: 1,000. */
import { expect } from 'chai';
import { GenerationalCache } from '../../../../lib/index.js';
import { withDeadline } from '../../../../lib/async/deadline.js';
import { generationKey } from '../../../../lib/model/key.js';
import { Partitions } from '../../../../lib/ports/partitions.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster, type RedisCluster } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';
import { rejection } from '../../../support/rejection.js';

describe('one primary of a Redis Cluster', () => {
  let cluster: RedisCluster;

  before(async () => void (cluster = await privateRedisCluster({ primaries: 1, replicas: 0 })));

  it('takes the bump of everything in all of 1,024 partitions, and ten at once', async () => {
    const store = redisStore(cluster.client(), { partitions: 1_024 });
    const cache = new GenerationalCache({ name: uniqueName(), store, bumpDeadlineMs: 10_000 });
    lend({ what: 'the cache', close: () => cache.close() });
    await cache.bump();
    await Promise.all(Array.from({ length: 10 }, () => cache.bump()));
    expect(cache.state.unbumped).to.equal(0);
  });

  it('that does not answer has the reads beyond 1,000 rejected, and the bumps wait for their deadline, with the reason', async () => {
    const store = redisStore(cluster.client(), { partitions: 1 });
    lend({ what: 'the store', close: () => store.close() });
    const { store: partition, prefix } = new Partitions(store, uniqueName()).first;
    const key = generationKey(prefix, '');
    const read = () => withDeadline('read', 500, (deadline) => partition.read([key], deadline));
    await read();
    const [{ server }] = cluster.nodes as [RedisCluster['nodes'][number]];
    server.pause();
    try {
      const reads = Promise.allSettled(Array.from({ length: 1_001 }, read));
      const bump = withDeadline('bump', 300, (deadline) => partition.bump([key], 'A'.repeat(16), 0, deadline));
      const slow = /^Redis is too slow: 1000 commands of this cache, the most allowed, wait for replies\./;
      expect(await rejection(bump))
        .to.have.property('message')
        .that.matches(slow);
      expect((await reads).at(-1))
        .to.have.property('reason')
        .with.property('message')
        .that.matches(slow);
    } finally {
      server.resume();
    }
  });
});
