/** Beats on three primaries of a Redis Cluster: one on each primary counts for all partitions that are there. */
import { expect } from 'chai';
import { Redis } from 'ioredis';
import sinon from 'sinon';
import { formatGeneration, nonce } from '../../../../lib/model/generation.js';
import { freshnessKey, generationKey } from '../../../../lib/model/key.js';
import { Partitions } from '../../../../lib/ports/partitions.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { eventually } from '../../../support/deferred.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster, type RedisCluster, type RedisNode } from '../../../support/redis-cluster.js';
import { lendRedis, uniqueName } from '../../../support/redis.js';
import type { Told } from '../../../support/tracker.js';

const PARTITIONS = 24;
const BOUND_MS = 10_000;

/** A partition, and what its listener was told. */
interface Heard {
  readonly prefix: string;
  readonly node: RedisNode;
  readonly told: Told[];
}

describe('beats on a Redis Cluster', () => {
  let cluster: RedisCluster;
  before(async () => void (cluster = await privateRedisCluster({ replicas: 0, for: 'suite' })));

  /** Partitions that are tracked, and have had a beat each. Those of a primary are in the order of bytes. */
  async function lendPartitions({ beatEveryMs = 30, hasBound = false } = {}) {
    const store = redisStore(cluster.client(), { partitions: PARTITIONS });
    lend({ what: 'the store', close: () => store.close() });
    const { list } = new Partitions(store, uniqueName());
    const all: Heard[] = [];
    for (const { prefix } of list) all.push({ prefix, node: await cluster.owner(prefix), told: [] });
    for (const [i, { prefix, store: partition }] of list.entries()) {
      const { told } = all[i]!;
      const tracking = partition.track!(
        { prefix, beatEveryMs, freshnessKey: hasBound ? freshnessKey(prefix, BOUND_MS) : undefined },
        {
          changed: (keys) => void told.push({ kind: 'changed', keys }),
          reset: (incarnation) => void told.push({ kind: 'reset', incarnation }),
          beat: (beat) => void told.push({ kind: 'beat', beat }),
          refused: (error) => void told.push({ kind: 'refused', error }),
        },
      );
      lend({ what: 'the tracking', close: () => tracking.close() });
    }
    await beats(all);
    const sorted = all.toSorted((a, b) => (a.prefix < b.prefix ? -1 : 1));
    return cluster.primaries.map((node) => sorted.filter((one) => one.node === node));
  }

  const count = ({ told }: Heard) => told.filter(({ kind }) => kind === 'beat').length;

  /** Resolves after this many further beats of each. */
  async function beats(all: readonly Heard[], further = 1): Promise<void> {
    const before = all.map(count);
    await eventually(() => {
      for (const [i, one] of all.entries()) expect(count(one)).to.be.at.least(before[i]! + further);
    });
  }

  async function scripts({ admin }: RedisNode): Promise<number> {
    const calls = [...(await admin.info('commandstats')).matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)];
    return calls.reduce((sum, [, number]) => sum + Number(number), 0);
  }

  it('are one command a primary, whatever the number of partitions', async () => {
    const byPrimary = await lendPartitions();
    await beats(byPrimary.flat());
    for (const partitions of byPrimary) {
      expect(partitions).to.have.length.above(3);
      const { node } = partitions[0]!;
      const before = { scripts: await scripts(node), beats: count(partitions[0]!) };
      await beats(partitions, 10);
      const sent = (await scripts(node)) - before.scripts;
      expect(sent).to.be.below(2 * (count(partitions[0]!) - before.beats));
    }
  });

  it('tell each partition of its own freshness key', async () => {
    const byPrimary = await lendPartitions({ hasBound: true });
    for (const partitions of byPrimary) {
      const client = lendRedis({ url: partitions[0]!.node.server.url });
      for (const [i, { prefix }] of partitions.entries()) {
        const key = freshnessKey(prefix, BOUND_MS);
        if (i % 3 === 1) await client.set(key, prefix, 'PX', (i + 1) * 60_000);
        else if (i % 3 === 2) await client.lpush(key, 'of another type');
      }
      await beats(partitions, 2);
      for (const [i, { prefix, told }] of partitions.entries()) {
        const { value, ttlMs } = told.findLast((one) => one.kind === 'beat')!.beat.freshness!;
        expect(value && String(value)).to.equal(i % 3 === 1 ? prefix : null);
        if (i % 3 === 1) expect(ttlMs).to.be.within(i * 60_000, (i + 1) * 60_000);
      }
    }
  });

  it('follow the changes that the server makes in the same turn, in each partition', async () => {
    const subscribing = sinon.spy(Redis.prototype, 'subscribe');
    const byPrimary = await lendPartitions({ beatEveryMs: 50 }).finally(() => subscribing.restore());
    for (const partitions of byPrimary) {
      const { node } = partitions[0]!;
      const writer = lendRedis({ url: node.server.url });
      await writer.ping();
      for (const { told } of partitions) told.length = 0;
      // Pushes are read after the reply to their beat, which is known to be there once the next one is sent.
      for (const { stream } of subscribing.thisValues) stream.pause();
      // By its end the changes, and behind them a beat, wait in its sockets.
      const sleeping = node.admin.call('DEBUG', 'SLEEP', '0.3');
      const sets = partitions.map(({ prefix }) =>
        writer.set(generationKey(prefix, ''), formatGeneration(0, nonce()), 'PX', 60_000),
      );
      const sinceMs = performance.now();
      await Promise.all([sleeping, ...sets]);
      const sent = await scripts(node);
      await eventually(async () => expect(await scripts(node)).to.be.above(sent));
      for (const { stream } of subscribing.thisValues) stream.resume();
      await beats(partitions, 2);
      for (const { prefix, told } of partitions) {
        const changed = told.findIndex(({ kind }) => kind === 'changed');
        const beat = told.findIndex((one) => one.kind === 'beat' && one.beat.sentAt.monotonicMs > sinceMs);
        expect(changed, prefix).to.be.within(0, beat);
      }
    }
  });

  it('end for a partition whose slot is given away, which pushes nothing without a key', async () => {
    const partitions = (await lendPartitions()).toSorted((a, b) => b.length - a.length)[0]!;
    const taken = partitions[0]!;
    taken.told.length = 0;
    const { slot, target } = await cluster.reshard(taken.prefix);
    await target.cluster('SETSLOT', slot, 'NODE', target.id);
    await target.cluster('BUMPEPOCH');
    await eventually(() => expect(taken.told).to.deep.include({ kind: 'reset', incarnation: undefined }));
    expect(taken.told.filter(({ kind }) => kind === 'changed')).to.deep.equal([]);
    await beats(partitions, 2);
    await cluster.formed();
  });

  it('go on for the others while the slot of the partition that sends them is on its way', async () => {
    const partitions = (await lendPartitions()).toSorted((a, b) => b.length - a.length)[0]!;
    const sender = partitions.at(-1)!;
    const move = await cluster.reshard(sender.prefix);
    await move.begin();
    // A beat under way may still end; the next one fails.
    await beats(partitions.slice(0, -1), 5);
    const before = count(sender);
    await beats(partitions.slice(0, -1), 3);
    expect(count(sender)).to.equal(before);
    for (const { told } of partitions.slice(0, -1)) {
      expect(told.filter(({ kind }) => kind === 'reset')).to.have.length(1);
    }
    await move.rest();
    await move.end();
    await beats(partitions, 3);
    await cluster.formed();
  });
});
