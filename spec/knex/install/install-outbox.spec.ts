import { expect } from 'chai';
import type { Knex } from 'knex';
import { memoryStore } from '../../../lib/index.js';
import {
  checkTriggers,
  installMigrationsTrigger,
  installOutbox,
  notifyRelays,
  onChangeOf,
  outboxMigrations,
  uninstallOutbox,
  uninstallTriggers,
} from '../../../lib/knex/index.js';
import { installedRelease, OUTBOX_RELEASE } from '../../../lib/knex/install/install-outbox.js';
import { recordEvents } from '../../../lib/knex/outbox/record.js';
import { eventually } from '../../support/deferred.js';
import { lendKnex } from '../../support/knexes.js';
import { lend } from '../../support/lenders.js';
import { databaseUrl, lendDatabase, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { lendRelay } from '../../support/relay.js';
import { rejection } from '../../support/rejection.js';
import { lendRole } from '../../support/roles.js';

const TABLES = [
  ...['authority', 'boot', 'dead_letter', 'declaration', 'narrowed', 'outbox', 'owed', 'partition', 'release'],
  'trigger',
];

/** Everything of a schema that PostgreSQL's catalogue knows of, but for what hangs on tables. */
async function objects(db: Knex, schema = schemaOf(db)): Promise<string[]> {
  const { rows } = await db.raw<{ rows: { name: string }[] }>(
    `select relname as name from pg_class where relnamespace = to_regnamespace(?) and relkind in ('r', 'v', 'S', 'm', 'c')
     union all select proname || '()' from pg_proc where pronamespace = to_regnamespace(?)
     union all select typname || ' type' from pg_type where typnamespace = to_regnamespace(?) and typrelid = 0 and typelem = 0
     order by 1`,
    Array(3).fill(`"${schema.replaceAll('"', '""')}"`),
  );
  return rows.map(({ name }) => name);
}

describe('the outbox', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendDatabase({ pool: { max: 20 } });
  });

  const events = () => db('gencache_outbox').orderBy('seq').pluck<string[]>('path');
  const record = (path: string, cache = 'shop') =>
    db('gencache_outbox').insert({ cache, path, source: 'spec', operation: 'INSERT' });

  it('is installed; a second installation does nothing', async () => {
    await installOutbox(db);
    const first = await objects(db);
    expect(first).to.include.members(TABLES.map((table) => `gencache_${table}`));
    await record('item=1');
    const queries: string[] = [];
    db.on('query', ({ sql }: { sql: string }) => queries.push(sql));
    await installOutbox(db);
    expect(
      queries.filter((sql) =>
        /^\s*(insert|drop|alter|create (table|index|func|unlogged) (?!if not exists))/i.test(sql),
      ),
    ).to.deep.equal([]);
    expect(await objects(db)).to.deep.equal(first);
    expect(await events()).to.deep.equal(['item=1']);
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
  });

  it('is installed once by 20 connections at once', async () => {
    await Promise.all(Array.from({ length: 20 }, () => installOutbox(db)));
    expect(await db('gencache_release').orderBy('version').pluck('version')).to.deep.equal(
      Array.from({ length: OUTBOX_RELEASE }, (_, i) => i + 1),
    );
    await record('item=1');
    expect(await events()).to.deep.equal(['item=1']);
  });

  it('is upgraded from an older release, and its events are relayed', async () => {
    const cache = uniqueName();
    await installOutbox(db, { release: 1 });
    expect(await installedRelease(db)).to.equal(1);
    await record('item=1', cache);
    await Promise.all([installOutbox(db), installOutbox(db)]);
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
    expect(await events()).to.deep.equal(['item=1']);
    const relay = lendRelay({ db, cache });
    await eventually(() => expect(relay.status.events).to.equal(1));
    expect(await events()).to.deep.equal([]);
  });

  it('is not downgraded by a migration that pins an older release', async () => {
    await installOutbox(db);
    await installOutbox(db, { release: 1 });
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
    expect(await objects(db)).to.include('gencache_authority');
  });

  it('is upgraded from release 3 with its rows, and waits for no transaction that uses it', async () => {
    await installOutbox(db, { release: 3 });
    await db('gencache_authority').insert({ cache: 'shop', redis: 'a', postgres: 'b' });
    const using = await db.transaction();
    await using('gencache_outbox').insert({ cache: 'shop', path: '', source: 'spec', operation: 'bump' });
    await using('gencache_authority').forUpdate();
    await installOutbox(db);
    await using.commit();
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
    expect(await db('gencache_outbox').pluck('path')).to.deep.equal(['']);
    expect(await db('gencache_authority').pluck('redis')).to.deep.equal(['a']);
  });

  it('is installed in the caller’s transaction', async () => {
    const error = new Error('changed my mind');
    const failing = db.transaction(async (trx) => {
      await installOutbox(trx);
      throw error;
    });
    expect(await rejection(failing)).to.equal(error);
    expect(await objects(db)).to.deep.equal([]);
    await db.transaction((trx) => installOutbox(trx));
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
  });

  it('leaves nothing behind when uninstalled, even with events', async () => {
    await installOutbox(db);
    await notifyRelays(db, true);
    await record('item=1');
    await uninstallOutbox(db);
    expect(await objects(db)).to.deep.equal([]);
    await uninstallOutbox(db);
    expect(await installedRelease(db)).to.equal(undefined);
    await installOutbox(db, { release: 1 });
    await uninstallOutbox(db);
    expect(await objects(db)).to.deep.equal([]);
  });

  describe('in another schema', () => {
    const lendSchema = (name: string) => {
      lend({
        what: `the schema ${name}`,
        close: () => db.raw(`drop schema if exists "${name.replaceAll('"', '""')}" cascade`),
      });
      return name;
    };

    for (const hostile of [
      'Robert"); drop table item; --',
      "it's $$ a 'trap'",
      'with.dot and %I',
      'ünïcødé ☃',
      '${at}',
      '-- \n',
    ]) {
      it(`named ${JSON.stringify(hostile)} is installed, relayed and uninstalled`, async () => {
        // Spec runs share the database: 40 bytes are left.
        const schema = lendSchema(`${hostile}${uniqueName('')}`);
        await db.schema.createTable('item', (table) => table.increments());
        await installOutbox(db, { schema });
        await installOutbox(db, { schema });
        const names = await objects(db, schema);
        expect(names).to.include.members(TABLES.map((table) => `gencache_${table}`));
        expect(await objects(db)).to.deep.equal(['item', 'item_id_seq']);
        const cache = uniqueName();
        await recordEvents(
          db,
          ['item=1', 'no path'].map((path) => ({ cache, path, source: 'spec', operation: 'INSERT' })),
          { schema },
        );
        await recordEvents(db, [{ cache, path: 'item=2', source: 's', operation: 'o', heldBy: 'gone' }], { schema });
        await notifyRelays(db, true, { schema });
        const relay = lendRelay({ db, cache, schema });
        await eventually(() => expect(relay.status).to.include({ events: 3, deadLetters: 1, failures: 0 }));
        await notifyRelays(db, false, { schema });
        expect(await objects(db, schema)).to.deep.equal(names);
        await relay.stop();
        await uninstallOutbox(db, { schema });
        expect(await objects(db, schema)).to.deep.equal([]);
      });
    }

    it('is installed by a role that may create no schema: in one that it owns, and else the error names the statement', async () => {
      const schema = lendSchema(uniqueName());
      const role = await lendRole(db);
      const own = lendKnex(databaseUrl(`${schemaOf(db)} -c role=${role}`), schemaOf(db));
      const error = await rejection(installOutbox(own, { schema }));
      expect(error).to.include({ code: 'CONFIGURATION' });
      expect(error.message).to.equal(
        `There is no schema "${schema}" for the outbox, and the role ${role} may create no schema in this database. As the ` +
          `owner of the database, run: create schema "${schema}" authorization "${role}";`,
      );
      await db.raw(`create schema "${schema}" authorization "${role}"`);
      await installOutbox(own, { schema });
      expect(await objects(db, schema)).to.include.members(TABLES.map((table) => `gencache_${table}`));
    });

    it('rejects a schema name that Knex or PostgreSQL would change', async () => {
      for (const [schema, shown] of [
        ['a?b', "'a?b'"],
        ['a:cache', "'a:cache'"],
        ['a\\b', "'a\\\\b'"],
        ['', "''"],
        ['x'.repeat(64), undefined],
        ['☃'.repeat(22), undefined],
        [7 as never, '7'],
      ] as const) {
        const error = await rejection(installOutbox(db, { schema }));
        expect(error).to.include({ code: 'CONFIGURATION' });
        if (shown === undefined) continue;
        expect(error.message).to.equal(
          'The `schema` of an outbox must be a name of 1 to 63 bytes without "?", ":" and "\\", but got ' +
            `${shown}. Choose another name, or leave it out for the search path.`,
        );
      }
    });
  });

  describe('as Knex migrations', () => {
    const config: Knex.MigratorConfig = { migrationSource: outboxMigrations, tableName: 'outbox_migrations' };

    it('migrates up and down, all at once and one by one', async () => {
      await db.migrate.latest(config);
      expect(await db('outbox_migrations').orderBy('id').pluck('name')).to.deep.equal(
        Array.from({ length: OUTBOX_RELEASE }, (_, i) => `gencache_outbox_00${i + 1}`),
      );
      expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
      await db.migrate.down(config);
      expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE - 1);
      expect(await objects(db)).to.not.include('gencache_partition');
      await db.migrate.up(config);
      expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
      await db.migrate.rollback(config, true);
      expect((await objects(db)).filter((name) => name.startsWith('gencache_'))).to.deep.equal([]);
    });

    it('accepts an outbox that is installed already', async () => {
      await installOutbox(db);
      await record('item=1');
      await db.migrate.latest(config);
      expect(await events()).to.deep.equal(['item=1']);
    });
  });

  for (const isolation of ['repeatable read', 'serializable'] as const) {
    it(`is installed once, with a trigger, by 8 connections at once where ${isolation} is the default`, async () => {
      await db.raw('create table item (id bigint primary key)');
      const level = isolation.replace(' ', '\\ ');
      const strict = lendKnex(databaseUrl(`${schemaOf(db)} -c default_transaction_isolation=${level}`), schemaOf(db));
      await Promise.all(
        Array.from({ length: 8 }, async () => {
          await installOutbox(strict);
          await onChangeOf(strict, 'item', { cache: 'shop' }).bump({ item: 'id' }).install();
        }),
      );
      expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
      await db('item').insert({ id: 1 });
      expect(await events()).to.deep.equal(['item=1']);
    });

    it(`is not installed in a ${isolation} transaction that began before another installation: the error says so`, async () => {
      const trx = await db.transaction({ isolationLevel: isolation });
      await trx.raw('select count(*) from pg_class');
      await installOutbox(db);
      const error = await rejection(installOutbox(trx));
      expect(error).to.include({
        code: 'CONFIGURATION',
        message:
          'An installation must see what other installations have committed, but the transaction that it got is ' +
          `\`${isolation}\` and began before another installation committed. Nothing was changed. Run it again: it then ` +
          "finds that installation. To avoid this, begin the transaction with { isolationLevel: 'read committed' }, or " +
          'pass the Knex in place of the transaction.',
      });
      await trx.rollback();
      await db.transaction((again) => installOutbox(again), { isolationLevel: isolation });
    });
  }

  describe('whose tables a test cleaner has emptied', () => {
    const cache = uniqueName();

    /** As a cleaner does: every table of the schema but those of Knex. */
    const clean = async () => {
      const tables = (await objects(db)).filter((name) => /^gencache_\w+$/.test(name) && !name.endsWith('_seq'));
      const found = tables.filter((name) => TABLES.includes(name.replace('gencache_', '')));
      expect(found).to.have.length(TABLES.length);
      await db.raw(`truncate item, ${found.join(', ')}`);
    };
    const install = async () => {
      await installOutbox(db);
      await onChangeOf(db, 'item', { cache }).bump({ item: 'id' }).install();
      await installMigrationsTrigger(db, { cache });
    };

    beforeEach(async () => {
      await db.raw('create table item (id bigint primary key)');
      await db.raw('create table knex_migrations (id serial, name text, batch int, migration_time timestamptz)');
      await install();
      await clean();
      await db('gencache_outbox').delete(); // the event of TRUNCATE
    });

    it('is installed again, its rows included, and relayed', async () => {
      expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
      await install();
      expect(await db('gencache_release').orderBy('version').pluck('version')).to.deep.equal([1, 2, 3, 4]);
      expect(await db('gencache_trigger')).to.have.length(2);
      expect(await checkTriggers(db)).to.deep.equal([]);
      await db('item').insert({ id: 1 });
      const relay = lendRelay({ db, cache });
      await eventually(() => expect(relay.status).to.include({ trusted: true, events: 1, failures: 0 }));
    });

    it('leaves nothing behind when uninstalled, and writes go on', async () => {
      await uninstallOutbox(db);
      expect((await objects(db)).filter((name) => name.startsWith('gencache_'))).to.deep.equal([]);
      await db('item').insert({ id: 1 });
      await db('knex_migrations').insert({ name: '001.js', batch: 1 });
    });

    it('leaves nothing behind when its migrations are rolled back', async () => {
      const config: Knex.MigratorConfig = { migrationSource: outboxMigrations, tableName: 'outbox_migrations' };
      await db.migrate.latest(config);
      await clean();
      await db.migrate.rollback(config, true);
      expect((await objects(db)).filter((name) => name.startsWith('gencache_'))).to.deep.equal([]);
      await db('item').insert({ id: 1 });
    });

    it('has its triggers removed by uninstallTriggers', async () => {
      await uninstallTriggers(db);
      await db('item').insert({ id: 1 });
      expect(await events()).to.deep.equal([]);
    });
  });

  it('makes a relay report failures while it is missing or of an older release', async () => {
    const cache = uniqueName();
    const store = memoryStore();
    const failures: string[] = [];
    const relay = lendRelay({ db, cache, store, pollMs: 5 });
    relay.on('failure', ({ error }) => failures.push(error.message));
    await eventually(() => expect(failures.length).to.be.greaterThan(1));
    expect(failures[0]).to.contain('There is no outbox of this release on the search path of this connection.');
    await installOutbox(db, { release: 1 });
    await installOutbox(db);
    await eventually(() => expect(relay.status.trusted).to.equal(true));
  });
});
