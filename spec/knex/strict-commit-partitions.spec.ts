/** Strict commits while one primary of a Redis Cluster is away. docs/protocol.md, rule 12. */
import { expect } from 'chai';
import { GenerationalCache, integer } from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { keyPrefix, partitionOf } from '../../lib/model/key.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { privateRedisCluster } from '../support/redis-cluster.js';
import { uniqueName } from '../support/redis.js';
import { rejection } from '../support/rejection.js';
import { lendOutbox } from '../support/relay.js';

const PARTITIONS = 8;

describe('a strict transaction on a Redis Cluster, one of whose primaries is away', function () {
  this.timeout(30_000);

  it('waits for no primary of other scopes, and rejects at once for scopes of that one', async () => {
    const cluster = await privateRedisCluster({ replicas: 0 });
    const name = uniqueName();
    const store = redisStore(cluster.client(), { partitions: PARTITIONS });
    const bumpDeadlineMs = 5_000;
    const cache = new GenerationalCache({ name, store, source: knexSource(await lendOutbox()), bumpDeadlineMs });
    lend({ what: 'the cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    await cache.bump();
    const ownerOf = (item: number) =>
      cluster.owner(keyPrefix(name, partitionOf(`item=${item}`, PARTITIONS), PARTITIONS));
    const lost = await ownerOf(0);
    let other = 1;
    while ((await ownerOf(other)) === lost) other++;
    await lost.server.kill('SIGKILL');
    await eventually(() => expect(cache.state.connection?.unreachable).to.have.length(1));
    const commit = (item: number) => cache.transaction((trx) => items.bump({ item }, { trx }), { strict: true });
    const startedMs = performance.now();
    expect(await commit(other)).to.include({ bump: 'done', strict: 'kept' });
    expect(await rejection(commit(0))).to.include({ code: 'QUARANTINE' });
    expect(performance.now() - startedMs).to.be.lessThan(bumpDeadlineMs / 2);
  });
});
