/** A writer that settles late, after a crash of PostgreSQL: transactions' ids may come again, and be others'. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { eventually } from '../../support/deferred.js';
import { type Proxy, startProxy } from '../../support/proxy.js';
import { before as beforeQuery } from '../../support/queries.js';
import { redisUrl } from '../../support/redis.js';
import { lendOutbox } from '../../support/relay.js';
import { createItems, openShop, recorded, type Shop } from '../../support/shop.js';

describe('a writer that settles after a crash of PostgreSQL', () => {
  let db: Knex;
  let redis: Proxy;
  let shop: Shop;

  beforeEach(async () => {
    db = await lendOutbox();
    await createItems(db);
    redis = await startProxy(Number(new URL(redisUrl()).port || 6379));
    shop = openShop(db, { redis: redis.url, bumpDeadlineMs: 10_000 });
    await shop.warm();
  });

  /** As a crash leaves it, and as the process leaves it that notes the boot after. */
  const crash = async () => {
    await db('gencache_boot').delete();
    await db.raw('insert into gencache_boot default values');
  };
  /** Commits, and is held up between its bump's command and the reply. Returns the id that its events had, and what it resolves to. */
  async function commitAndWait() {
    const asked = new Promise<void>((resolve) => {
      db.on('query-response', (_: unknown, { sql }: { sql: string }) => {
        if (sql.includes('gencache_outbox as event')) resolve();
      });
    });
    beforeQuery(db, 'COMMIT', () => redis.hold());
    const writing = shop.set(5);
    writing.catch(() => {});
    await eventually(async () => expect(await recorded(db)).to.deep.equal(['item=1']));
    await asked;
    const [xid] = (await db('gencache_outbox').pluck<string[]>('xid')) as [string];
    return { xid, writing };
  }

  for (const [crashes, left] of [
    [false, []],
    [true, ['item=2']],
  ] as const) {
    it(`deletes the events of its transaction${crashes ? ', and none of a later one with the same id' : ''}`, async () => {
      const { xid, writing } = await commitAndWait();
      if (crashes) {
        await crash();
        await db('gencache_outbox').delete(); // lost, as the change is
        await db('gencache_outbox').insert({
          cache: shop.name,
          xid,
          path: 'item=2',
          source: 'item',
          operation: 'UPDATE',
        });
      }
      redis.release();
      expect(await writing).to.include({ bump: 'done' });
      expect(await recorded(db)).to.deep.equal(left);
    });
  }

  it('leaves its events to a relay before the boot is noted, and notes it', async () => {
    await db('gencache_boot').delete();
    expect(await shop.set(5)).to.include({ bump: 'done' });
    expect(await shop.outcome()).to.equal('miss');
    expect(await recorded(db)).to.deep.equal(['item=1']);
    expect(await db('gencache_boot')).to.have.length(1);
    expect(await shop.set(6)).to.include({ bump: 'done' });
    expect(await recorded(db)).to.have.length(1);
  });
});
