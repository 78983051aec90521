import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer, memoryStore } from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { eventually } from '../support/deferred.js';
import { lendProxied } from '../support/knexes.js';
import { lend } from '../support/lenders.js';
import { lendDatabase, schemaOf } from '../support/postgres.js';
import { rejection } from '../support/rejection.js';
import { uniqueName } from '../support/redis.js';

describe('a load on Knex with a hard timeout', () => {
  let db: Knex;
  let watching: Knex;
  beforeEach(async () => {
    db = await lendDatabase({ pool: { max: 1 } }); // a cancellation needs no connection of the pool
    watching = await lendDatabase();
    await db.schema.createTable('item', (table) => table.integer('id'));
    await db('item').insert([{ id: 1 }]);
  });

  function lendCache(query: (db: Knex) => PromiseLike<unknown>, loadHardTimeoutMs = 100, from = db) {
    const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore(), source: knexSource(from) });
    lend({ what: 'the cache', close: () => cache.close() });
    let error: unknown;
    const value = cache.namespace('item', integer()).one('value', {
      loadHardTimeoutMs,
      async load(ids, context) {
        await Promise.resolve(query(context.db)).catch((thrown: unknown) => {
          error = thrown;
          throw thrown;
        });
        return ids.map(({ item }) => ({ item }));
      },
      by: ({ item }) => ({ item }),
    });
    return { cache, value, loaderError: () => error as Error };
  }

  /** The queries that sessions of `db` run at the moment. */
  const active = async () => {
    const text = `select query from pg_stat_activity where application_name = ? and state = 'active'`;
    return (await watching.raw<{ rows: { query: string }[] }>(text, [schemaOf(db)])).rows.map(({ query }) => query);
  };

  const SLEEPS: Record<string, (db: Knex) => PromiseLike<unknown>> = {
    'a raw query': (own) => own.raw('select pg_sleep(60)'),
    'a query of a builder': (own) => own('item').select(own.raw('id, pg_sleep(60)')),
    'a query in a transaction': (own) => own.transaction((trx) => trx('item').select(trx.raw('pg_sleep(60)'))),
  };
  for (const [what, sleep] of Object.entries(SLEEPS)) {
    it(`cancels ${what} at the server, and frees its connection`, async () => {
      const { cache, value, loaderError } = lendCache(sleep);
      const reading = rejection(value.fetch({ item: 1 }));
      await eventually(async () => expect((await active()).join()).to.contain('pg_sleep'));
      expect(await reading).to.have.property('code', 'LOAD_TIMEOUT');
      await eventually(async () => expect(await active()).to.deep.equal([]));
      await cache.settled();
      expect(loaderError()).to.have.property('code', '57014'); // canceling statement due to user request
      expect(await db('item').select('id')).to.deep.equal([{ id: 1 }]); // on the pool's only connection
    });
  }

  it('sends no further query of a load that was told to stop', async () => {
    const { cache, value, loaderError } = lendCache(async (own) => {
      await own.raw('select pg_sleep(60)').catch(() => {});
      await own.raw('select pg_sleep(60)');
    });
    const error = await rejection(value.fetch({ item: 1 }));
    await cache.settled();
    expect(loaderError()).to.equal(error);
  });

  it('gives back a connection that it waited for until it was told to stop', async () => {
    const { cache, value } = lendCache((own) => own.raw('select pg_sleep(60)'));
    const trx = await db.transaction(); // the pool's only connection
    expect(await rejection(value.fetch({ item: 1 }))).to.have.property('code', 'LOAD_TIMEOUT');
    await trx.commit();
    await cache.settled();
    expect(await active()).to.deep.equal([]);
    expect(await db('item').select('id')).to.deep.equal([{ id: 1 }]);
  });

  it('cancels no other query, even if its own ends at that moment', async () => {
    const { cache, value } = lendCache((own) => own.raw('select pg_sleep(0.02)'), 22);
    for (let i = 0; i < 40; i++) {
      const reading = value.fetch({ item: i }).catch(() => {});
      const next = db.raw('select pg_sleep(0.005)'); // waits for the connection, and gets it next
      await Promise.all([reading, next]);
    }
    await cache.settled();
  });

  it('gives its connection back, to be replaced, when the cancellation gets no answer', async () => {
    const { db: far, proxy } = await lendProxied(schemaOf(db));
    const { cache, value } = lendCache((own) => own.raw('select pg_sleep(60)'), 200, far);
    const reading = rejection(value.fetch({ item: 1 }));
    await eventually(async () => expect((await active()).join()).to.contain('pg_sleep'));
    proxy.holdsNew = true; // that of the cancellation
    expect(await reading).to.have.property('code', 'LOAD_TIMEOUT');
    await watching.raw('select pg_terminate_backend(pid) from pg_stat_activity where application_name = ?', [
      schemaOf(db),
    ]);
    await cache.settled();
    expect(cache.state.loads).to.deep.equal({ running: 0, overdue: 0, waiting: 0, elsewhere: 0 });
    proxy.holdsNew = false;
    expect(await far('item').select('id')).to.deep.equal([{ id: 1 }]);
  });

  it('reads through the settings of the instance', async () => {
    let rows: unknown;
    const { value } = lendCache(async (own) => (rows = await own('item').select('id')), 10_000);
    await value.fetch({ item: 1 });
    expect(rows).to.deep.equal([{ id: 1 }]); // found by the search path
  });

  it('leaves a transaction of the caller alone', async () => {
    const { value } = lendCache((own) => own.raw('select pg_sleep(0.3)'));
    await db.transaction(async (trx) => {
      expect(await rejection(value.fetch({ item: 1 }, { trx }))).to.have.property('code', 'LOAD_TIMEOUT');
      expect(await trx('item').select('id')).to.deep.equal([{ id: 1 }]);
    });
  });

  it('of 0 reads on the instance itself', async () => {
    let used: unknown;
    const { value } = lendCache(async (own) => (used = own), 0);
    await value.fetch({ item: 1 });
    expect(used).to.equal(db);
  });
});
