/** A local tier with a grace for outages on three primaries of a Redis Cluster, of which one is away. */
import { expect } from 'chai';
import { GenerationalCache, integer, text } from '../../../../lib/index.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { keyPrefix, partitionOf } from '../../../../lib/model/key.js';
import { eventually } from '../../../support/deferred.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster, type RedisCluster } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';

const PARTITIONS = 8;
const ITEMS = Array.from({ length: 12 }, (_, item) => ({ item }));

describe('a local tier with a grace, on a Redis Cluster', () => {
  let cluster: RedisCluster;

  before(async () => void (cluster = await privateRedisCluster({ replicas: 0 })));

  it('serves what touches a partition of the primary that is away; reads of the others are verified', async () => {
    const name = uniqueName();
    const cache = new GenerationalCache({
      ...{ name, store: redisStore(cluster.client(), { partitions: PARTITIONS }), ttlMs: 600_000 },
      // Long enough for the primaries that are there.
      ...{ readDeadlineMs: 1_000, bumpDeadlineMs: 200 },
      local: { mode: 'verify', maxEntries: 100, staleOnOutageMs: 600_000 },
    });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const tags = cache.namespace('tag', text());
    let version = 1;
    let loads = 0;
    const load = () => (loads++, version);
    const value = items.value('value', { load });
    const tagged = items.value('tagged', { load, dependsOn: ({ item }) => [tags.scope({ tag: `t${item}` })] });
    for (let reads = 0; reads < 2; reads++) {
      for (const entry of [value, tagged]) await entry.fetchMany(ITEMS);
      await cache.settled();
    }

    const ownerOf = (path: string) => cluster.owner(`${keyPrefix(name, partitionOf(path, PARTITIONS), PARTITIONS)}g:`);
    const away = await ownerOf('item=0');
    const isAway = async (path: string) => (await ownerOf(path)) === away;
    const expected = await Promise.all(
      ITEMS.map(async ({ item }) => {
        const own = await isAway(`item=${item}`);
        return { own, either: own || (await isAway(`tag=t${item}`)) };
      }),
    );
    expect(new Set(expected.map(({ own }) => own)).size).to.equal(2);
    away.server.pause();
    version = 2;
    loads = 0;
    const staleOf = async (entry: typeof value) => {
      const stale = new Set<number>();
      expect(await entry.fetchMany(ITEMS, { onStale: ({ index }) => stale.add(index) })).to.deep.equal(
        ITEMS.map(() => 1),
      );
      return ITEMS.map((_, i) => stale.has(i));
    };
    expect(await staleOf(value)).to.deep.equal(expected.map(({ own }) => own));
    expect(await staleOf(tagged as typeof value)).to.deep.equal(expected.map(({ either }) => either));
    expect(loads).to.equal(0);
    await items.bump({ item: 0 }).catch(() => {});
    expect(await value.fetch({ item: 0 })).to.equal(2);
    away.server.resume();
  });

  it('serves what it has while the primaries answer that the cluster is down, since one of them is away', async () => {
    await cluster.formed();
    // As by default.
    for (const { admin } of cluster.nodes) await admin.config('SET', 'cluster-require-full-coverage', 'yes');
    const name = uniqueName();
    const store = redisStore(cluster.client(), { partitions: PARTITIONS });
    const cache = new GenerationalCache({
      ...{ name, store, ttlMs: 600_000, readDeadlineMs: 1_000 },
      local: { mode: 'verify', maxEntries: 100, staleOnOutageMs: 600_000 },
    });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    let loads = 0;
    const value = cache.namespace('item', integer()).value('value', { load: () => ++loads });
    for (let reads = 0; reads < 2; reads++) {
      await value.fetchMany(ITEMS);
      await cache.settled();
    }
    loads = 0;
    const [away, ...others] = cluster.nodes;
    await away!.server.kill('SIGKILL');
    await eventually(async () => {
      for (const node of others) expect(await node.knowsState('fail')).to.equal(true);
    });
    for (let reads = 0; reads < 5; reads++) {
      let stale = 0;
      await value.fetchMany(ITEMS, { onStale: () => stale++ });
      expect([stale, loads]).to.deep.equal([ITEMS.length, 0]);
    }
  });
});
