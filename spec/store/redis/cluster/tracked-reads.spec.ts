/** Reads without a round trip on three primaries of a Redis Cluster: each partition has its tracker. */
import { expect } from 'chai';
import { GenerationalCache, integer, text } from '../../../../lib/index.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { eventually } from '../../../support/deferred.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster, type RedisCluster } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';

const ITEMS = Array.from({ length: 12 }, (_, item) => ({ item }));

describe('reads without a round trip on a Redis Cluster', () => {
  let cluster: RedisCluster;
  before(async () => void (cluster = await privateRedisCluster({ replicas: 0 })));

  const rows = new Map<number, number>();

  function lendProcess(name: string) {
    const store = redisStore(cluster.client(), { partitions: 8 });
    const local = { mode: 'track', maxEntries: 100, heartbeatMs: 10_000 } as const;
    const cache = new GenerationalCache({ name, store, local, readDeadlineMs: 5_000, ttlMs: 600_000 });
    lend({ what: `the cache ${name}`, close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const tags = cache.namespace('tag', text());
    const load = ({ item }: { item: number | string }) => rows.get(Number(item)) ?? 0;
    const value = items.value('value', { load });
    const tagged = items.value('tagged', {
      load,
      dependsOn: ({ item }) => [tags.scope({ tag: `t${Number(item) % 3}` })],
    });
    return {
      ...{ cache, items, tags, value, tagged },
      /** Reads until this process answers all by itself. */
      async warm(entry: typeof value) {
        await eventually(async () => {
          await entry.fetchMany(ITEMS);
          await cache.settled();
          for (const id of ITEMS) expect(entry.peek(id)).to.equal(rows.get(id.item) ?? 0);
        });
      },
    };
  }

  it('are hits of every partition, and of entries that depend on other partitions, until the scope of one is bumped', async () => {
    const name = uniqueName();
    const [one, other] = [lendProcess(name), lendProcess(name)];
    for (const entry of ['value', 'tagged'] as const) await one[entry].fetchMany(ITEMS);
    for (const entry of ['value', 'tagged'] as const) await one.warm(one[entry]);
    expect(one.cache.state.local!.tracking!.beatAgeMs).to.be.above(0);

    rows.set(4, 1);
    await other.items.bump({ item: 4 });
    await eventually(async () => expect(await one.value.fetch({ item: 4 })).to.equal(1));
    await one.warm(one.tagged);

    // Tag t1 lies in another partition than most of its items.
    for (const item of [1, 4, 7, 10]) rows.set(item, 2);
    await other.tags.bump({ tag: 't1' });
    await eventually(async () => expect(await one.tagged.fetch({ item: 7 })).to.equal(2));
    for (const item of [1, 4, 7, 10]) expect(one.tagged.peek({ item })).to.not.equal(1);
    await one.warm(one.tagged);

    rows.set(4, 3);
    await one.cache.bump();
    for (const id of ITEMS) expect(one.tagged.peek(id)).to.equal(undefined);
    expect(await one.tagged.fetch({ item: 4 })).to.equal(3);
  });

  it('go on after the slot of a partition has moved', async () => {
    rows.clear();
    const one = lendProcess(uniqueName());
    await one.warm(one.value);
    const key = `gencache:{${one.cache.name}:0/8}:g:`;
    const move = await cluster.reshard(key);
    await move.all();
    rows.set(4, 1);
    await one.cache.bump();
    for (const id of ITEMS) expect(one.value.peek(id)).to.equal(undefined);
    await one.warm(one.value);
  });
});
