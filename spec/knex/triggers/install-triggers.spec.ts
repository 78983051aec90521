import { lendOutbox } from '../../support/relay.js';
import { lendKnex } from '../../support/knexes.js';
import { expect } from 'chai';
import type { Knex } from 'knex';
import { installOutbox, uninstallOutbox } from '../../../lib/knex/install/install-outbox.js';
import { checkTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { removeTriggers } from '../../../lib/knex/triggers/remove-triggers.js';
import { rejection } from '../../support/rejection.js';
import { eventually } from '../../support/deferred.js';
import { lendDatabase, schemaOf, privatePostgres } from '../../support/postgres.js';
import { CACHE as cache, leftovers, takePaths, holding } from './support.js';

describe('installing triggers', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox({ pool: { min: 0, max: 22 } });
    await db.raw('create table item (id int primary key, shop int)');
  });

  const install = (on: Knex, options = {}) =>
    onChangeOf(on, 'item', { cache, ...options })
      .bump({ shop: 'shop' })
      .install();

  /** Holds the table in a transaction until it is told to end. */
  const hold = (mode: string) => holding(db, (trx) => trx.raw(`lock table item in ${mode} mode`));

  it('creates them once from 20 connections at once', async () => {
    await Promise.all(Array.from({ length: 20 }, () => install(db)));
    expect(await checkTriggers(db)).to.deep.equal([]);
    await db('item').insert({ id: 1, shop: 1 });
    expect(await takePaths(db)).to.deep.equal(['INSERT shop=1']);
  });

  it('installs and then uninstalls triggers and outbox from 20 connections at once', async () => {
    const fresh = await lendDatabase({ pool: { min: 0, max: 20 } });
    await fresh.raw('create table item (id int primary key, shop int)');
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        await installOutbox(fresh);
        await install(fresh);
      }),
    );
    expect(await checkTriggers(fresh)).to.deep.equal([]);
    await uninstallOutbox(fresh);
    const { rows } = await fresh.raw(
      `select relname as name from pg_class where relnamespace = current_schema()::regnamespace and relname ~ 'gencache'
       union all select proname from pg_proc where pronamespace = current_schema()::regnamespace
       union all select tgname from pg_trigger where tgrelid = 'item'::regclass`,
    );
    expect(rows).to.deep.equal([]);
  });

  it('is part of the caller’s transaction', async () => {
    await rejection(
      db.transaction(async (trx) => {
        await install(trx);
        throw new Error('no');
      }),
    );
    expect(await leftovers(db)).to.deep.equal([]);
  });

  it('locks nothing where all is up to date', async () => {
    await install(db);
    const release = await hold('access exclusive');
    await install(db);
    await release();
  });

  it('replaces functions without a lock on the table', async () => {
    await install(db);
    const release = await hold('row exclusive');
    await onChangeOf(db, 'item', { cache }).bump({ item: 'id' }).install();
    await release();
    await db('item').insert({ id: 1, shop: 1 });
    expect(await takePaths(db)).to.deep.equal(['INSERT item=1']);
  });

  it('waits for a writer, and gives way to writers that queue behind it', async () => {
    const release = await hold('row exclusive');
    const installing = install(db);
    // A writer that came later gets through while the installation pauses between two attempts.
    await eventually(async () => {
      const { rows } = await db.raw(
        `select 1 from pg_locks where relation = 'item'::regclass and mode = 'ShareRowExclusiveLock' and not granted`,
      );
      expect(rows).to.have.length(1);
    });
    await db('item').insert({ id: 1, shop: 1 });
    await release();
    await installing;
    expect(await checkTriggers(db)).to.deep.equal([]);
  });

  it('removes by table, cache and name', async () => {
    await install(db);
    await install(db, { name: 'more' });
    await install(db, { cache: 'other' });
    await removeTriggers(db, 'item', { cache, name: 'more' });
    await removeTriggers(db, 'item', { cache: 'none' });
    await db('item').insert({ id: 1, shop: 1 });
    expect(await takePaths(db)).to.have.length(2);
    await removeTriggers(db, 'item', { cache });
    await removeTriggers(db, 'item', { cache: 'other' });
    expect(await leftovers(db)).to.deep.equal([]);
  });

  it('finds an outbox and a table in schemas that are not on the search path', async () => {
    const [audit, app] = [`audit_${schemaOf(db)}`, `app_${schemaOf(db)}`];
    try {
      await db.raw(`create schema ??; create table ??.item (id int primary key, shop int)`, [app, app]);
      await installOutbox(db, { schema: audit });
      const options = { schema: app, outbox: { schema: audit } };
      await install(db, options);
      // Beside the one of the search path.
      await onChangeOf(db, 'item', { cache, schema: app }).bump({ shop: 'shop' }).install();
      expect(await checkTriggers(db, { schema: audit })).to.deep.equal([]);
      await db.raw('insert into ??.item values (1, 1)', [app]);
      expect(await db.withSchema(audit).from('gencache_outbox').pluck('path')).to.deep.equal(['shop=1']);
      expect(await takePaths(db)).to.deep.equal(['INSERT shop=1']);
      await removeTriggers(db, 'item', { cache, ...options });
      await db.raw('insert into ??.item values (2, 2)', [app]);
      expect(await takePaths(db)).to.deep.equal(['INSERT shop=2']);
      expect(await db.withSchema(audit).from('gencache_outbox').pluck('path')).to.have.length(1);
    } finally {
      await db.raw('drop schema if exists ?? cascade', [app]);
      await db.raw('drop schema if exists ?? cascade', [audit]);
    }
  });
});

