/**
 * The rights of docs/roles-and-schemas.md on the tables of the outbox: each of them is needed. A role has them all but
 * one; the operation fails with an error that names that GRANT, and works once it is granted.
 */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox } from '../../../lib/knex/index.js';
import { type NeededRights, RELAY_RIGHTS, WRITER_RIGHTS } from '../../../lib/knex/outbox/missing-rights.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { lendRole } from '../../support/roles.js';
import { createItems, openShop, recorded } from '../../support/shop.js';

const eachOf = (rights: NeededRights) =>
  Object.entries(rights).flatMap(([table, each]) => each.map((right) => ({ table, right })));

describe('a role', () => {
  let db: Knex;
  let role: string;

  before(async () => {
    db = await lendDatabase();
    await createItems(db);
    await installOutbox(db);
    role = await lendRole(db);
    await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
    await db.raw('grant select, update on item to ??', [role]);
  });

  const own = () => lendKnex(databaseUrl(`${schemaOf(db)} -c role=${role}`), schemaOf(db));
  const change = (verb: string, right: string, table: string) =>
    db.raw(`${verb} ${right} on ${table} ${verb === 'grant' ? 'to' : 'from'} ??`, [role]);
  const grantOf = (right: string, table: string) =>
    `${right} on ${table}. As the owner of the outbox, run: grant ${right.toLowerCase()} on "${schemaOf(db)}".${table} to "${role}";`;

  /** Grants these rights, but for one. */
  async function allowAllBut(rights: NeededRights, missing: { table: string; right: string }): Promise<void> {
    await db.raw('revoke all on all tables in schema ?? from ??', [schemaOf(db), role]);
    await db.raw('grant select, update on item to ??', [role]);
    for (const [table, each] of Object.entries(rights)) await change('grant', each.join(', '), table);
    await change('revoke', missing.right, missing.table);
    // As before the first relay.
    await db.raw('delete from gencache_authority; delete from gencache_outbox');
    // As after a crash: the next program notes the boot.
    if (missing.table === 'gencache_boot') await db.raw('delete from gencache_boot');
  }

  describe('that writes', () => {
    for (const { table, right } of eachOf(WRITER_RIGHTS)) {
      it(`needs ${right} on ${table}`, async () => {
        await allowAllBut(WRITER_RIGHTS, { table, right });
        const shop = openShop(own());
        const told: string[] = [];
        shop.cache.on('warning', ({ message }) => told.push(message));
        await shop.set(5).then(
          ({ error }) => error && told.push(error.message),
          (error: Error) => told.push(error.message),
        );
        const fact = `The role ${role} lacks rights on the outbox: ${grantOf(right, table)}`;
        await eventually(() => expect(told.filter((message) => message.endsWith(fact))).to.have.length(1));
        await change('grant', right, table);
        expect((await shop.set(6)).bump).to.equal('done');
        await db('gencache_outbox').delete();
        expect((await shop.set(7)).bump).to.equal('done');
        expect(await recorded(db)).to.deep.equal([]);
      });
    }
  });

  describe('that relays', () => {
    for (const { table, right } of eachOf(RELAY_RIGHTS)) {
      it(`needs ${right} on ${table}`, async () => {
        await allowAllBut(RELAY_RIGHTS, { table, right });
        const cache = uniqueName();
        const record = (path: string) =>
          db('gencache_outbox').insert({ cache, path, source: 'a spec', operation: 'bump' });
        await record('item=1');
        await record('?'); // a dead letter
        const relay = lendRelay({ db: own(), cache, pollMs: 20 });
        const failures: string[] = [];
        relay.on('failure', ({ error }) => failures.push(error.message));
        await eventually(() => expect(failures).to.not.deep.equal([]), { withinMs: 5_000 });
        expect(failures[0]).to.equal(`The role ${role} lacks rights on the outbox: ${grantOf(right, table)}`);
        await change('grant', right, table);
        await eventually(() => expect(relay.status).to.include({ events: 2, deadLetters: 1 }));
        await relay.stop();
      });
    }
  });
});
