import { lendOutbox } from '../../support/relay.js';
import { lendKnex } from '../../support/knexes.js';
import { privatePostgres } from '../../support/postgres.js';
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installedRelease, installOutbox, uninstallOutbox } from '../../../lib/knex/install/install-outbox.js';
import { notifyRelays } from '../../../lib/knex/install/notify-relays.js';
import { checkTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { uninstallTriggers } from '../../../lib/knex/triggers/remove-triggers.js';
import { rejection } from '../../support/rejection.js';
import { eventually } from '../../support/deferred.js';
import { CACHE as cache, leftovers, holding } from '../triggers/support.js';

describe('locks of installations', function () {
  this.timeout(60_000);
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox({ pool: { min: 0, max: 6 } });
    await db.raw('create table item (id int primary key, shop int)');
  });

  const install = (on: Knex) => onChangeOf(on, 'item', { cache }).bump({ shop: 'shop' }).install();

  async function awaited(table: string, on = db): Promise<void> {
    await eventually(async () => {
      const { rows } = await on.raw('select from pg_locks where relation = ?::regclass and not granted', [table]);
      expect(rows).to.have.length(1);
    });
  }

  const record = (on: Knex, path: string) => on('gencache_outbox').insert({ cache, path, source: 's', operation: 'o' });

  it('let a migration that altered the table install beside a process that installs at its start', async () => {
    let starting = Promise.resolve();
    await db.transaction(async (migration) => {
      await migration.raw('alter table item add column colour text');
      starting = install(db);
      await awaited('item');
      // The process has the right to install and waits for the table, the migration has the table and wants the right.
      await install(migration);
      await migration('item').insert({ id: 1, shop: 1 });
    });
    await starting;
    expect(await checkTriggers(db)).to.deep.equal([]);
  });

  it('lead to another attempt of an installation that PostgreSQL cancelled for a deadlock', async () => {
    // Before the wait for a table is given up.
    const { url } = await privatePostgres({ settings: { deadlock_timeout: '300ms' } });
    const own = lendKnex(url);
    await installOutbox(own);
    await own.raw('create table item (id int primary key, shop int)');
    await own.raw('create table part () inherits (item)');
    let installing = Promise.resolve();
    await own.transaction(async (trx) => {
      // So it is the other that is cancelled.
      await trx.raw(`set local deadlock_timeout = '1min'`);
      await trx('part').insert({ id: 1, shop: 1 });
      installing = install(own);
      await awaited('part', own);
      await trx.raw('lock table only item in row exclusive mode');
    });
    await installing;
    expect(await checkTriggers(own)).to.deep.equal([]);
  });

  describe('notifyRelays', () => {
    it('locks nothing where NOTIFY is as wanted', async () => {
      const still = await holding(db, (trx) => record(trx, 'shop=1'));
      await notifyRelays(db, false);
      await still();
      await notifyRelays(db, true);
      const release = await holding(db, (trx) => record(trx, 'shop=1'));
      await notifyRelays(db, true);
      await release();
    });

    it('restores a trigger that was disabled', async () => {
      await notifyRelays(db, true);
      await db.raw('alter table gencache_outbox disable trigger gencache_notify');
      await notifyRelays(db, true);
      const { rows } = await db.raw(
        `select tgenabled as enabled from pg_trigger where tgname = 'gencache_notify' and tgrelid = 'gencache_outbox'::regclass`,
      );
      expect(rows).to.deep.equal([{ enabled: 'A' }]);
    });

    for (const on of [true, false]) {
      it(`waits for a long writer, and gives way to others, when switched ${on ? 'on' : 'off'}`, async () => {
        await notifyRelays(db, !on);
        const release = await holding(db, (trx) => record(trx, 'shop=1'));
        const switching = notifyRelays(db, on);
        await awaited('gencache_outbox');
        await record(db, 'shop=2');
        await release();
        await switching;
        const { rows } = await db.raw(`select to_regprocedure('gencache_notify()') is not null as on`);
        expect(rows).to.deep.equal([{ on }]);
      });
    }

    it('rejects without an outbox', async () => {
      await uninstallOutbox(db);
      expect((await rejection(notifyRelays(db, true))).message).to.equal(
        'There is no outbox of this release on the search path of this connection. A trigger on it sends the hints. ' +
          'Call `installOutbox` in a migration, or pass the `schema` it is in.',
      );
    });
  });

  it('make removal of triggers and outbox wait for a long writer and give way to others', async () => {
    for (const [table, uninstall] of [
      ['item', uninstallTriggers],
      ['gencache_outbox', uninstallOutbox],
    ] as const) {
      await install(db);
      const release = await holding(db, (trx) =>
        table === 'item' ? trx('item').insert({ id: 1, shop: 1 }) : record(trx, 'shop=1'),
      );
      const uninstalling = uninstall(db);
      await awaited(table);
      await (table === 'item' ? db('item').insert({ id: 2, shop: 2 }) : record(db, 'shop=2'));
      await release();
      await uninstalling;
      if (table === 'item') expect(await leftovers(db)).to.deep.equal([]);
    }
    expect(await installedRelease(db)).to.equal(undefined);
  });
});
