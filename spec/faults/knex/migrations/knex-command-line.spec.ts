/** Each command is a process of Knex' own, of which a spec starts several. */
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installMigrationsTrigger } from '../../../../lib/knex/migrations/migrations-trigger.js';
import { installOutbox } from '../../../../lib/knex/install/install-outbox.js';
import { lend } from '../../../support/lenders.js';
import { lendDatabase, schemaOf } from '../../../support/postgres.js';
import { uniqueName } from '../../../support/redis.js';
import {
  eventsOf,
  lendProject,
  libFile,
  type MigrationText,
  type Project,
  relayed,
} from '../../../knex/migrations/project.js';

const GLOBAL = '*.knex_migrations migration global';
const held = (name: string, scope = 'global') => `${name}.js migration ${scope} held by "*"."knex_migrations_lock"`;

const creates = (table: string): MigrationText => ({
  up: `await db.schema.createTable('${table}', (columns) => columns.increments());`,
  down: `await db.schema.dropTable('${table}');`,
});
const FAILS = `await db.schema.createTable('half_done', (columns) => columns.increments()); throw new Error('died midway');`;

type Migration = Knex.Migration & { readonly config?: { readonly transaction?: boolean } };

const source = (migrations: Record<string, Migration>): Knex.MigrationSource<string> => ({
  getMigrations: async () => Object.keys(migrations),
  getMigrationName: (name) => name,
  getMigration: async (name) => migrations[name]!,
});

