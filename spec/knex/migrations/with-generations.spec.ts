import { expect } from 'chai';
import knex, { type Knex } from 'knex';
import { withGenerations, type MigrationBumps } from '../../../lib/knex/migrations/with-generations.js';
import {
  installMigrationsTrigger,
  uninstallMigrationsTrigger,
} from '../../../lib/knex/migrations/migrations-trigger.js';
import { narrowBump, waiveBump } from '../../../lib/knex/migrations/narrow-bump.js';
import { installOutbox } from '../../../lib/knex/install/install-outbox.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { eventsOf } from './project.js';

const GLOBAL = '*.knex_migrations migration global';
type Migration = Knex.Migration & { readonly config?: { readonly transaction?: boolean } };

const source = (migrations: Record<string, Migration>): Knex.MigrationSource<string> => ({
  getMigrations: async () => Object.keys(migrations),
  getMigrationName: (name) => name,
  getMigration: async (name) => migrations[name]!,
});

describe('withGenerations, by the API', () => {
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    db = await lendDatabase();
    cache = uniqueName();
    await installOutbox(db);
  });

  /** A Knex of the lent schema with this knexfile's hooks. */
  function migrating(migrations: Knex.Config['migrations'], options: MigrationBumps = { cache }): Knex {
    const config = {
      client: 'pg',
      connection: databaseUrl(schemaOf(db)),
      pool: { min: 0, max: 1 },
      migrations: migrations!,
    };
    const migrating = knex(withGenerations(config, options));
    migrating.client.logger.warn = () => {};
    lend({ what: 'a Knex that migrates', close: () => migrating.destroy() });
    return migrating;
  }

  const one: Migration = {
    up: (db) => db.schema.createTable('a', (t) => t.increments()),
    down: (db) => db.schema.dropTable('a'),
  };

  it('records global for db.migrate.latest and rollback on a pool of one connection', async () => {
    const own = migrating({ migrationSource: source({ one }) });
    expect(await own.migrate.latest()).to.deep.equal([1, ['one']]);
    expect(await eventsOf(db, cache)).to.deep.equal([GLOBAL]);
    expect(await own.migrate.latest()).to.deep.equal([1, []]);
    expect(await own.migrate.rollback()).to.deep.equal([1, ['one']]);
    expect(await eventsOf(db, cache)).to.deep.equal([GLOBAL, GLOBAL]);
  });

  it('records in the caller’s transaction, and nothing if that rolls back', async () => {
    const own = migrating({
      migrationSource: source({
        one,
        two: { up: async () => {}, down: async () => {}, config: { transaction: false } },
      }),
    });
    const trx = await own.transaction();
    await trx.migrate.latest();
    await trx.rollback();
    expect(await eventsOf(db, cache)).to.deep.equal([]);
    await own.transaction((trx) => trx.migrate.latest());
    expect(await eventsOf(db, cache)).to.deep.equal([GLOBAL]);
  });

  it('records an event for each of several caches, and narrows for one alone', async () => {
    const other = uniqueName();
    const narrows: Migration = {
      ...one,
      up: (db) => narrowBump(db, { cache, migration: 'one', to: [{ detector: '4/2' }] }),
      config: { transaction: false },
    };
    await migrating({ migrationSource: source({ one: narrows }) }, { caches: [cache, other] }).migrate.latest();
    expect(await eventsOf(db, cache)).to.deep.equal([
      'one migration detector=4%2F2 held by "*"."knex_migrations_lock"',
      '*.knex_migrations migration detector=4%2F2',
    ]);
    expect(await eventsOf(db, other)).to.deep.equal([
      'one migration global held by "*"."knex_migrations_lock"',
      GLOBAL,
    ]);
  });

  it('records by its hooks where the trigger is not enabled as installed', async () => {
    const own = migrating({ migrationSource: source({ one }) });
    await own.migrate.list();
    await installMigrationsTrigger(db, { cache });
    await db.raw('alter table knex_migrations disable trigger all');
    await own.migrate.latest();
    expect(await eventsOf(db, cache)).to.deep.equal([GLOBAL]);
  });

  it('records by its hooks where a migration drops the trigger', async () => {
    const own = migrating({
      migrationSource: source({ one: { ...one, up: (db) => uninstallMigrationsTrigger(db, { cache }) } }),
    });
    await own.migrate.list();
    await installMigrationsTrigger(db, { cache });
    await own.migrate.latest();
    expect(await eventsOf(db, cache)).to.deep.equal([GLOBAL]);
  });

  it('records global for migrations before the one that creates the trigger, even if that one waives its bump', async () => {
    const two: Migration = {
      async up(db) {
        await installMigrationsTrigger(db, { cache });
        await waiveBump(db, { cache, migration: 'two' });
      },
      down: async () => {},
    };
    await migrating({ migrationSource: source({ one, two }) }).migrate.latest();
    expect(await eventsOf(db, cache)).to.deep.equal([GLOBAL]);
  });

  it('records by its hooks for a migrations table that only the call names', async () => {
    const own = migrating({ migrationSource: source({ one }) });
    await own.migrate.list();
    await installMigrationsTrigger(db, { cache });
    await own.migrate.latest({ tableName: 'other' });
    expect(await eventsOf(db, cache)).to.deep.equal([GLOBAL]);
  });

  it('works with wrapIdentifier and postProcessResponse', async () => {
    const own = knex(
      withGenerations(
        {
          client: 'pg',
          connection: databaseUrl(schemaOf(db)),
          wrapIdentifier: (name: string, wrap: (name: string) => string) => wrap(name.toUpperCase()),
          postProcessResponse: (result: unknown) => (Array.isArray(result) ? result.map(() => ({})) : result),
          migrations: {
            migrationSource: source({
              one: { up: async () => {}, down: async () => {} },
              two: { up: async () => {}, down: async () => {}, config: { transaction: false } },
            }),
          },
        },
        { cache },
      ),
    );
    lend({ what: 'a Knex that renames', close: () => own.destroy() });
    await own.migrate.latest();
    expect(await eventsOf(db, cache)).to.deep.equal([
      GLOBAL,
      'two migration global held by "*"."knex_migrations_lock"',
      GLOBAL,
    ]);
  });

  it('records nothing where gencache.events is off', async () => {
    const off = knex(
      withGenerations(
        {
          client: 'pg',
          connection: `${databaseUrl(schemaOf(db))}%20-c%20gencache.events%3Doff`,
          migrations: {
            migrationSource: source({ one, two: { ...one, up: async () => {}, config: { transaction: false } } }),
          },
        },
        { cache },
      ),
    );
    lend({ what: 'a Knex that migrates', close: () => off.destroy() });
    await off.migrate.latest();
    expect(await eventsOf(db, cache)).to.deep.equal([]);
  });

  it('finds the outbox, and Knex’s tables, in schemas of their own', async () => {
    const schema = `${schemaOf(db)} "'`;
    await db.raw('create schema ??', [schema]);
    lend({ what: `the schema ${schema}`, close: () => db.raw('drop schema if exists ?? cascade', [schema]) });
    await installOutbox(db, { schema });
    const own = migrating(
      {
        schemaName: schema,
        tableName: 'Lists',
        migrationSource: source({ one, two: { ...one, up: async () => {}, config: { transaction: false } } }),
      },
      { cache, schema },
    );
    await own.migrate.latest();
    const rows = await db.withSchema(schema).from('gencache_outbox').where({ cache }).orderBy('recorded_at');
    expect(rows.map(({ source, held_by }) => [source, held_by])).to.deep.equal([
      [`${schema}.Lists`, null],
      ['two', `"${schema.replace('"', '""')}"."Lists_lock"`],
      [`${schema}.Lists`, null],
    ]);
    expect((await db.raw('select to_regclass(?)::oid is not null as found', [rows[1].held_by])).rows[0].found).to.equal(
      true,
    );
    expect(await eventsOf(db, cache), 'in the other outbox').to.deep.equal([]);
  });

  it('refuses a migration without a transaction under a lock that the configuration does not name', async () => {
    const own = migrating({ migrationSource: source({ one: { ...one, config: { transaction: false } } }) });
    const absent = await own.migrate.latest({ tableName: 'other' }).catch((error: unknown) => error);
    expect((absent as Error).message).to.equal(
      'The knexfile must name the migrations table: bumps follow a migration outside a transaction for as long as Knex ' +
        'holds the lock beside it, but there is no such table. Name the table in the knexfile, as `migrations.tableName` ' +
        'and `schemaName`, and not in the call that runs the migrations.',
    );
    expect(await db.schema.hasTable('a')).to.equal(false);
    await own.migrate.list(); // makes the table, and its lock
    const free = await own.migrate.latest({ tableName: 'other' }).catch((error: unknown) => error);
    expect((free as Error).message).to.include(
      `but "${schemaOf(db)}"."knex_migrations_lock" is not locked, so this run locked another one.`,
    );
    expect(await db.schema.hasTable('a')).to.equal(false);
  });

  for (const [what, found] of [
    ['nothing', undefined],
    ['text', 'pg'],
  ] as const) {
    it(`refuses a knexfile that is ${what}`, () => {
      expect(() => withGenerations(found as unknown as object, { cache })).to.throw(
        'A knexfile must be a configuration, several by environment, or a function or promise of either, but got ' +
          `${found === undefined ? 'undefined' : "'pg'"}. Pass the export of the knexfile to withGenerations.`,
      );
    });
  }

  it('refuses a cache without a name', () => {
    expect(() => withGenerations({ client: 'pg' }, {} as MigrationBumps)).to.throw(
      'The name of a cache must be 1 to 64 letters, digits, "_", "." and "-", the first a letter or a digit, but got ' +
        'undefined. Pass such a name, the same in every process.',
    );
  });

  it('wraps a configuration, environments, a function and a promise', async () => {
    const client = 'pg';
    const hooks = ['beforeAll', 'beforeEach', 'afterEach', 'afterAll'];
    const plain = withGenerations({ client, connection: { host: 'x' } }, { cache });
    expect(plain).to.deep.include({ client, connection: { host: 'x' } });
    expect((plain as Knex.Config).migrations).to.have.all.keys(hooks);
    const environments = withGenerations({ development: { client }, production: { client, debug: true } }, { cache });
    expect(environments).to.have.all.keys('development', 'production');
    expect((environments.production as Knex.Config).migrations).to.have.all.keys(hooks);
    expect(environments.production.debug).to.equal(true);
    const both = withGenerations({ client, production: { client } }, { cache });
    expect(both).to.have.nested.property('migrations.afterAll');
    expect(both).to.have.nested.property('production.migrations.afterAll');
    expect(withGenerations({}, { cache }), 'the rest is in the options').to.have.nested.property('migrations.afterAll');
    expect(withGenerations(() => ({ client }), { cache })()).to.have.nested.property('migrations.afterAll');
    expect(await withGenerations(Promise.resolve({ client }), { cache })).to.have.nested.property(
      'migrations.afterAll',
    );
  });
});
