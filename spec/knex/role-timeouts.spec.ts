/**
 * A role whose `statement_timeout` and `lock_timeout` are short, as hosts and administrators set them: for an application, and a
 * relay. A lookup that exceeds `statement_timeout` is in `outbox/resolve-events.spec.ts`.
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { eventually } from '../support/deferred.js';
import { lendKnex } from '../support/knexes.js';
import { databaseUrl, schemaOf } from '../support/postgres.js';
import { uniqueName } from '../support/redis.js';
import { lendOutbox, lendRelay } from '../support/relay.js';
import { rejection } from '../support/rejection.js';
import { lendRoleOfTables } from '../support/roles.js';
import { createItems, openShop, recorded } from '../support/shop.js';

const STATEMENT_MS = 300;
const LOCK_MS = 100;

describe('a role with short timeouts', () => {
  let db: Knex;
  let own: Knex;
  let role: string;

  beforeEach(async () => {
    db = await lendOutbox();
    await createItems(db);
    role = await lendRoleOfTables(db);
    const settings = `-c role=${role} -c statement_timeout=${STATEMENT_MS} -c lock_timeout=${LOCK_MS}`;
    own = lendKnex(databaseUrl(`${schemaOf(db)} ${settings}`), schemaOf(db));
  });

  /** Runs `work` while another session has this lock. */
  async function whileLocked(lock: string, work: () => Promise<unknown>): Promise<void> {
    const trx = await db.transaction();
    try {
      await trx.raw(lock);
      await work();
    } finally {
      await trx.rollback();
    }
  }

  describe('of an application', () => {
    for (const strict of [false, true]) {
      const kind = strict ? 'strict' : 'plain';

      it(`rejects a ${kind} transaction whose work takes longer, or waits for a lock; nothing is committed or bumped`, async () => {
        const shop = openShop(own);
        await shop.warm();
        const slow = shop.cache.transaction(
          async (trx) => {
            await shop.change(5)(trx);
            await trx.raw('select pg_sleep(1)');
          },
          { strict },
        );
        expect(await rejection(slow)).to.include({ code: '57014' });
        await whileLocked('select from item for update', async () => {
          expect(await rejection(shop.set(5, { strict }))).to.include({ code: '55P03' });
        });
        expect((await db('item').first<{ price: number }>()).price).to.equal(0);
        expect(await recorded(db)).to.deep.equal([]);
        expect(await shop.warm()).to.equal(0);
        expect(await shop.set(6, { strict })).to.include({ bump: 'done', ...(strict && { strict: 'kept' }) });
        expect(await shop.warm()).to.equal(6);
      });
    }

    it('rejects a read whose loader takes longer, and serves the next', async () => {
      const shop = openShop(own);
      await whileLocked('lock table item in access exclusive mode', async () => {
        expect(await rejection(shop.price.fetch({ item: 1 }))).to.include({ code: '55P03' });
      });
      expect(await shop.warm()).to.equal(0);
    });

    it('leaves its bumped events to a relay while it can not delete them', async () => {
      const shop = openShop(own);
      await shop.warm();
      await whileLocked('lock table gencache_authority in exclusive mode', async () => {
        expect(await shop.set(5)).to.include({ bump: 'done' });
        expect(await shop.warm()).to.equal(5);
        expect(await recorded(db)).to.deep.equal(['item=1']);
      });
      const relay = lendRelay({ db: own, cache: shop.name, pollMs: 20 });
      await eventually(async () => expect(await recorded(db)).to.deep.equal([]));
      await relay.stop();
    });
  });

  describe('of a relay', () => {
    it('makes the relay report it, and bump later: no event is lost, or a dead letter', async () => {
      const cache = uniqueName();
      const relay = lendRelay({ db: own, cache, pollMs: 20 });
      const failures: string[] = [];
      relay.on('failure', ({ error }) => failures.push(error.message));
      await eventually(() => expect(relay.status.trusted).to.equal(true));
      const record = () => db('gencache_outbox').insert({ cache, path: 'item=1', source: 'item', operation: 'UPDATE' });
      // A lock that a batch meets.
      await whileLocked('lock table gencache_authority in exclusive mode', async () => {
        await record();
        await eventually(() => expect(failures.join()).to.match(/canceling statement due to lock timeout/));
        expect(await recorded(db)).to.deep.equal(['item=1']);
      });
      await eventually(async () => expect(await recorded(db)).to.deep.equal([]), { withinMs: 5_000 });
      await eventually(() => expect(relay.status).to.include({ trusted: true, deadLetters: 0, repairs: 1 }));
      await relay.stop();
    });
  });
});
