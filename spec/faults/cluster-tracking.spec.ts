/** A process tracks generations on a Redis Cluster whose slots move, and whose primaries fail. */
import { expect } from 'chai';
import type { Cluster } from 'ioredis';
import { formatGeneration, nonce } from '../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../lib/model/key.js';
import { Partitions } from '../../lib/ports/partitions.js';
import type { PartitionedStore } from '../../lib/ports/store.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { AskedStore } from '../ports/asked-store.js';
import { eventually } from '../support/deferred.js';
import { lend } from '../support/lenders.js';
import { privateRedisCluster, type RedisCluster } from '../support/redis-cluster.js';
import { uniqueName } from '../support/redis.js';
import { TrackedReader } from '../support/tracked-reader.js';

describe('tracked generations on a Redis Cluster', () => {
  let cluster: RedisCluster;
  let writer: Cluster;

  before(async () => void (cluster = await privateRedisCluster()));

  beforeEach(() => {
    writer = cluster.client({ lazyConnect: false, scaleReads: 'master', redisOptions: { maxRetriesPerRequest: null } });
  });

  async function lendReader(): Promise<TrackedReader> {
    const reader = new TrackedReader(cluster.client(), () => writer);
    await lendFellow(reader);
    // Where a cache has it, beats find the partition, also while its slot is on its way.
    await writer.set(generationKey(keyPrefix(reader.lent.name), ''), formatGeneration(0, nonce()), 'PX', 600_000);
    await reader.bumpAll();
    await reader.settled();
    return reader;
  }

  /** Tracks another partition on the reader's primary, which sends the beats of both. */
  async function lendFellow({ keys, lent: { whole, key } }: TrackedReader): Promise<void> {
    const owner = await cluster.owner(keys[0]!);
    let prefix: string;
    do prefix = keyPrefix(`z_${uniqueName()}`);
    while ((await cluster.owner(prefix)) !== owner);
    expect(prefix > key).to.equal(true);
    const heard = { changed: () => {}, reset: () => {}, beat: () => {}, refused: () => {} };
    const tracking = (whole as PartitionedStore).partition(prefix).track!({ prefix, beatEveryMs: 30 }, heard);
    lend({ what: 'the other partition', close: () => tracking.close() });
  }

  it('come from one tracking connection for each primary, each to the partition that it belongs to', async () => {
    const name = uniqueName();
    const store = redisStore(cluster.client());
    lend({ what: 'the store', close: () => store.close() });
    const { list } = new Partitions(store, name);
    const heard = list.map((): { changed: string[]; beats: number } => ({ changed: [], beats: 0 }));
    for (const { index, prefix, store: partition } of list) {
      const own = heard[index]!;
      const tracking = partition.track!(
        { prefix, beatEveryMs: 100 },
        {
          changed: (keys) => void own.changed.push(...keys),
          reset: () => {},
          beat: () => void own.beats++,
          refused: (error) => expect.fail(error.message),
        },
      );
      lend({ what: 'the tracking', close: () => tracking.close() });
    }
    await eventually(() => {
      for (const { beats } of heard) expect(beats).to.be.above(1);
    });
    const keys: string[] = [];
    for (const { index, prefix, store: partition } of list) {
      const key = new AskedStore(partition, name, undefined, prefix).generationKey();
      keys[index] = key;
      await writer.set(key, formatGeneration(0, nonce()), 'PX', 60_000);
    }
    await eventually(() => expect(heard.map(({ changed }) => changed)).to.deep.equal(keys.map((key) => [key])));
    for (const node of cluster.primaries) {
      const lines = String(await node.admin.client('LIST')).split('\n');
      expect(lines.filter((line) => /flags=\S*t/.test(line))).to.have.length(1);
    }
  });

  it('follow their slot while it moves, key by key, and back', async () => {
    const reader = await lendReader();
    for (let round = 0; round < 2; round++) {
      const move = await cluster.reshard(reader.keys[0]!);
      await move.begin();
      await reader.bumpAll();
      await move.move(reader.keys[0]!);
      await reader.bumpThrough();
      await move.rest();
      await reader.bumpThrough();
      await move.end();
      await reader.bumpAll();
      await cluster.formed();
      await reader.settled();
    }
    await reader.verify();
  });

  it('outlive a failover that their replica takes over, while the old primary goes on', async () => {
    const reader = await lendReader();
    const owner = await cluster.owner(reader.keys[0]!);
    const failing = cluster.failover(cluster.partnerOf(owner), 'TAKEOVER');
    for (let round = 0; round < 5; round++) await reader.bumpThrough();
    await failing;
    await reader.verify();
  });

  it('outlive the death of their primary', async () => {
    const reader = await lendReader();
    const owner = await cluster.owner(reader.keys[0]!);
    const replica = cluster.partnerOf(owner);
    await owner.server.kill('SIGKILL');
    await replica.cluster('FAILOVER', 'TAKEOVER');
    await reader.bumpThrough();
    await reader.settled();
    await owner.server.restart();
    await cluster.formed();
    await reader.verify();
  });
});
