import { expect } from 'chai';
import type { Knex } from 'knex';
import { narrowBump, waiveBump } from '../../../lib/knex/migrations/narrow-bump.js';
import {
  installMigrationsTrigger,
  type MigrationsTriggerOptions,
  uninstallMigrationsTrigger,
  uninstallMigrationsTriggers,
} from '../../../lib/knex/migrations/migrations-trigger.js';
import { installOutbox } from '../../../lib/knex/install/install-outbox.js';
import { quoted } from '../../../lib/knex/postgres/identifiers.js';
import { execute } from '../../../lib/knex/postgres/sql-text.js';
import { deferred } from '../../support/deferred.js';
import { lend } from '../../support/lenders.js';
import { lendDatabase, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { eventsOf, relayed } from './project.js';

const GLOBAL = '*.knex_migrations migration global';

describe('the migrations trigger', () => {
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    db = await lendDatabase();
    cache = uniqueName();
    await db.migrate.list({
      migrationSource: {
        getMigrations: async () => [],
        getMigrationName: String,
        getMigration: async () => {
          throw new Error('none');
        },
      },
    });
    await installOutbox(db);
    await installMigrationsTrigger(db, { cache });
  });

  const events = () => eventsOf(db, cache);

  for (const [statement, recorded] of [
    [`insert into knex_migrations (name) values ('m1')`, 1],
    [`insert into knex_migrations (name) values ('m1'), ('m2')`, 1],
    [`insert into knex_migrations (name) select 'm1' where false`, 0],
    [`update knex_migrations set name = 'renamed.ts'`, 1],
    [`update knex_migrations set batch = 2 where name = 'nobody'`, 0],
    [`delete from knex_migrations where name = 'm0'`, 1],
    [`delete from knex_migrations where name = 'nobody'`, 0],
    [`truncate knex_migrations`, 1],
    [
      `set session_replication_role = replica; insert into knex_migrations (name) values ('m1'); reset session_replication_role`,
      1,
    ],
    [`set gencache.events = 'off'; insert into knex_migrations (name) values ('m1'); reset gencache.events`, 0],
    [`set local search_path = pg_catalog; insert into SCHEMA.knex_migrations (name) values ('m1')`, 1],
    [`insert into knex_migrations (name) values (null)`, 1],
  ] as const) {
    it(`records ${recorded === 1 ? 'one event' : 'nothing'} for another tool’s ${statement}`, async () => {
      await db.raw(`insert into knex_migrations (name) values ('m0')`);
      await relayed(db);
      await db.transaction(async (trx) => {
        await trx.raw(statement.replace('SCHEMA', schemaOf(db)));
        await trx.raw('set local search_path = ??', [schemaOf(db)]);
      });
      expect(await events()).to.deep.equal(Array(recorded).fill(GLOBAL));
    });
  }

  it('records in the transaction of the change, and nothing if that rolls back', async () => {
    const trx = await db.transaction();
    await trx('knex_migrations').insert({ name: 'm1' });
    expect(await eventsOf(trx, cache)).to.deep.equal([GLOBAL]);
    await trx.rollback();
    expect(await events()).to.deep.equal([]);
  });

  it('records the narrowed scopes of all migrations of a statement, once', async () => {
    await narrowBump(db, { cache, migration: 'm1', to: [{ detector: 1 }, { detector: 2 }] });
    await narrowBump(db, { cache, migration: 'm2', to: [{ detector: 2 }] });
    await waiveBump(db, { cache, migration: 'm3' });
    await waiveBump(db, { cache, migration: 'm4' });
    await db('knex_migrations').insert([{ name: 'm1' }, { name: 'm2' }, { name: 'm3' }]);
    expect(await events()).to.have.members([
      '*.knex_migrations migration detector=1',
      '*.knex_migrations migration detector=2',
    ]);
    expect(await db('gencache_narrowed').pluck('migration')).to.deep.equal(['m4']);
    await relayed(db);
    await db('knex_migrations').where({ name: 'm1' }).delete();
    expect(await events(), 'the second time').to.deep.equal([GLOBAL]);
  });

  it('records global if one migration of a statement did not narrow its bump', async () => {
    await narrowBump(db, { cache, migration: 'm1', to: [{ detector: 1 }] });
    await db('knex_migrations').insert([{ name: 'm1' }, { name: 'm2' }]);
    expect(await events()).to.deep.equal([GLOBAL]);
    expect(await db('gencache_narrowed')).to.deep.equal([]);
  });

  it('forgets a narrowed bump with a migration that rolls back', async () => {
    await db
      .transaction(async (trx) => {
        await waiveBump(trx, { cache, migration: 'm1' });
        throw new Error('died midway');
      })
      .catch(() => {});
    await db('knex_migrations').insert({ name: 'm1' });
    expect(await events()).to.deep.equal([GLOBAL]);
  });

  it('leaves the narrowed bumps of other caches alone', async () => {
    const other = uniqueName();
    await installMigrationsTrigger(db, { cache: other });
    await waiveBump(db, { cache: other, migration: 'm1' });
    await db('knex_migrations').insert({ name: 'm1' });
    expect(await events()).to.deep.equal([GLOBAL]);
    expect(await eventsOf(db, other)).to.deep.equal([]);
  });

  it('fails no write of a role without grants on the outbox', async () => {
    const role = `gencache_${cache}`;
    await db.raw('create role ??', [role]);
    lend({
      what: `the role ${role}`,
      close: async () => {
        await db.raw('drop owned by ??', [role]);
        await db.raw('drop role ??', [role]);
      },
    });
    await db.raw('grant usage on schema ?? to ??', [schemaOf(db), role]);
    await db.raw('grant insert on knex_migrations to ??', [role]);
    await db.raw('grant usage on sequence knex_migrations_id_seq to ??', [role]);
    await db.transaction(async (trx) => {
      await trx.raw('set local role ??', [role]);
      await trx.raw(`insert into knex_migrations (name) values ('m1')`);
    });
    expect(await events()).to.deep.equal([GLOBAL]);
  });

  it('records global for a migrations table without a `name` column', async () => {
    await db.schema.createTable('schema_migrations', (columns) => columns.text('version'));
    await installMigrationsTrigger(db, { cache, table: 'schema_migrations' });
    await db('schema_migrations').insert({ version: '20260101' });
    await db.raw('alter table knex_migrations rename name to title');
    await db.raw(`insert into knex_migrations (title) values ('m1')`);
    expect(await events()).to.deep.equal(['*.schema_migrations migration global', GLOBAL]);
  });

  it('quotes names of caches, schemas and tables', async () => {
    const schema = `${schemaOf(db)} "'$`;
    await db.raw('create schema ??', [schema]);
    lend({ what: `the schema ${schema}`, close: () => db.raw('drop schema if exists ?? cascade', [schema]) });
    const table = `"; drop table x; -- '?\\ $gencache$ ÄÖÜ ${'x'.repeat(20)}`;
    const quotedTable = `${quoted(schema)}.${quoted(table)}`;
    const options: MigrationsTriggerOptions = { cache: uniqueName('other'), table, tableSchema: schema };
    await db.transaction(async (trx) => {
      await execute(trx, `create table ${quotedTable} as select 'm1' as name`);
      await installMigrationsTrigger(trx, options);
      await execute(trx, `delete from ${quotedTable}`);
    });
    expect(await db('gencache_outbox').pluck('cache')).to.deep.equal([options.cache]);
    expect(await db('gencache_outbox').pluck('source')).to.deep.equal([`${schema}.${table}`]);
    await uninstallMigrationsTrigger(db, options);
    expect(await db('gencache_trigger').pluck('cache')).to.deep.equal([cache]);
  });

  /** Everything in the database that the trigger is made of. */
  async function made(): Promise<number> {
    const { rows } = await db.raw<{ rows: { made: number }[] }>(
      `select ((select count(*) from pg_trigger where tgrelid = 'knex_migrations'::regclass)
        + (select count(*) from pg_proc where pronamespace = ?::regnamespace and proname like 'gencache_migrations%')
        + (select count(*) from gencache_trigger))::int as made`,
      [schemaOf(db)],
    );
    return rows[0]!.made;
  }

  it('is one function, four triggers and a row after several installations, also at once', async () => {
    await Promise.all(Array.from({ length: 20 }, () => installMigrationsTrigger(db, { cache })));
    expect(await made()).to.equal(6);
    expect(
      await db('gencache_trigger').select('cache', 'table_schema', 'table_name', 'name', 'definition'),
    ).to.deep.equal([
      {
        cache,
        table_schema: schemaOf(db),
        table_name: 'knex_migrations',
        name: 'migrations',
        definition: { kind: 'migrations' },
      },
    ]);
  });

  it('locks no table when it is up to date, and is repaired when it is not', async () => {
    const held = deferred();
    const reader = db.transaction(async (trx) => {
      await trx.raw('lock table knex_migrations in row exclusive mode'); // as a writer does; no trigger is made meanwhile
      await held.promise;
    });
    await db.transaction(async (trx) => {
      await trx.raw(`set local lock_timeout = '1s'`);
      await installMigrationsTrigger(trx, { cache });
    });
    held.resolve();
    await reader;

    await db.raw('alter table knex_migrations disable trigger all');
    await db.raw('alter table knex_migrations enable trigger all'); // ORIGIN by now
    await installMigrationsTrigger(db, { cache });
    const enabled = await db('pg_trigger').whereRaw(`tgrelid = 'knex_migrations'::regclass`).pluck('tgenabled');
    expect(enabled).to.deep.equal(['A', 'A', 'A', 'A']);
  });

  it('leaves nothing when it is uninstalled, also from a renamed table', async () => {
    await uninstallMigrationsTrigger(db, { cache: uniqueName() });
    expect(await made(), 'of another cache').to.equal(6);
    await uninstallMigrationsTrigger(db, { cache });
    expect(await made()).to.equal(0);
    await uninstallMigrationsTrigger(db, { cache });

    await installMigrationsTrigger(db, { cache });
    await db.schema.renameTable('knex_migrations', 'renamed');
    await db.transaction((trx) => uninstallMigrationsTriggers(trx, {}));
    await db.schema.renameTable('renamed', 'knex_migrations');
    expect(await made()).to.equal(0);
  });

  it('rejects without an outbox, and without a migrations table', async () => {
    const thrown = (options: MigrationsTriggerOptions) =>
      installMigrationsTrigger(db, options).then(
        () => 'nothing',
        (error: Error) => error.message,
      );
    expect(await thrown({ cache, table: 'flyway' })).to.equal(
      'There is no flyway. The migrations trigger watches the table in which Knex lists the migrations that have run. ' +
        'Pass its `table`, and its `tableSchema`.',
    );
    expect(await thrown({ cache, schema: 'nowhere' })).to.equal(
      'There is no outbox of this release in the schema "nowhere". Triggers record there. Call `installOutbox` in a ' +
        'migration, or pass the `schema` it is in.',
    );
  });
});