describe('triggers', () => {
  it('record in a prepared transaction', async () => {
    const { url } = await privatePostgres({ settings: { max_prepared_transactions: '2' } });
    const db = lendKnex(url);
    await installOutbox(db);
    await db.raw('create table item (id int primary key, shop int)');
    await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
    await db.raw(`begin; insert into item values (1, 1); prepare transaction 'first'`);
    expect(await takePaths(db)).to.deep.equal([]);
    await db.raw(`commit prepared 'first'`);
    expect(await takePaths(db)).to.deep.equal(['INSERT shop=1']);
  });

  it('call no function of other roles in public', async () => {
    const { url } = await privatePostgres({});
    const db = lendKnex(url);
    await installOutbox(db, { schema: 'audit' });
    await db.raw('create table item (id int primary key, shop int)');
    await onChangeOf(db, 'item', { cache, outbox: { schema: 'audit' } })
      .bump({ shop: 'shop' })
      .install();
    // For texts this one is nearer than PostgreSQL's own, of any array, wherever it stands on the search path.
    await db.raw(`create function public.cardinality(text[]) returns int language plpgsql as $$
                  begin raise 'fooled, as %', current_user; end $$`);
    expect((await rejection(db.raw(`select cardinality(array['text'])`))).message).to.include('fooled, as postgres');
    await db('item').insert({ id: 1, shop: 1 });
    await db.raw('insert into item values (2, 2), (3, 3)');
    await db('item').update({ shop: 4 });
    const paths = await db.withSchema('audit').from('gencache_outbox').orderBy('seq').pluck('path');
    expect(paths.sort()).to.deep.equal(['shop=1', 'shop=1', 'shop=2', 'shop=2', 'shop=3', 'shop=3', 'shop=4']);
  });

  it('record changes of logical replication with `subscriber`', async function () {
    this.timeout(60_000);
    const { url } = await privatePostgres({ settings: { wal_level: 'logical' } });
    const publisher = lendKnex(url);
    await publisher.raw('create database subscriber');
    const subscriber = lendKnex(url.replace(/\/postgres$/, '/subscriber'));
    const tables = `create table item (id int primary key, shop int);
                    create table deaf (id int primary key, shop int)`;
    for (const db of [publisher, subscriber]) await db.raw(tables);
    await installOutbox(subscriber);
    await onChangeOf(subscriber, 'item', { cache, subscriber: true }).bump({ shop: 'shop' }).install();
    await onChangeOf(subscriber, 'deaf', { cache }).bump({ deaf: 'shop' }).install();
    await publisher('item').insert({ id: 1, shop: 1 });
    await publisher.raw('create publication everything for all tables');
    await publisher.raw(`select pg_create_logical_replication_slot('apply', 'pgoutput')`);
    await subscriber.raw(`create subscription everything connection '${url}' publication everything
                          with (create_slot = false, slot_name = 'apply')`);
    const recorded: string[] = [];
    const arrives = (...paths: string[]) =>
      eventually(
        async () => {
          recorded.push(...(await takePaths(subscriber)));
          expect(recorded).to.deep.equal(paths);
        },
        { withinMs: 20_000 },
      );
    try {
      // The first copy of the table is a COPY, which fires the statement's trigger and the rows'.
      await arrives('INSERT shop=1', 'INSERT shop=1');
      recorded.length = 0;
      // A row that is inserted before the first copy of its table would be a part of that copy.
      await eventually(
        async () => expect(await subscriber('pg_subscription_rel').whereNot('srsubstate', 'r')).to.deep.equal([]),
        { withinMs: 20_000 },
      );
      await publisher('deaf').insert({ id: 1, shop: 1 });
      await publisher('item').insert({ id: 2, shop: 2 });
      await arrives('INSERT shop=2');
      await publisher('item').where('id', 2).update({ shop: 2 });
      await publisher('item').where('id', 2).update({ shop: 3 });
      await arrives('INSERT shop=2', 'UPDATE shop=2', 'UPDATE shop=3');
      await publisher('item').where('id', 1).delete();
      await arrives('INSERT shop=2', 'UPDATE shop=2', 'UPDATE shop=3', 'DELETE shop=1');
      // By hand it is the statement's trigger that records, and that alone.
      await subscriber('item').insert({ id: 9, shop: 9 });
      await publisher.raw('truncate item, deaf');
      recorded.length = 0;
      await arrives('INSERT shop=9', 'TRUNCATE ', 'TRUNCATE ');
    } finally {
      await subscriber.raw(`alter subscription everything disable;
                            alter subscription everything set (slot_name = none)`);
      await subscriber.raw('drop subscription everything');
      await eventually(() => publisher.raw(`select pg_drop_replication_slot('apply')`));
    }
  });
});
