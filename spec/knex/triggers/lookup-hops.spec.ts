/** Lookups through several tables. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { checkTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { changed, lookedUp, onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { removeTriggers } from '../../../lib/knex/triggers/remove-triggers.js';
import { eventually } from '../../support/deferred.js';
import { schemaOf } from '../../support/postgres.js';
import { lendOutbox, lendRelay } from '../../support/relay.js';
import { rejection } from '../../support/rejection.js';
import { uniqueName } from '../../support/redis.js';
import { leftovers, takeEvents, takeScopes } from './support.js';

describe('a lookup through several tables', () => {
  let db: Knex;
  let cache: string;

  beforeEach(async () => {
    cache = uniqueName();
    db = await lendOutbox();
    await db.raw(`
      create type colour as enum ('red', 'green');
      create domain tint as colour;
      create table product (id int primary key, name text);
      create table line (id int primary key, product_id int, order_id bigint);
      create table purchase (id bigint primary key, customer_id int, shade tint);
      create table customer (id int primary key, tenant text, shade colour, note text);
      insert into product values (1, 'hat'), (2, 'scarf'), (3, 'sold to nobody');
      insert into purchase values (10, 100, 'red'), (11, 101, 'green');
      insert into customer values (100, 'a/b', 'red', 'x'), (101, 'c', 'green', 'y');
      insert into line values (1, 1, 10), (2, 2, 11), (3, 2, 10)`);
  });

  const on = (table: string) => onChangeOf(db, table, { cache });
  const ofProduct = () =>
    on('product')
      .lookUp('line', { product_id: 'id' })
      .thenLookUp('purchase', { id: 'order_id' })
      .thenLookUp('customer', { id: 'customer_id' })
      .bump({ tenant: 'tenant', order: lookedUp('purchase', 'id'), product: changed('id') });
  const ofLine = () =>
    on('line')
      .lookUp('purchase', { id: 'order_id' })
      .thenLookUp('customer', { id: 'customer_id' })
      .bump({ tenant: 'tenant' });
  const ofPurchase = () => on('purchase').lookUp('customer', { id: 'customer_id' }).bump({ tenant: 'tenant' });
  const ofCustomer = () => on('customer').bump({ tenant: 'tenant' });

  async function installAll(): Promise<void> {
    for (const change of [ofCustomer(), ofPurchase(), ofLine(), ofProduct()]) await change.install();
    expect(await checkTriggers(db)).to.deep.equal([]);
  }

  it('finds the scopes by columns of the last table, of one on the way and of the changed row', async () => {
    await installAll();
    await db.raw(`update product set name = 'cap' where id <> 3`);
    expect(await takeScopes(db)).to.deep.equal([
      'tenant=a%2Fb/order=10/product=1',
      'tenant=a%2Fb/order=10/product=2',
      'tenant=c/order=11/product=2',
    ]);
    await db.raw(`update product set name = 'x' where id = 3`);
    expect(await takeScopes(db)).to.deep.equal([]);
  });

  it('finds them for each change on the way, and by a cascade over all tables', async () => {
    await installAll();
    await db.raw('update line set order_id = 11 where id = 1');
    expect(await takeScopes(db)).to.deep.equal(['tenant=a%2Fb', 'tenant=c']);
    await db.raw('update purchase set customer_id = 101 where id = 10');
    expect(await takeScopes(db)).to.deep.equal(['tenant=a%2Fb', 'tenant=c']);
    await db.raw(`begin; delete from product; delete from line; delete from purchase; delete from customer; commit`);
    expect(await takeScopes(db)).to.deep.equal(['tenant=a%2Fb', 'tenant=c']);
  });

  it('compares an enumeration, a domain over it and text on the way', async () => {
    await on('line')
      .lookUp('purchase', { id: 'order_id' })
      .thenLookUp('customer', { shade: 'shade' })
      .bump({ tenant: 'tenant', shade: lookedUp('purchase', 'shade') })
      .install();
    await db.raw('update line set product_id = 9 where id = 2');
    expect(await takeScopes(db)).to.deep.equal(['tenant=c/shade=green']);
    await db.raw(`alter table customer alter shade type text`);
    await on('line')
      .lookUp('purchase', { id: 'order_id' })
      .thenLookUp('customer', { shade: 'shade' })
      .bump({ tenant: 'tenant' })
      .install();
    await db.raw('update line set product_id = 8 where id = 2');
    expect(await takeScopes(db)).to.deep.equal(['tenant=c']);
  });

  it('requires each table on the way, and says which lookup its triggers need', async () => {
    await ofProduct().install();
    const found = (await checkTriggers(db)).map(({ problem, message, remedy }) => [
      problem,
      message.replace(schemaOf(db), 'SCHEMA').split(' A lookup misses')[0],
      remedy.replace(cache, 'CACHE'),
    ]);
    const lacks = (table: string) =>
      `The looked-up table SCHEMA.${table} has no triggers for insert, update and delete.`;
    expect(found).to.deep.equal([
      [
        'looked-up table not watched',
        lacks('line'),
        "Let the table bump by a lookup of its own, for all operations: `onChangeOf(db, 'line', { cache: 'CACHE' })" +
          ".lookUp('purchase', { id: 'order_id' }).thenLookUp('customer', { id: 'customer_id' })" +
          ".bump({ tenant: 'tenant', order: lookedUp('purchase', 'id') }).install()`.",
      ],
      [
        'looked-up table not watched',
        lacks('purchase'),
        "Let the table bump by a lookup of its own, for all operations: `onChangeOf(db, 'purchase', { cache: 'CACHE' })" +
          ".lookUp('customer', { id: 'customer_id' }).bump({ tenant: 'tenant', order: changed('id') }).install()`.",
      ],
      [
        'looked-up table not watched',
        lacks('customer'),
        "Let the table bump by its own columns, for all operations: `onChangeOf(db, 'customer', { cache: 'CACHE' })" +
          ".bump({ tenant: 'tenant' }).install()`.",
      ],
    ]);
    await on('line')
      .lookUp('purchase', { id: 'order_id' })
      .thenLookUp('customer', { id: 'customer_id' })
      .bump({ tenant: 'tenant', order: lookedUp('purchase', 'id') })
      .install();
    await on('purchase')
      .lookUp('customer', { id: 'customer_id' })
      .bump({ tenant: 'tenant', order: changed('id') })
      .install();
    await ofCustomer().install();
    expect(await checkTriggers(db)).to.deep.equal([]);
  });

  it('is rejected where it names no table on the way, or one that it reads twice', async () => {
    const twice = on('product').lookUp('line', { product_id: 'id' }).thenLookUp('line', { order_id: 'order_id' });
    expect(() => twice.bump({ line: lookedUp('line', 'id') })).to.throw(
      "lookedUp() must name a table that this lookup reads once, but got 'line', which it reads 2 times. Its tables: line, line.",
    );
    expect(() => twice.bump({ line: lookedUp('purchase', 'id') })).to.throw(/'purchase', which it reads never/);
    const error = await rejection(
      on('product')
        .lookUp('line', { product_id: 'id' })
        .thenLookUp('customer', { tenant: 'order_id' })
        .bump({ tenant: 'tenant' })
        .install(),
    );
    expect(error.message).to.match(
      /^A lookup must compare columns of one kind, but \S+customer\.tenant is text and \S+line\.order_id is bigint\./,
    );
  });

  it('leaves nothing when its triggers are removed', async () => {
    await installAll();
    for (const table of ['product', 'line', 'purchase', 'customer']) await removeTriggers(db, table, { cache });
    expect(await leftovers(db)).to.deep.equal([]);
  });

  describe('stands in the way of no change of a table, bumps everything after it, and is reported', () => {
    const changes: Record<string, string> = {
      'DROP COLUMN of the first table on the way': 'alter table line drop column order_id',
      'DROP COLUMN of the second': 'alter table purchase drop column customer_id',
      'DROP COLUMN of the last': 'alter table customer drop column tenant',
      'RENAME COLUMN': 'alter table purchase rename customer_id to client_id',
      'ALTER TYPE of the first': 'alter table line alter order_id type text',
      'ALTER TYPE of the second': 'alter table purchase alter id type uuid using gen_random_uuid()',
      'ALTER TYPE of the last': 'alter table customer alter id type text',
      'DROP TABLE of the first': 'drop table line',
      'DROP TABLE of the second': 'drop table purchase',
      'DROP TABLE of the last': 'drop table customer',
      'RENAME of the last': 'alter table customer rename to client',
      'DROP TYPE of a column of the second, with its column': 'drop type colour cascade',
    };
    for (const [what, change] of Object.entries(changes)) {
      it(what, async () => {
        await on('product')
          .lookUp('line', { product_id: 'id' })
          .thenLookUp('purchase', { id: 'order_id' })
          .thenLookUp('customer', { id: 'customer_id' })
          .bump({ tenant: 'tenant', shade: lookedUp('purchase', 'shade') })
          .install();
        for (const each of [ofCustomer(), ofPurchase(), ofLine()]) await each.install();
        await db.raw(change);
        expect((await checkTriggers(db)).filter(({ table }) => table.endsWith('.product'))).to.have.length.above(0);
        await takeEvents(db);
        await db.raw(`update product set name = 'cap' where id = 1`);
        const relay = lendRelay({ db, cache });
        await eventually(async () => expect(await db('gencache_outbox')).to.deep.equal([]));
        expect(await db('gencache_dead_letter').where({ cache }).pluck('bumped')).to.deep.equal(['']);
        expect(relay.status.failures).to.equal(0);
      });
    }

    it('a greater type on the way changes nothing', async () => {
      await installAll();
      await db.raw(
        'alter table line alter product_id type bigint, alter id type bigint; alter table customer alter id type bigint',
      );
      expect(await checkTriggers(db)).to.deep.equal([]);
      await db.raw(`update product set name = 'cap' where id = 1`);
      expect(await takeScopes(db)).to.deep.equal(['tenant=a%2Fb/order=10/product=1']);
    });
  });
});
