/** A migration keeps a table locked, for long, in which others' events are looked up. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { onChangeOf } from '../../../lib/knex/index.js';
import { formatGeneration, nonce } from '../../../lib/model/generation.js';
import { generationKey, keyPrefix } from '../../../lib/model/key.js';
import { eventually } from '../../support/deferred.js';
import { lendRedis } from '../../support/redis.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { createItems, openShop, recorded, type Shop } from '../../support/shop.js';

describe('a looked-up table that a migration keeps locked', () => {
  let db: Knex;
  let shop: Shop;
  let migration: Knex.Transaction;

  beforeEach(async () => {
    db = await lendOutbox({ pool: { max: 20 } });
    await createItems(db);
    await db.raw(
      `create table workflow (id int primary key, name text);
       create table link (workflow_id int, detector_id int);
       insert into workflow values (9, 'a'); insert into link values (9, 42)`,
    );
    shop = openShop(db);
    const options = { cache: shop.name };
    await onChangeOf(db, 'workflow', options)
      .lookUp('link', { workflow_id: 'id' })
      .bump({ detector: 'detector_id' })
      .install();
    await onChangeOf(db, 'link', options).bump({ detector: 'detector_id' }).install();
    await onChangeOf(db, 'item', options).bump({ item: 'id' }).install();
    migration = await db.transaction();
    await migration.raw('lock table link in access exclusive mode');
  });

  afterEach(() => migration.rollback());

  const rename = (name: string, trx: Knex = db) => trx('workflow').where({ id: 9 }).update({ name });
  /** Tells how often global was bumped: the fallback of what can't be looked up. */
  async function mint() {
    const redis = lendRedis();
    const key = generationKey(keyPrefix(shop.name), '');
    await redis.set(key, formatGeneration(0, nonce()), 'PX', 60_000);
    return async () => Number.parseInt((await redis.get(key)) ?? '-1', 10);
  }

  it('delays no event: scopes of other events are bumped, and the fallbacks of its own', async () => {
    const relay = lendRelay({ db, cache: shop.name, pollMs: 10 });
    await eventually(() => expect(relay.status.trusted).to.equal(true));
    const bumped = await mint();
    for (let price = 1; price <= 3; price++) {
      await rename(`b${price}`);
      await db('item').update({ price });
      await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
    }
    expect(await bumped()).to.be.at.least(3);
    await eventually(() => expect(relay.status).to.include({ events: 6, failures: 0, deadLetters: 0 }));
    expect(migration.isCompleted()).to.equal(false);
  });

  for (const strict of [false, true]) {
    it(`does not delay writers whose events look it up (${strict ? 'strict' : 'plain'})`, async () => {
      await shop.warm();
      const bumped = await mint();
      expect(await shop.cache.transaction((trx) => rename('c', trx), { strict })).to.include({
        bump: 'done',
        ...(strict ? { strict: 'kept' } : {}),
      });
      expect(await bumped()).to.equal(1);
      expect(await recorded(db)).to.deep.equal([]);
      expect(await shop.outcome()).to.equal('miss');
    });
  }
});
