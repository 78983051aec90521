/** A transaction whose events a relay has deleted, while a partition owes their bumps. docs/protocol.md, rules 8 and 9a. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../../../lib/index.js';
import { knexSource } from '../../../../lib/knex/index.js';
import { partitionName, partitionOf } from '../../../../lib/model/key.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { eventually } from '../../../support/deferred.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster, type RedisCluster } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';
import { lendOutbox } from '../../../support/relay.js';

const PARTITIONS = 8;

describe('a transaction on a Redis Cluster, of whose events a partition owes the bumps', () => {
  let cluster: RedisCluster;
  let db: Knex;
  let name: string;
  let shop: ReturnType<typeof openShop>;

  before(async () => void (cluster = await privateRedisCluster({ replicas: 0 })));

  beforeEach(async () => {
    name = uniqueName();
    db = await lendOutbox();
    await db.raw('create table item (id int primary key, version int); insert into item values (1, 1), (2, 1)');
    shop = openShop();
    for (const item of [1, 2]) {
      await shop.entry.fetch({ item });
      await eventually(async () => expect(await shop.outcome(item)).to.equal('hit'));
    }
  });

  function openShop() {
    const store = redisStore(cluster.client(), { partitions: PARTITIONS });
    const cache = new GenerationalCache({
      ...{ name, store, source: knexSource(db), ttlMs: 600_000 },
      ...{ readDeadlineMs: 5_000, fillDeadlineMs: 5_000, bumpDeadlineMs: 5_000 },
    });
    lend({ what: 'a cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const entry = items.one<{ id: number; version: number }, number>('version', {
      load: (ids, context) => context.db('item').whereIn('id', ids.map(({ item }) => item)), // prettier-ignore
      by: ({ id }) => ({ item: id }),
      value: ({ version }) => version,
    });
    return { cache, items, entry, outcome: async (item: number) => (await entry.lookup({ item })).outcome };
  }

  /** As a relay leaves it that claimed transactions up to the present one, while the primary of item 1 was away. */
  async function owe(trx: Knex): Promise<void> {
    const partition = partitionName(partitionOf('item=1', PARTITIONS), PARTITIONS);
    await trx.raw(
      `insert into gencache_owed (cache, partition, xid, seq, recorded_at, last_xid, paths)
       values (?, ?, '3', 0, now(), pg_current_xact_id(), '{item=1}')`,
      [name, partition],
    );
  }

  const change = (trx: Knex) => trx('item').where({ id: 1 }).increment('version');

  it('reads its own writes when it returns', async () => {
    const { bump } = await shop.cache.transaction(async (trx) => {
      await change(trx);
      await owe(trx);
    });
    expect(bump).to.equal('done');
    expect(await shop.outcome(1)).to.equal('miss');
    expect(await shop.entry.fetch({ item: 1 })).to.equal(2);
    expect(await shop.outcome(2)).to.equal('hit');
    expect(await db('gencache_owed').where({ cache: name }).pluck('paths')).to.have.length(1);
  });

  it('does not bump what is owed for batches that end before it', async () => {
    await db.transaction(owe);
    await shop.cache.transaction(change);
    expect(await shop.outcome(1)).to.equal('hit');
  });

  it('is pending if it has a lookup, which may rest on any of them', async () => {
    await db.raw(
      `create function gencache_lookup_none(args jsonb) returns setof text language sql stable as 'select null::text where false'`,
    );
    await db.transaction(owe);
    const { bump, error } = await shop.cache.transaction(async (trx) => {
      await trx('gencache_outbox').insert({
        ...{ cache: name, path: '', lookup: 'gencache_lookup_none', args: '[]', source: 'spec', operation: 'UPDATE' },
      });
    });
    expect(bump).to.equal('pending');
    expect(error?.message).to.match(/^A partition of the store owes bumps of other transactions/);
  });
});
