/** A transaction whose events have lookups, beside the events of others that wait. docs/protocol.md, rule 8. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { GenerationalCache, integer } from '../../lib/index.js';
import { knexSource } from '../../lib/knex/index.js';
import { onChangeOf } from '../../lib/knex/triggers/on-change.js';
import { redisStore } from '../../lib/store/redis/index.js';
import { lend } from '../support/lenders.js';
import { lendRedis, uniqueName } from '../support/redis.js';
import { lendOutbox } from '../support/relay.js';

describe('a transaction whose events have lookups', () => {
  let db: Knex;
  let name: string;
  let shop: ReturnType<typeof openShop>;

  beforeEach(async () => {
    name = uniqueName();
    db = await lendOutbox();
    await db.raw(`
      create table product (id int primary key, label text);
      create table offer (id int primary key, product_id int, shop_id int);
      insert into product values (1, 'hat');
      insert into offer values (1, 1, 7), (2, 1, 8)`);
    await onChangeOf(db, 'offer', { cache: name }).bump({ shop: 'shop_id' }).install();
    await onChangeOf(db, 'product', { cache: name })
      .lookUp('offer', { product_id: 'id' })
      .bump({ shop: 'shop_id' })
      .install();
    shop = openShop();
    await shop.labels(7);
    await shop.labels(8);
  });

  function openShop() {
    const cache = new GenerationalCache({
      ...{ name, store: redisStore(lendRedis({ lazyConnect: true })), source: knexSource(db), ttlMs: 600_000 },
    });
    lend({ what: 'a cache', close: () => cache.close() });
    const labels = cache.namespace('shop', integer()).list<{ shop_id: number; label: string }, string>('labels', {
      load: (ids, context) =>
        context
          .db('offer')
          .join('product', 'product.id', 'product_id')
          .whereIn('shop_id', ids.map(({ shop }) => shop)), // prettier-ignore
      by: (row) => ({ shop: row.shop_id }),
      value: (row) => row.label,
    });
    return {
      cache,
      labels: (id: number) => labels.fetch({ shop: id }),
      outcome: async (id: number) => (await labels.lookup({ shop: id })).outcome,
    };
  }

  const rename = (strict: boolean) =>
    shop.cache.transaction((trx) => trx('product').where({ id: 1 }).update({ label: 'cap' }), { strict });
  const waiting = () => db('gencache_outbox').where({ cache: name }).orderBy(['xid', 'seq']).pluck('path');

  for (const strict of [false, true]) {
    describe(strict ? 'and that is strict' : 'and that is plain', () => {
      it('reads its own writes where another transaction has removed the link, and no relay has bumped that', async () => {
        await db('offer').where({ id: 1 }).delete();
        expect(await shop.labels(7)).to.deep.equal(['hat']);
        expect(await rename(strict)).to.include({ bump: 'done' });
        expect(await shop.labels(7)).to.deep.equal([]);
        expect(await shop.labels(8)).to.deep.equal(['cap']);
        expect(await waiting()).to.deep.equal(['shop=7']);
      });

      it('reads them where the event of that transaction has a lookup of its own', async () => {
        await db('product').insert({ id: 2, label: 'scarf' });
        await db('offer').where({ id: 1 }).update({ product_id: 2 });
        await db('product').where({ id: 2 }).update({ label: 'shawl' });
        await rename(strict);
        expect(await shop.labels(7)).to.deep.equal(['shawl']);
      });
    });
  }

  it('leaves its events to a relay if it can not look through all that wait', async () => {
    await db.raw(
      `insert into gencache_outbox (cache, path, source, operation)
       select ?, 'shop=' || i, 'spec', 'bump' from generate_series(100, 1100) as i`,
      [name],
    );
    const { bump, error } = await rename(false);
    expect(bump).to.equal('pending');
    expect(error?.message).to.match(/^More than 1,000 events of other transactions wait/);
    expect(await shop.labels(8)).to.deep.equal(['cap']);
    expect(await waiting()).to.have.length(1_002);
  });
});
