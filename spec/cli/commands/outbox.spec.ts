import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox, notifyRelays } from '../../../lib/knex/index.js';
import { installMigrationsTrigger } from '../../../lib/knex/migrations/migrations-trigger.js';
import { installedRelease, OUTBOX_RELEASE } from '../../../lib/knex/install/install-outbox.js';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { type Env, gencache } from '../gencache.js';
import { describeCommand, lendInstallation, withSecondSchema } from '../installation.js';
import { insertDeadLetter } from './insert-dead-letter.js';

describeCommand('gencache outbox', () => {
  let db: Knex;
  let env: Env;

  beforeEach(async () => {
    ({ db, env } = await lendInstallation({ outbox: false }));
  });

  it('install creates the outbox, and leaves an existing one unchanged', async () => {
    const first = await gencache(['outbox', 'install'], env);
    expect(first).to.deep.equal({
      code: 0,
      err: '',
      out: `The outbox has release ${OUTBOX_RELEASE} (created).\n`,
    });
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
    const second = await gencache(['outbox', 'install'], env);
    expect(second.out).to.equal(`The outbox has release ${OUTBOX_RELEASE} (unchanged).\n`);
  });

  it('install upgrades an older release, which status reports', async () => {
    await installOutbox(db, { release: 1 });
    const status = await gencache(['outbox', 'status'], env);
    expect(status.out).to.include('release 1.').and.include(`requires release ${OUTBOX_RELEASE}`);
    expect(status.code).to.equal(1);
    const { out } = await gencache(['outbox', 'install'], env);
    expect(out).to.equal(`The outbox has release ${OUTBOX_RELEASE} (upgraded from release 1).\n`);
  });

  it('install creates the outbox in the schema of --schema, where status finds it', async () => {
    await withSecondSchema(db, async (schema) => {
      expect((await gencache(['outbox', 'install', '--schema', schema], env)).code).to.equal(0);
      expect(await installedRelease(db, { schema })).to.equal(OUTBOX_RELEASE);
      expect(await installedRelease(db)).to.equal(undefined);
      expect((await gencache(['outbox', 'status', '--schema', schema], env)).code).to.equal(0);
      expect((await gencache(['outbox', 'status'], env)).code).to.equal(1);
    });
  });

  it('uninstall requires --yes, and leaves no relation', async () => {
    await installOutbox(db);
    const asked = await gencache(['outbox', 'uninstall'], env);
    expect(asked.err).to.match(
      /^--yes must confirm that the waiting events of every cache are lost, but is missing\. Add --yes to uninstall\./,
    );
    expect(asked.code).to.equal(64);
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
    const done = await gencache(['outbox', 'uninstall', '--yes'], env);
    expect(done).to.deep.equal({ code: 0, err: '', out: `The outbox of release ${OUTBOX_RELEASE} is uninstalled.\n` });
    const { rows } = await db.raw(`select relname from pg_class where relnamespace = to_regnamespace(?)`, [
      schemaOf(db),
    ]);
    expect(rows).to.deep.equal([]);
    expect((await gencache(['outbox', 'uninstall', '--yes'], env)).out).to.equal('There is no outbox to uninstall.\n');
  });

  it('uninstall removes every trigger, on tables and on the table of migrations', async () => {
    const cache = uniqueName();
    await db.raw('create table item (id int primary key) partition by range (id)');
    await db.raw('create table item_1 partition of item for values from (0) to (10)');
    await db.raw('create table knex_migrations (id serial primary key, name text)');
    const before = await catalogued(db);
    await installOutbox(db);
    await notifyRelays(db, true);
    await onChangeOf(db, 'item', { cache, subscriber: true }).bump({ item: 'id' }).install();
    await installMigrationsTrigger(db, { cache });
    const installed = await catalogued(db);
    for (const kind of ['class', 'proc', 'trigger', 'type']) {
      const of = (names: string[]) => names.filter((name) => name.startsWith(`${kind} `)).length;
      expect(of(installed), kind).to.be.above(of(before));
    }
    expect((await gencache(['outbox', 'uninstall', '--yes'], env)).code).to.equal(0);
    expect(await catalogued(db)).to.deep.equal(before);
    await db.raw('insert into item values (1)');
    await db.raw(`insert into knex_migrations (name) values ('m1')`);
  });

  it('status shows the events, the lag and the dead letters of each cache', async () => {
    const [shop, works] = [uniqueName('shop'), uniqueName('works')];
    expect(JSON.parse((await gencache(['outbox', 'status', '--json'], env)).out)).to.deep.equal({
      release: null,
      requiredRelease: OUTBOX_RELEASE,
      caches: [],
    });
    await installOutbox(db);
    await db('gencache_outbox').insert([
      { cache: shop, path: 'item=1', source: 'item', operation: 'UPDATE' },
      { cache: shop, path: '', held_by: 'knex_migrations_lock', source: 'm', operation: 'migration' },
    ]);
    await insertDeadLetter(db, works);
    const { out, code } = await gencache(['outbox', 'status', '--json'], env);
    const status = JSON.parse(out) as { caches: { lagMs: number }[] };
    const [{ lagMs }] = status.caches as [{ lagMs: number }];
    expect(lagMs).to.be.within(0, 60_000);
    expect(status).to.deep.equal({
      release: OUTBOX_RELEASE,
      requiredRelease: OUTBOX_RELEASE,
      caches: [
        { cache: shop, events: 2, lagMs, heldByMigration: 1, deadLetters: 0 },
        { cache: works, events: 0, lagMs: null, heldByMigration: 0, deadLetters: 1 },
      ],
    });
    expect(code).to.equal(0);
    const text = await gencache(['outbox', 'status'], env);
    expect(text.out).to.match(new RegExp(`${shop} +2 +\\d+ ms +1 +0\n +${works} +0 +- +0 +1\n`));
  });
});

/** Every object of the lent schema in PostgreSQL's catalogs: `kind name`. */
async function catalogued(db: Knex): Promise<string[]> {
  const { rows } = await db.raw<{ rows: { name: string }[] }>(
    `select name from (
       select relnamespace as schema, 'class ' || relname as name from pg_class
       union all select pronamespace, 'proc ' || proname from pg_proc
       union all select typnamespace, 'type ' || typname from pg_type
       union all select relnamespace, 'trigger ' || tgname from pg_trigger join pg_class on pg_class.oid = tgrelid
     ) as known where schema = to_regnamespace(?) order by name`,
    [schemaOf(db)],
  );
  return rows.map(({ name }) => name);
}
