import { expect } from 'chai';
import { GenerationalCache, integer, memoryStore } from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { lend } from '../support/lenders.js';
import { lendDatabase } from '../support/postgres.js';
import { uniqueName } from '../support/redis.js';

describe('a fetch inside a transaction, with as many transactions as the pool has connections', () => {
  const POOL = 4;

  /** Begins as many transactions as the pool has connections; each fetches an item of its own, and commits. */
  async function fetchInEach(how: 'with trx' | 'without trx') {
    const db = await lendDatabase({ pool: { max: POOL, acquireTimeoutMillis: 300 } });
    db.client.logger.warn = () => {};
    db.client.logger.debug = () => {};
    db.client.logger.error = () => {};
    const cache = new GenerationalCache({ name: uniqueName(), store: memoryStore(), source: knexSource(db) });
    const warnings: string[] = [];
    cache.on('warning', ({ message }) => warnings.push(message));
    lend({ what: 'the cache', close: () => cache.close() });
    const value = cache.namespace('item', integer()).one('value', {
      load: async (ids, context) => {
        await context.db.raw('select 1');
        return ids.map(({ item }) => ({ item }));
      },
      by: ({ item }) => ({ item }),
    });
    const trxs = await Promise.all(Array.from({ length: POOL }, () => db.transaction()));
    const fetched = await Promise.allSettled(
      trxs.map((trx, item) => value.fetch({ item }, how === 'with trx' ? { trx } : {})),
    );
    await Promise.all(trxs.map((trx) => trx.rollback()));
    const outcomes = fetched.map((result) =>
      result.status === 'rejected' ? (result.reason as Error).name : result.status,
    );
    return { outcomes, warnings };
  }

  it('with trx reads on the connection of its transaction', async () => {
    const { outcomes, warnings } = await fetchInEach('with trx');
    expect(outcomes).to.deep.equal(Array<string>(POOL).fill('fulfilled'));
    expect(warnings).to.deep.equal([]);
  });

  it('without trx waits for a connection until acquireConnectionTimeout, rejects, and warns once with the remedy', async () => {
    const { outcomes, warnings } = await fetchInEach('without trx');
    expect(outcomes).to.deep.equal(Array<string>(POOL).fill('KnexTimeoutError'));
    expect(warnings).to.deep.equal([
      'A load found no free connection in the pool of Knex within acquireConnectionTimeout. A fetch without trx inside a ' +
        'transaction waits for a second connection while it holds the first. Pass the transaction, `fetch(ids, { trx })`, ' +
        'read before it, or give the Knex of knexSource a pool of its own.',
    ]);
  });
});