describe('withGenerations, by the knex command line', () => {
  let db: Knex;
  let cache: string;
  let project: Project;

  beforeEach(async () => {
    db = await lendDatabase();
    cache = uniqueName();
    project = await lendProject(db, { cache });
  });

  const events = () => eventsOf(db, cache);

  async function knexRuns(...args: string[]): Promise<string> {
    const { code, output } = await project.knex(...args);
    expect(code, output).to.equal(0);
    return output;
  }

  async function knexFails(...args: string[]): Promise<string> {
    const { code, output } = await project.knex(...args);
    expect(code, output).to.equal(1);
    return output;
  }

  for (const trigger of [false, true]) {
    describe(trigger ? 'with the trigger on the migrations table' : 'without the trigger', () => {
      /** Each statement of a transaction's is one event to the trigger; the hooks see the batch. */
      const perRow = (rows: number) => Array<string>(trigger ? rows : 1).fill(GLOBAL);

      beforeEach(async () => {
        await db.migrate.latest({ migrationSource: source({}) }); // nothing to do; makes the migrations table
        await installOutbox(db);
        if (trigger) await installMigrationsTrigger(db, { cache });
      });

      it('records nothing when there is nothing to do', async () => {
        await knexRuns('migrate:latest');
        await knexRuns('migrate:up');
        await knexRuns('migrate:down');
        await knexRuns('migrate:rollback');
        await knexRuns('migrate:rollback', '--all');
        expect(await events()).to.deep.equal([]);
      });

      it('records global after latest, up, down, rollback and rollback --all', async () => {
        await project.write({ m1: creates('a'), m2: creates('b') });
        await knexRuns('migrate:latest');
        expect(await events(), 'latest').to.deep.equal(perRow(2));
        await relayed(db);

        // A migration's own transaction, then its row: the hook's event, and the trigger's if there is one.
        const perDown = (migrations: number) => Array<string>(trigger ? 2 * migrations : migrations).fill(GLOBAL);
        await knexRuns('migrate:down');
        expect(await events(), 'down').to.deep.equal(perDown(1));
        await relayed(db);
        await knexRuns('migrate:up');
        expect(await events(), 'up').to.deep.equal(perRow(1));
        await relayed(db);
        await knexRuns('migrate:rollback');
        expect(await events(), 'rollback').to.deep.equal(perDown(1));
        await relayed(db);
        await knexRuns('migrate:up');
        await relayed(db);
        await knexRuns('migrate:rollback', '--all');
        expect(await events(), 'rollback --all').to.deep.equal(perDown(2));
        expect(await db.schema.hasTable('a')).to.equal(false);
      }).timeout(60_000);

      it('records nothing when a batch in one transaction fails', async () => {
        await project.write({ m1: creates('a'), m2: { up: FAILS } });
        expect(await knexFails('migrate:latest')).to.include('died midway');
        expect(await events()).to.deep.equal([]);
      });

      it('records in the transaction of a migration that stays committed when a later one fails', async () => {
        await project.write({ m1: creates('a'), m2: { up: FAILS }, m3: { ...creates('c'), transaction: false } });
        expect(await knexFails('migrate:latest')).to.include('died midway');
        expect(await db.schema.hasTable('a')).to.equal(true);
        expect(await db.schema.hasTable('half_done')).to.equal(false);
        expect(await events()).to.deep.equal(Array(trigger ? 2 : 1).fill(GLOBAL));
      });

      it('records a down migration before Knex deletes its row: a failure in between leaves the event', async () => {
        await project.write({ m1: creates('a') });
        await knexRuns('migrate:latest');
        await relayed(db);
        await db.raw(`create function refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$`);
        await db.raw(`create trigger refuse before delete on knex_migrations execute function refuse()`);
        expect(await knexFails('migrate:down')).to.include('refused');
        expect(await db.schema.hasTable('a')).to.equal(false);
        expect(await events()).to.deep.equal([GLOBAL]);
      });

      for (const [what, args, transaction] of [
        ['transaction: false', [], false],
        ['disableTransactions', ['--disable-transactions'], undefined],
      ] as const) {
        describe(what, () => {
          const own = transaction === undefined ? {} : { transaction };

          it('commits an event before the migration, held by the lock', async () => {
            // What the migration sees is what anybody sees: it has no transaction.
            const looks = `await db.raw('create table seen as select source, held_by from gencache_outbox');
              await db.raw('create table was_locked as select is_locked from knex_migrations_lock');`;
            await project.write({ m1: { up: looks, down: 'await db.schema.dropTable("seen");', ...own } });
            await knexRuns('migrate:latest', ...args);
            expect(await db('seen')).to.deep.equal([
              { source: 'm1.js', held_by: `"${schemaOf(db)}"."knex_migrations_lock"` },
            ]);
            expect(await db('was_locked')).to.deep.equal([{ is_locked: 1 }]);
            expect(await events()).to.deep.equal([held('m1'), GLOBAL]);
            await relayed(db);
            await knexRuns('migrate:rollback', ...args);
            expect(await events()).to.deep.equal([held('m1'), GLOBAL]);
          });

          it('keeps the held event when the migration dies midway, and records anew in the next run', async () => {
            await project.write({ m1: { up: FAILS, ...own } });
            expect(await knexFails('migrate:latest', ...args)).to.include('died midway');
            expect(await db.schema.hasTable('half_done')).to.equal(true);
            expect(await events()).to.deep.equal([held('m1')]);
            const failed = await db('gencache_outbox').pluck('xid');

            await project.write({ m1: { up: 'await db.schema.dropTable("half_done")', ...own } });
            await knexRuns('migrate:latest', ...args);
            // The first run's needs one more bump, and no lock to hold it.
            expect(await events()).to.deep.equal(['m1.js migration global', held('m1'), GLOBAL]);
            // Still of its own transaction, by which its age is told; relays look for what was held, however old.
            expect(await db('gencache_outbox').where({ held_by: null, source: 'm1.js' }).pluck('xid')).to.deep.equal(
              failed,
            );
          });

          it('narrows the bump and the held event to scopes', async () => {
            const narrows = `await narrowBump(db, { cache, migration, to: [{ detector: 42 }, { detector: 7, environment: null }] });`;
            const scopes = ['detector=42', 'detector=7/environment=~'];
            await project.write({ m1: { up: narrows, down: narrows, ...own } });
            for (const command of ['migrate:latest', 'migrate:rollback']) {
              await knexRuns(command, ...args);
              expect(await events(), command).to.have.members([
                ...scopes.map((scope) => held('m1', scope)),
                ...scopes.map((scope) => `*.knex_migrations migration ${scope}`),
              ]);
              expect(await db('gencache_narrowed')).to.deep.equal([]);
              await relayed(db);
            }
          });

          it('waives the bump of one run', async () => {
            await project.write({
              m1: { up: 'await waiveBump(db, { cache, migration });', down: creates('a').up, ...own },
            });
            await knexRuns('migrate:latest', ...args);
            expect(await events()).to.deep.equal([]);
            expect(await db('gencache_narrowed')).to.deep.equal([]);
            await knexRuns('migrate:rollback', ...args);
            expect(await events()).to.deep.equal([held('m1'), GLOBAL]);
          });

          it('forgets the waiver of a failed run', async () => {
            await project.write({
              m1: { up: `await waiveBump(db, { cache, migration }); ${FAILS}`, ...own },
            });
            await knexFails('migrate:latest', ...args);
            expect(await events()).to.deep.equal([]);
            expect(await db('gencache_narrowed')).to.have.length(1);

            await project.write({ m1: { ...creates('a'), ...own } });
            await knexRuns('migrate:latest', ...args);
            expect(await events()).to.deep.equal([held('m1'), GLOBAL]);
            expect(await db('gencache_narrowed')).to.deep.equal([]);
          });
        });
      }

      it('narrows and waives in a transaction, once each, up and down', async () => {
        const narrows = 'await narrowBump(db, { cache, migration, to: [{ detector: 42 }] });';
        await project.write({ m1: { up: narrows, down: 'await waiveBump(db, { cache, migration });' } });
        await knexRuns('migrate:latest');
        expect(await events()).to.deep.equal(['*.knex_migrations migration detector=42']);
        await relayed(db);
        await knexRuns('migrate:rollback');
        expect(await events()).to.deep.equal([]);
        expect(await db('gencache_narrowed')).to.deep.equal([]);
        await project.write({ m1: { up: 'await db.raw("select 1")' } });
        await knexRuns('migrate:latest');
        expect(await events()).to.deep.equal([GLOBAL]);
      });

      it('records global when one migration of a batch did not narrow its bump', async () => {
        await project.write({ m1: { up: 'await waiveBump(db, { cache, migration });' }, m2: creates('b') });
        await knexRuns('migrate:latest');
        expect(await events()).to.deep.equal([GLOBAL]);
        expect(await db('gencache_narrowed')).to.deep.equal([]);
      });

      it('does not use a failed migration’s waiver for another one', async () => {
        await project.write({
          m1: { up: `await waiveBump(db, { cache, migration }); ${FAILS}`, transaction: false },
        });
        await knexFails('migrate:latest');
        await project.write({ m0: creates('a') });
        await knexRuns('migrate:up', 'm0.js');
        expect(await events()).to.deep.equal([GLOBAL]);
      });
    });
  }

  it('migrates a database without an outbox, in and outside transactions, narrowed or not', async () => {
    await project.write({
      m1: { up: 'await narrowBump(db, { cache, migration, to: [{ detector: 42 }] });' },
      m2: { ...creates('b'), transaction: false },
    });
    await knexRuns('migrate:latest');
    await knexRuns('migrate:rollback');
    expect(await db.schema.hasTable('gencache_outbox')).to.equal(false);
  });

  for (const transaction of [true, false]) {
    it(`records global in the first batch ever, which makes the outbox, ${transaction ? 'in' : 'outside'} a transaction`, async () => {
      await project.write({
        m1: creates('a'),
        m2: {
          up: 'await installOutbox(db); await installMigrationsTrigger(db, { cache });',
          down: 'await uninstallMigrationsTrigger(db, { cache }); await uninstallOutbox(db);',
          transaction,
        },
      });
      await knexRuns('migrate:latest');
      // The trigger saw the row of the migration that installed it.
      expect(await events()).to.deep.equal([GLOBAL]);
      await knexRuns('migrate:rollback');
      expect(await db.schema.hasTable('gencache_outbox')).to.equal(false);
    });
  }

  it('records global in the first batch ever without the trigger', async () => {
    await project.write({ m1: creates('a'), m2: { up: 'await installOutbox(db);' } });
    await knexRuns('migrate:latest');
    expect(await events()).to.deep.equal([GLOBAL]);
  });

  it('holds events by the lock of the table that the configuration names', async () => {
    await installOutbox(db);
    project = await lendProject(db, {
      cache,
      knexfile: `withGenerations({ ...base, migrations: { tableName: 'other' } }, { cache })`,
    });
    await project.write({ m1: { ...creates('a'), transaction: false } });
    await knexRuns('migrate:latest');
    expect(await events()).to.deep.equal([
      'm1.js migration global held by "*"."other_lock"',
      '*.other migration global',
    ]);
  });

  it('follows the command line’s --migrations-table-name', async () => {
    await installOutbox(db);
    await project.write({ m1: { ...creates('a'), transaction: false } });
    await knexRuns('migrate:latest', '--migrations-table-name', 'other');
    expect(await events()).to.deep.equal([
      'm1.js migration global held by "*"."other_lock"',
      '*.other migration global',
    ]);
  });

  it('runs the owner’s hooks inside its own, in every environment', async () => {
    await installOutbox(db);
    const hook = (name: string) =>
      `async (db, migrations) => {
         const { rows } = await db.raw('select count(*)::int as events from gencache_outbox');
         await db('hook_calls').insert({ call: '${name} ' + migrations.map((each) => each.file) + ': ' + rows[0].events });
       }`;
    const names = ['beforeAll', 'beforeEach', 'afterEach', 'afterAll'];
    await db.schema.createTable('hook_calls', (columns) => {
      columns.increments();
      columns.text('call');
    });
    const calls = () => db('hook_calls').orderBy('id').pluck('call');
    project = await lendProject(db, {
      cache,
      knexfile: `withGenerations(async () => ({
        development: { ...base, migrations: { ${names.map((name) => `${name}: ${hook(name)}`).join(', ')} } },
        production: base,
      }), { cache })`,
    });

    await project.write({ m1: creates('a'), m2: creates('b') });
    await knexRuns('migrate:latest');
    expect(await calls()).to.deep.equal([
      'beforeAll m1.js,m2.js: 0',
      'beforeEach m1.js: 0',
      'afterEach m1.js: 0',
      'beforeEach m2.js: 0',
      'afterEach m2.js: 0',
      'afterAll m1.js,m2.js: 0',
    ]);
    expect(await events()).to.deep.equal([GLOBAL]);

    await relayed(db);
    await db('hook_calls').delete();
    await knexRuns('migrate:down', '--env', 'production');
    expect(await calls()).to.deep.equal([]);
    expect(await events()).to.deep.equal([GLOBAL]);

    await relayed(db);
    await project.write({ m2: { ...creates('b'), transaction: false } });
    await knexRuns('migrate:up');
    expect(await calls()).to.deep.equal([
      'beforeAll m2.js: 0',
      'beforeEach m2.js: 1', // what is held
      'afterEach m2.js: 1',
      'afterAll m2.js: 2',
    ]);
    // The last one is for what the owner's afterAll did after all else.
    expect(await events()).to.deep.equal([held('m2'), GLOBAL, GLOBAL]);
  });

  it('opens no connection to Redis, and its knexfile loads no client of Redis', async () => {
    let connections = 0;
    const server = createServer((socket) => {
      connections++;
      socket.destroy();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    lend({ what: 'a listener', close: () => new Promise((closed) => server.close(closed)) });
    const url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
    project = await lendProject(db, { cache, env: { REDIS_URL: url } });
    const loaded = `
      const { createRequire } = await import('node:module');
      const loaded = Object.keys(createRequire(import.meta.url).cache).filter((file) => /node_modules.ioredis./.test(file));
      if (loaded.length > 0) throw new Error('ioredis is loaded: ' + loaded[0]);`;
    await project.write({
      m1: { up: `await installOutbox(db); await installMigrationsTrigger(db, { cache });` },
      m2: { ...creates('b'), transaction: false },
      m3: { up: loaded },
    });
    await knexRuns('migrate:latest');
    expect(await events()).to.not.be.empty;
    expect(connections).to.equal(0);

    // The check can fail: `gencache/redis` loads ioredis, which connects to nothing.
    await project.write({ m4: { up: `await import(${libFile('store/redis/index.ts')}); ${loaded}` } });
    expect(await knexFails('migrate:latest')).to.include('ioredis is loaded');
    expect(connections).to.equal(0);
  });
});
