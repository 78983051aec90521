/** Caches of one name with different numbers of partitions, side by side. docs/protocol.md, rule 24. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../../../lib/index.js';
import { knexSource } from '../../../../lib/knex/index.js';
import { redisStore } from '../../../../lib/store/redis/index.js';
import { observe } from '../../../../lib/testing/index.js';
import { eventually } from '../../../support/deferred.js';
import { lendKnex } from '../../../support/knexes.js';
import { lend } from '../../../support/lenders.js';
import { privateRedisCluster, type RedisCluster } from '../../../support/redis-cluster.js';
import { uniqueName } from '../../../support/redis.js';
import { lendOutbox } from '../../../support/relay.js';
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

  function lendProcess(partitions: number, own: Knex = db) {
    const cache = new GenerationalCache({
      ...{ name, store: redisStore(cluster.client(), { partitions }), source: knexSource(own), ttlMs: 600_000 },
      ...{ readDeadlineMs: 5_000, fillDeadlineMs: 5_000, bumpDeadlineMs: 5_000 },
    });
    lend({ what: 'a cache', close: () => cache.close() });
    const items = cache.namespace('item', integer());
    const entry = items.one<{ id: number; version: number }, number>('version', {
      load: (ids, context) => context.db('item').whereIn('id', ids.map(({ item }) => item)), // prettier-ignore
      by: ({ id }) => ({ item: id }),
      value: ({ version }) => version,
    });
    return {
      cache,
      items,
      entry,
      seen: observe(cache),
      outcome: async (item = 1) => (await entry.lookup({ item })).outcome,
    };
  }

  const registered = (at: Knex = db) =>
    at('gencache_layout').where({ cache: name }).orderBy('partitions').pluck('partitions');

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
});
