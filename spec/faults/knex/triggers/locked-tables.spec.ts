import { expect } from 'chai';
import type { Knex } from 'knex';
import { checkTriggers, repairTriggers } from '../../../../lib/knex/triggers/check-triggers.js';
import { onChangeOf } from '../../../../lib/knex/triggers/on-change.js';
import { CACHE as cache, holding } from '../../../knex/triggers/support.js';
import { schemaOf } from '../../../support/postgres.js';
import { rejection } from '../../../support/rejection.js';
import { lendOutbox } from '../../../support/relay.js';

/** For ten attempts of 500 ms each. */
describe('a table that stays locked', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
    await db.raw('create table item (id int primary key, shop int)');
  });

  const install = (on: Knex) => onChangeOf(on, 'item', { cache }).bump({ shop: 'shop' }).install();

  it('makes an installation reject with its name, and restore the caller’s lock_timeout', async () => {
    const release = await holding(db, (trx) => trx.raw('lock table item in row exclusive mode'));
    await db.transaction(async (trx) => {
      await trx.raw(`set local lock_timeout = '17s'`);
      const error = await rejection(install(trx));
      expect(error).to.include({
        name: 'TableLockedError',
        table: `"${schemaOf(db)}"."item"`,
        message:
          `"${schemaOf(db)}"."item" stayed locked by other transactions: 10 attempts of 500 ms each did not get the lock ` +
          'that a change of its triggers takes. Nothing was changed. End the transactions that use it, and try again.',
      });
      const after = async () => (await trx.raw<{ rows: object[] }>('show lock_timeout')).rows[0];
      expect(await after()).to.deep.equal({ lock_timeout: '17s' });
      await release();
      await install(trx);
      expect(await after()).to.deep.equal({ lock_timeout: '17s' });
    });
    expect(await checkTriggers(db)).to.deep.equal([]);
  });

  it('makes a repair reject, after the other definitions', async () => {
    await db.raw('create table parent (id int primary key, shop int)');
    const installOn = (table: string) => onChangeOf(db, table, { cache }).bump({ shop: 'shop' }).install();
    const disabled = (table: string) => db.raw('alter table ?? disable trigger user', [table]);
    await installOn('parent');
    await installOn('item');
    await disabled('parent');
    await disabled('item');
    await db.transaction(async (reader) => {
      await reader.raw('lock table parent in row exclusive mode');
      expect(await rejection(repairTriggers(db))).to.include({ name: 'TableLockedError' });
    });
    expect(new Set((await checkTriggers(db)).map(({ table }) => table))).to.deep.equal(
      new Set([`${schemaOf(db)}.parent`]),
    );
  });
});
