/** A role without the grants of docs/roles-and-schemas.md: the library names them as the command line does. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox } from '../../../lib/knex/index.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { lendRelay } from '../../support/relay.js';
import { rejection } from '../../support/rejection.js';
import { lendRole } from '../../support/roles.js';
import { createItems, openShop } from '../../support/shop.js';

describe('a role that lacks rights', () => {
  let db: Knex;
  let role: string;

  beforeEach(async () => {
    db = await lendDatabase();
    await createItems(db);
    await installOutbox(db);
    role = await lendRole(db);
    await grant('usage on schema ??', schemaOf(db));
    await grant('select, update on item');
  });

  const grant = (rights: string, ...names: string[]) => db.raw(`grant ${rights} to ??`, [...names, role]);
  const own = (pool: Knex.PoolConfig = {}) =>
    lendKnex(databaseUrl(`${schemaOf(db)} -c role=${role}`), schemaOf(db), pool);
  const at = (table: string) => `"${schemaOf(db)}".${table}`;
  const grants = (...each: (readonly [rights: string, table: string])[]) =>
    `The role ${role} lacks rights on the outbox: ` +
    `${each.map(([rights, table]) => `${rights} on ${table}`).join('; ')}. As the owner of the outbox, run: ` +
    each.map(([rights, table]) => `grant ${rights.toLowerCase()} on ${at(table)} to "${role}";`).join(' ');

  const EVERYTHING = [
    ['SELECT, UPDATE', 'gencache_authority'],
    ['INSERT, SELECT', 'gencache_boot'],
    ['DELETE, INSERT, SELECT, UPDATE', 'gencache_outbox'],
  ] as const;

  it('on the outbox is told the GRANTs by a bump in its transaction, and by transaction()', async () => {
    const shop = openShop(own());
    const alone = shop.db.transaction((trx) => shop.items.bump({ item: 1 }, { trx }));
    expect(await rejection(alone)).to.include({ code: 'CONFIGURATION', message: grants(...EVERYTHING) });
    expect((await rejection(shop.set(5))).message).to.equal(grants(...EVERYTHING));
  });

  it('on the table of boots alone is told that GRANT', async () => {
    await grant('select, insert, update, delete on gencache_outbox');
    await grant('select, update on gencache_authority');
    const shop = openShop(own());
    expect((await rejection(shop.set(5))).message).to.equal(grants(['INSERT, SELECT', 'gencache_boot']));
  });

  it('for what follows the commit is told the GRANT in the result', async () => {
    await grant('select (xid), insert on gencache_outbox'); // for RETURNING
    await grant('select, insert on gencache_boot');
    await grant('select, update on gencache_authority');
    const shop = openShop(own());
    const { bump, error } = await shop.set(5);
    expect(bump).to.equal('pending');
    expect(error?.message).to.equal(grants(['DELETE, SELECT, UPDATE', 'gencache_outbox']));
  });

  it('on a pool of one connection, which the transaction has, is told all of the rights, long before a second connection would be given up', async () => {
    const shop = openShop(own({ max: 1 }));
    const beganMs = performance.now();
    expect((await rejection(shop.set(5))).message).to.equal(
      'PostgreSQL refused the role: permission denied for table gencache_outbox. As the owner of the outbox, grant the role ' +
        'USAGE on its schema; SELECT, INSERT, UPDATE, DELETE on gencache_outbox; SELECT, UPDATE on gencache_authority; ' +
        'SELECT, INSERT on gencache_boot.',
    );
    expect(performance.now() - beganMs).to.be.below(10_000); // Knex waits for a connection for 60 s
  });

  it('on a table of the application gets the error of PostgreSQL', async () => {
    await db.raw('create table secret (id int)');
    const shop = openShop(own());
    const reading = shop.cache.transaction((trx) => trx.raw('select * from secret'));
    expect((await rejection(reading)).message).to.equal('select * from secret - permission denied for table secret');
  });

  it('on the outbox makes its relay report the GRANTs of a relay', async () => {
    const failures: string[] = [];
    const relay = lendRelay({ db: own() });
    relay.on('failure', ({ error }) => failures.push(error.message));
    await eventually(() => expect(failures).to.not.deep.equal([]));
    expect(failures[0]).to.equal(
      grants(
        ['INSERT, SELECT, UPDATE', 'gencache_authority'],
        ['INSERT, SELECT', 'gencache_boot'],
        ['INSERT', 'gencache_dead_letter'],
        ['DELETE, SELECT, UPDATE', 'gencache_outbox'],
      ),
    );
  });
});
