import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox, notifyRelays } from '../../../lib/knex/index.js';
import { installMigrationsTrigger } from '../../../lib/knex/migrations/migrations-trigger.js';
import { installedRelease, OUTBOX_RELEASE } from '../../../lib/knex/install/install-outbox.js';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { lendDatabase, schemaOf } from '../../support/postgres.js';
import { uniqueName } from '../../support/redis.js';
import { type Env, gencache, serversOf } from '../gencache.js';

describe('gencache outbox', function () {
  this.timeout(60_000);
  let db: Knex;
  let env: Env;

  beforeEach(async () => {
    db = await lendDatabase();
    env = serversOf(db);
  });

  it('install makes it, and changes nothing where it is', async () => {
    const first = await gencache(['outbox', 'install'], env);
    expect(first).to.deep.equal({
      code: 0,
      err: '',
      out: `The outbox is there, release ${OUTBOX_RELEASE} (before: none).\n`,
    });
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
    const second = await gencache(['outbox', 'install'], env);
    expect(second.out).to.equal(`The outbox is there, release ${OUTBOX_RELEASE} (as it was).\n`);
  });

  it('install brings an older one up', async () => {
    await installOutbox(db, { release: 1 });
    const status = await gencache(['outbox', 'status'], env);
    expect(status.out).to.include('release 1.').and.include(`wants release ${OUTBOX_RELEASE}`);
    expect(status.code).to.equal(1);
    const { out } = await gencache(['outbox', 'install'], env);
    expect(out).to.equal(`The outbox is there, release ${OUTBOX_RELEASE} (before: 1).\n`);
  });

  it('install makes it in another schema, where the others look for it', async () => {
    const schema = `${schemaOf(db)}_audit`;
    try {
      expect((await gencache(['outbox', 'install', '--schema', schema], env)).code).to.equal(0);
      expect(await installedRelease(db, { schema })).to.equal(OUTBOX_RELEASE);
      expect(await installedRelease(db)).to.equal(undefined);
      expect((await gencache(['outbox', 'status', '--schema', schema], env)).code).to.equal(0);
      expect((await gencache(['outbox', 'status'], env)).code).to.equal(1);
    } finally {
      await db.raw('drop schema if exists ?? cascade', [schema]);
    }
  });

  it('uninstall wants a yes, and leaves nothing', async () => {
    await installOutbox(db);
    const asked = await gencache(['outbox', 'uninstall'], env);
    expect(asked.err).to.match(/^Uninstalling forgets changes that wait .* Add --yes if that is meant\./);
    expect(asked.code).to.equal(64);
    expect(await installedRelease(db)).to.equal(OUTBOX_RELEASE);
    const done = await gencache(['outbox', 'uninstall', '--yes'], env);
    expect(done).to.deep.equal({ code: 0, err: '', out: `The outbox, release ${OUTBOX_RELEASE}, is gone.\n` });
    const { rows } = await db.raw(`select relname from pg_class where relnamespace = to_regnamespace(?)`, [
      schemaOf(db),
    ]);
    expect(rows).to.deep.equal([]);
    expect((await gencache(['outbox', 'uninstall', '--yes'], env)).out).to.equal('There was no outbox.\n');
  });

  it('uninstall leaves nothing of the triggers either, on tables and on the list of migrations', async () => {
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

  it('status tells what waits for each cache', async () => {
    const [shop, works] = [uniqueName('shop'), uniqueName('works')];
    expect(JSON.parse((await gencache(['outbox', 'status', '--json'], env)).out)).to.deep.equal({
      release: null,
      wanted: OUTBOX_RELEASE,
      caches: [],
    });
    await installOutbox(db);
    await db('gencache_outbox').insert([
      { cache: shop, path: 'item=1', source: 'item', operation: 'UPDATE' },
      { cache: shop, path: '', held_by: 'knex_migrations_lock', source: 'm', operation: 'migration' },
    ]);
    await deadLetters(db, works);
    const { out, code } = await gencache(['outbox', 'status', '--json'], env);
    const status = JSON.parse(out) as { caches: { lagMs: number }[] };
    const [{ lagMs }] = status.caches as [{ lagMs: number }];
    expect(lagMs).to.be.within(0, 60_000);
    expect(status).to.deep.equal({
      release: OUTBOX_RELEASE,
      wanted: OUTBOX_RELEASE,
      caches: [
        { cache: shop, events: 2, lagMs, held: 1, deadLetters: 0 },
        { cache: works, events: 0, lagMs: null, held: 0, deadLetters: 1 },
      ],
    });
    expect(code).to.equal(0);
    const text = await gencache(['outbox', 'status'], env);
    expect(text.out).to.match(new RegExp(`${shop} +2 +\\d+ ms +1 +0\n +${works} +0 +- +0 +1\n`));
  });
});

describe('gencache dead-letters', function () {
  this.timeout(60_000);
  let db: Knex;
  let env: Env;
  let cache: string;

  beforeEach(async () => {
    db = await lendDatabase();
    await installOutbox(db);
    env = serversOf(db);
    cache = uniqueName();
  });

  it('list tells each event with what was bumped for it, and why', async () => {
    expect(await gencache(['dead-letters', 'list'], env)).to.deep.equal({
      code: 0,
      err: '',
      out: 'There are no dead letters.\n',
    });
    await deadLetters(db, cache);
    await deadLetters(db, uniqueName('other'));
    const all = await gencache(['dead-letters', 'list'], env);
    expect(all.out.trim().split('\n')).to.have.length(3);
    const own = await gencache(['dead-letters', 'list', '--cache', cache], env);
    expect(own.out).to.match(new RegExp(`${cache} .* psql +item UPDATE +global +Its path is none\\.\n$`));
    const [row] = JSON.parse((await gencache(['dead-letters', 'list', '--cache', cache, '--json'], env)).out);
    expect(row).to.include({
      cache,
      path: '!',
      source: 'item',
      operation: 'UPDATE',
      bumped: '',
      lookup: 'gencache_lookup_1',
    });
    expect(row.args).to.deep.equal([{ id: 1 }]);
  });

  it('list tells no password that a reason mentions', async () => {
    await deadLetters(db, cache, 'dblink: could not connect to postgres://shop:s3cr3t@replica/shop');
    for (const format of [[], ['--json']]) {
      const { out } = await gencache(['dead-letters', 'list', ...format], env);
      expect(out).to.include('could not connect to postgres://***@replica/shop').and.not.include('s3cr3t');
    }
  });

  it('retry makes new events of them, once', async () => {
    const other = uniqueName('other');
    await deadLetters(db, cache);
    await deadLetters(db, other);
    const retried = await gencache(['dead-letters', 'retry', '--cache', cache], env);
    expect(retried).to.deep.equal({ code: 0, err: '', out: 'Events that are back in the outbox: 1.\n' });
    const events = await db('gencache_outbox').select();
    expect(events).to.have.length(1);
    expect(events[0]).to.include({
      cache,
      path: '!',
      source: 'item',
      operation: 'UPDATE',
      application: 'psql',
      held_by: null,
    });
    expect(events[0]).to.include({ lookup: 'gencache_lookup_1' });
    // Not the transaction that recorded it first, which relays have left behind.
    expect(Number(events[0].xid)).to.be.above(3);
    expect(await db('gencache_dead_letter').pluck('cache')).to.deep.equal([other]);
    const again = await gencache(['dead-letters', 'retry', '--cache', cache], env);
    expect(again.out).to.equal('There are no dead letters.\n');
    expect(await db('gencache_outbox').select()).to.have.length(1);
  });

  it('fails where there is no outbox', async () => {
    const { code, err } = await gencache(['dead-letters', 'list', '--schema', 'pg_temp'], env);
    expect(err).to.match(
      /^gencache dead-letters list failed: This works on an outbox.* relation .* does not exist\. Run `gencache outbox install`/,
    );
    expect(code).to.equal(1);
  });
});

/** Everything in the lent schema that PostgreSQL's catalogs know: `kind name`. */
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

async function deadLetters(db: Knex, cache: string, reason = 'Its path is none.'): Promise<void> {
  await db('gencache_dead_letter').insert({
    cache,
    xid: '3',
    seq: 1,
    path: '!',
    lookup: 'gencache_lookup_1',
    args: '[{"id": 1}]',
    source: 'item',
    operation: 'UPDATE',
    application: 'psql',
    recorded_at: new Date(),
    bumped: '',
    reason,
  });
}
