/** A transaction whose events a relay has deleted, while a partition owes their bumps. docs/protocol.md, rules 8 and 9a. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { claimPartitions } from '../../../../lib/knex/outbox/partition-authority.js';
import { keyPrefix, partitionName, partitionOf } from '../../../../lib/model/key.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { eventually } from '../../../support/deferred.js';
import { lendKnex } from '../../../support/knexes.js';
import { privateRedisCluster, type RedisCluster } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';
import { lendItems } from './items.js';
import { databaseUrl, schemaOf } from '../../../support/postgres.js';
import { lendOutbox } from '../../../support/relay.js';

const PARTITIONS = 8;
const ofItem1 = partitionName(partitionOf('item=1', PARTITIONS), PARTITIONS);

describe('a transaction on a Redis Cluster, of whose events a partition owes the bumps', function () {
  this.timeout(30_000);

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
    return lendItems(db, redisStore(cluster.client(), { partitions: PARTITIONS }), { name });
  }

  /** As a relay leaves it that claimed transactions up to the present one, while the primary of item 1 was away. */
  async function owe(trx: Knex): Promise<void> {
    await trx.raw(
      `insert into gencache_owed (cache, partition, xid, seq, recorded_at, last_xid, paths)
       values (?, ?, '3', 0, now(), pg_current_xact_id(), '{item=1}')`,
      [name, ofItem1],
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

  describe('while its events are relayed between its COMMIT and its own bumps', () => {
    /**
     * Changes item 1 by a transaction. After COMMIT, before the transaction reads its events, a relay deletes them, and item
     * 1's partition owes their bump; `then` follows before the transaction reads on.
     */
    async function changeBehind(then: () => Promise<unknown>) {
      const relay = await lendKnex(databaseUrl(schemaOf(db)), schemaOf(db)).transaction();
      let locked: Promise<unknown> | undefined;
      const changing = shop.cache.transaction(async (trx) => {
        await change(trx);
        await shop.items.bump({ item: 1 }, { trx });
        // Granted at COMMIT, before the transaction's own look at the outbox.
        locked = relay.raw('lock table gencache_outbox in access exclusive mode').then();
        await waitingForLock();
      });
      await eventually(() => expect(locked).to.not.equal(undefined));
      await locked;
      const [{ xid }] = await relay('gencache_outbox').where({ cache: name }).select('xid');
      await db.raw(
        `insert into gencache_owed (cache, partition, xid, seq, recorded_at, last_xid, paths)
         values (?, ?, ?, 0, now(), ?, '{item=1}')`,
        [name, ofItem1, xid, xid],
      );
      await relay('gencache_outbox').where({ cache: name }).delete();
      await then();
      await relay.commit();
      return changing;
    }

    const waitingForLock = () =>
      eventually(async () => {
        const waiting = await db('pg_locks').where({ granted: false, mode: 'AccessExclusiveLock' });
        expect(waiting).to.have.length(1);
      });

    it('reads its own writes although a relay claims authority for the partition, and has not repaired it yet', async () => {
      await db('gencache_partition').insert({ cache: name, partition: ofItem1, redis: 'before', postgres: 'same' });
      const { bump } = await changeBehind(async () => {
        const seen = await db('gencache_partition').where({ cache: name }).first();
        const claims = [{ partition: ofItem1, redis: 'after', seen }];
        expect(await claimPartitions(db, claims, { cache: name, postgres: 'same', outbox: {} })).to.have.length(1);
      });
      expect(bump).to.equal('done');
      expect(await shop.entry.fetch({ item: 1 })).to.equal(2);
    });

    it('bypasses what it could not bump, once the primary goes on', async () => {
      const primary = await cluster.owner(keyPrefix(name, partitionOf('item=1', PARTITIONS), PARTITIONS));
      primary.server.pause();
      try {
        await eventually(async () => {
          await shop.outcome(1);
          expect(shop.cache.state.connection?.unreachable).to.have.length(1);
        });
        expect((await changeBehind(async () => {})).bump).to.equal('pending');
      } finally {
        primary.server.resume();
      }
      // The events are gone, and no relay runs: this process alone knows of the bump.
      await eventually(async () => expect(await shop.outcome(1)).to.not.equal('bypass'));
      expect(await shop.entry.fetch({ item: 1 })).to.equal(2);
    });
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
