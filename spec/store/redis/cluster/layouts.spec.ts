/** Caches of one name with different numbers of partitions, side by side. docs/protocol.md, rule 24. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { type BumpError, GenerationalCache } from '../../../../lib/index.js';
import { knexSource } from '../../../../lib/knex/index.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { observe } from '../../../../lib/testing/index.js';
import { deferred, eventually } from '../../../support/deferred.js';
import { rejection } from '../../../support/rejection.js';
import { before as beforeQuery } from '../../../support/queries.js';
import { lendKnex } from '../../../support/knexes.js';
import { privateRedisCluster, type RedisCluster } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';
import { lendItems } from './items.js';
import { lendOutbox, lendRelay } from '../../../support/relay.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../../support/postgres.js';
import { lendRole } from '../../../support/roles.js';

describe('layouts of a cache on a Redis Cluster', () => {
  let cluster: RedisCluster;
  let db: Knex;
  let name: string;

  before(async () => void (cluster = await privateRedisCluster({ replicas: 0 })));

  beforeEach(async () => {
    name = uniqueName();
    db = await lendOutbox();
    await createItems(db);
  });

  async function createItems(at: Knex): Promise<void> {
    await at.schema.createTable('item', (table) => {
      table.integer('id').primary();
      table.integer('version').notNullable();
    });
    await at('item').insert([1, 2, 3].map((id) => ({ id, version: 1 })));
  }

  function lendProcess(partitions: number, own: Knex = db, maxStalenessMs?: number, alsoPartitions: number[] = []) {
    const store = redisStore(cluster.client(), { partitions, alsoPartitions });
    const shop = lendItems(own, store, {
      ...{ name, breakerRetryMs: 100 },
      ...(maxStalenessMs !== undefined && { maxStalenessMs }),
    });
    return { ...shop, seen: observe(shop.cache) };
  }

  const registered = (at: Knex = db) =>
    at('gencache_layout').where({ cache: name }).orderBy('partitions').pluck('partitions');

  /** The number of partitions of a layout that have an authority. */
  const repaired = async (partitions: number) =>
    (await db('gencache_partition').where({ cache: name }).whereLike('partition', `%/${partitions}`)).length;

  describe('registers its number of partitions', () => {
    it('before its first load, and once', async () => {
      const { entry } = lendProcess(8);
      const queries: string[] = [];
      db.on('query', ({ sql }: { sql: string }) => {
        if (sql.includes('insert into gencache_layout')) queries.push('register');
        if (sql.includes('from "item"')) queries.push('load');
      });
      await entry.fetch({ item: 1 });
      await Promise.all([2, 3].map((item) => entry.fetch({ item })));
      expect(queries).to.deep.equal(['register', 'load', 'load']);
      await lendProcess(8).entry.fetch({ item: 1 });
      await lendProcess(1).entry.fetch({ item: 1 });
      expect(await registered()).to.deep.equal([1, 8]);
    });

    it('durably, and where transactions are read-only by default', async () => {
      await db.raw(`
        alter table gencache_layout add column committed text;
        create function note() returns trigger language plpgsql as $$
          begin new.committed := current_setting('synchronous_commit'); return new; end $$;
        create trigger note before insert on gencache_layout for each row execute function note()`);
      const settings = [
        'synchronous_commit=off',
        'synchronous_commit=remote_apply -c default_transaction_read_only=on',
      ];
      for (const [i, setting] of settings.entries()) {
        const own = lendKnex(databaseUrl(`${schemaOf(db)} -c ${setting}`), schemaOf(db));
        await lendProcess(i + 1, own).entry.fetch({ item: 1 });
      }
      expect(await db('gencache_layout').orderBy('partitions').pluck('committed')).to.deep.equal([
        'local',
        'remote_apply',
      ]);
    });

    it('and forgets one that no process has registered for a week', async () => {
      await db('gencache_layout').insert([
        { cache: name, partitions: 4, last_seen_at: db.raw(`now() - interval '8 days'`) },
        { cache: name, partitions: 2, last_seen_at: db.raw(`now() - interval '6 days'`) },
      ]);
      await lendProcess(8).entry.fetch({ item: 1 });
      expect(await registered()).to.deep.equal([2, 8]);
    });

    it('and reads nothing from before a bump that missed it while it was forgotten', async () => {
      const one = lendProcess(8);
      await one.entry.fetch({ item: 1 });
      await eventually(async () => expect(await one.outcome()).to.equal('hit'));
      await one.cache.close();
      await db('gencache_layout').delete();
      await db('item').update({ version: 2 });
      await lendProcess(1).items.bump({ item: 1 });
      const back = lendProcess(8);
      expect(await back.entry.fetch({ item: 1 })).to.equal(2);
      await eventually(async () => expect(await back.outcome()).to.equal('hit'));
      // From now on its number is known: another process shares its entries.
      expect(await lendProcess(8).outcome()).to.equal('hit');
    });

    it('and bypasses the cache, with the remedy, until it has', async () => {
      const role = await lendRole(db);
      await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
      await db.raw('grant select on item to ??', [role]);
      const own = lendKnex(databaseUrl(`${schemaOf(db)} -c role=${role}`), schemaOf(db));
      const { entry, outcome, cache, seen } = lendProcess(8, own);
      expect(await entry.fetch({ item: 1 })).to.equal(1);
      expect(cache.statistics.total('bypasses', { reason: 'unregistered' })).to.equal(1);
      const grant = `grant delete, insert, select, update on "${schemaOf(db)}".gencache_layout to "${role}";`;
      const messages = seen.events('warning').map(({ message }) => message);
      expect(
        messages.filter((message) => message.startsWith('The number of partitions of this cache could not be')),
      ).to.have.length(1);
      expect(messages.join()).to.include(grant);
      await db.raw(grant);
      await eventually(async () => {
        await entry.fetch({ item: 1 });
        expect(await outcome()).to.equal('hit');
      });
      expect(await registered()).to.deep.equal([8]);
    });

    it('nowhere without an outbox', async () => {
      const own = await lendDatabase();
      await createItems(own);
      const { entry, outcome, seen } = lendProcess(8, own);
      await entry.fetch({ item: 1 });
      await eventually(async () => expect(await outcome()).to.equal('hit'));
      const messages = seen.events('warning').map(({ message }) => message);
      expect(messages.filter((message) => message.includes('partitions'))).to.deep.equal([]);
    });
  });

  /** A process with 8 partitions and one with another number, both warm. */
  async function warmBoth(other = 1) {
    const [one, two] = [lendProcess(8), lendProcess(other)];
    for (const { entry } of [one, two]) {
      for (const item of [1, 2, 3]) await entry.fetch({ item });
      await eventually(async () => expect(await entry.lookup({ item: 3 })).to.include({ outcome: 'hit' }));
    }
    const outcomes = async () => {
      const found = [];
      for (const { outcome } of [one, two]) for (const item of [1, 2]) found.push(await outcome(item));
      return found;
    };
    await eventually(async () => expect(await outcomes()).to.deep.equal(['hit', 'hit', 'hit', 'hit']));
    return { one, two, outcomes };
  }

  const change = (trx: Knex) => trx('item').where({ id: 1 }).increment('version');

  describe('reaches processes with another number of partitions', () => {
    it('by a bump of a scope, of many and of everything', async () => {
      const { one, two, outcomes } = await warmBoth();
      await one.items.bump({ item: 1 });
      expect(await outcomes()).to.deep.equal(['miss', 'hit', 'miss', 'hit']);
      await two.items.bumpMany([{ item: 2 }]);
      expect(await outcomes()).to.deep.equal(['miss', 'miss', 'miss', 'miss']);
      for (const { entry } of [one, two]) for (const item of [1, 2]) await entry.fetch({ item });
      await eventually(async () => expect(await outcomes()).to.deep.equal(['hit', 'hit', 'hit', 'hit']));
      await one.cache.bump();
      expect(await outcomes()).to.deep.equal(['miss', 'miss', 'miss', 'miss']);
    });

    it('by a transaction, plain, strict and of the caller', async () => {
      const { one, two, outcomes } = await warmBoth(4);
      for (const [writer, strict] of [
        [one, false],
        [two, true],
      ] as const) {
        const work = async (trx: Knex.Transaction) => {
          await change(trx);
          await writer.items.bump({ item: 1 }, { trx });
        };
        expect(await writer.cache.transaction(work, { strict })).to.include({ bump: 'done' });
        expect(await outcomes()).to.deep.equal(['miss', 'hit', 'miss', 'hit']);
        for (const { entry } of [one, two]) await entry.fetch({ item: 1 });
        await eventually(async () => expect(await outcomes()).to.deep.equal(['hit', 'hit', 'hit', 'hit']));
      }
      await db.transaction(async (trx) => one.items.bump({ item: 1 }, { trx }));
      await eventually(async () => expect(await outcomes()).to.deep.equal(['miss', 'hit', 'miss', 'hit']));
    });

    it('under quarantine, from before a strict commit until it is lifted', async () => {
      const { one, two } = await warmBoth();
      const found: string[] = [];
      const bumped = one.cache.transaction(
        async (trx) => {
          await change(trx);
          await one.items.bump({ item: 1 }, { trx });
          trx.on('query', ({ sql }: { sql: string }) => {
            if (sql.startsWith('COMMIT')) void two.outcome(1).then((outcome) => found.push(outcome));
          });
        },
        { strict: true },
      );
      expect(await bumped).to.include({ strict: 'kept' });
      await eventually(() => expect(found).to.deep.equal(['bypass']));
    });

    it('that registered between a strict quarantine and its lift, and says that it is degraded', async () => {
      const one = lendProcess(8);
      await one.entry.fetch({ item: 1 });
      const two = lendProcess(2);
      const committed = await one.cache.transaction(
        async (trx) => {
          await change(trx);
          await one.items.bump({ item: 1 }, { trx });
          beforeQuery(db, 'COMMIT', () => void two.entry.fetch({ item: 1 }));
        },
        { strict: true },
      );
      expect(committed).to.include({ bump: 'done' });
      await eventually(async () => expect(await registered()).to.deep.equal([2, 8]));
      expect(await two.entry.fetch({ item: 1 })).to.equal(2);
    });

    it('by a relay, which finds a layout that registers while it runs, and vouches for both', async () => {
      const relay = lendRelay({
        db,
        cache: name,
        store: redisStore(cluster.client(), { partitions: 8 }),
        maxStalenessMs: 2_000,
      });
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      const { two } = await warmBoth(4);
      await eventually(async () => expect(await repaired(4)).to.equal(4));
      await two.entry.fetch({ item: 1 });
      await eventually(async () => expect(await two.outcome()).to.equal('hit'));
      await db('gencache_outbox').insert({ cache: name, path: 'item=1', source: 'spec', operation: 'UPDATE' });
      await eventually(async () => expect(await two.outcome()).to.equal('miss'));
      const bounded = lendProcess(4, db, 2_000);
      await eventually(async () => {
        await bounded.entry.fetch({ item: 1 });
        expect(await bounded.outcome()).to.equal('hit');
      });
    });

    it('by a relay, for events that it claimed before it knew the layout', async () => {
      // The layout has its authority already, so that no repair covers what is missed.
      const earlier = lendRelay({ db, cache: name, store: redisStore(cluster.client(), { partitions: 4 }) });
      await eventually(async () => expect(await repaired(4)).to.equal(4));
      await earlier.stop();
      const two = lendProcess(4);
      const registering = deferred();
      const relayed = lendKnex(databaseUrl(schemaOf(db)), schemaOf(db));
      const relay = lendRelay({ db: relayed, cache: name, store: redisStore(cluster.client(), { partitions: 8 }) });
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      // Between its survey and its claim. The load of the other process reads the row before the commit.
      beforeQuery(relayed, 'delete from', () => void two.entry.fetch({ item: 1 }).then(() => registering.resolve()));
      const trx = await db.transaction();
      await change(trx);
      await trx('gencache_outbox').insert({ cache: name, path: 'item=1', source: 'spec', operation: 'UPDATE' });
      await registering.promise;
      await eventually(async () => expect(await two.outcome()).to.equal('hit'));
      await trx.commit();
      await eventually(async () => expect(await two.outcome()).to.equal('miss'));
      expect(await two.entry.fetch({ item: 1 })).to.equal(2);
    });
  });

  describe('without an outbox', () => {
    it('are those of `alsoPartitions`', async () => {
      const own = await lendDatabase();
      await createItems(own);
      const one = lendProcess(8, own, undefined, [4]);
      const two = lendProcess(4, own, undefined, [8]);
      for (const { entry, outcome } of [one, two]) {
        await entry.fetch({ item: 1 });
        await eventually(async () => expect(await outcome()).to.equal('hit'));
      }
      await one.items.bump({ item: 1 });
      expect([await one.outcome(), await two.outcome()]).to.deep.equal(['miss', 'miss']);
    });
  });

  it('that can not be read fail a bump, which is tried again', async () => {
    const { one, outcomes } = await warmBoth();
    await db.raw('alter table gencache_layout rename to elsewhere');
    const error = (await rejection(one.items.bump({ item: 1 }))) as BumpError;
    expect(error).to.include({ code: 'BUMP', outcome: 'unknown' });
    expect(error.paths).to.deep.equal(['item=1']);
    expect(error.message).to.match(
      /^Bump of 1 scope \(item\) reached the processes with this number of partitions alone; the registry/,
    );
    expect(await outcomes()).to.deep.equal(['bypass', 'hit', 'hit', 'hit']);
    await db.raw('alter table elsewhere rename to gencache_layout');
    await eventually(async () => expect(await outcomes()).to.deep.equal(['miss', 'hit', 'miss', 'hit']));
  });

  it('that are read after the cache has closed open no connection', async () => {
    const clients = async () => {
      const lists = await Promise.all(cluster.nodes.map(({ admin }) => admin.client('LIST')));
      return String(lists).split('\n').filter((line) => line.includes('id=')).length; // prettier-ignore
    };
    await db('gencache_layout').insert({ cache: name, partitions: 64 });
    const before = await clients();
    const cache = new GenerationalCache({
      ...{ name, store: redisStore(cluster.client(), { partitions: 1 }), source: knexSource(db) },
      ...{ closeDeadlineMs: 100, bumpDeadlineMs: 500 },
    });
    const locking = await lendKnex(databaseUrl(schemaOf(db)), schemaOf(db)).transaction();
    await locking.raw('lock table gencache_layout in access exclusive mode');
    const bump = rejection(cache.bump());
    await cache.close();
    await locking.commit();
    expect(await bump).to.include({ code: 'BUMP' });
    await eventually(async () => expect(await clients()).to.equal(before));
  });
});
