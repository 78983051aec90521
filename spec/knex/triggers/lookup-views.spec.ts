/** Lookups of views: their tables must bump for themselves. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { checkTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { type ChangeOptions, onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { schemaOf } from '../../support/postgres.js';
import { lendOutbox } from '../../support/relay.js';
import { rejection } from '../../support/rejection.js';
import { CACHE as cache, takeScopes } from './support.js';

describe('a lookup of a view', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
    await db.raw(`
      create table product (id int primary key, name text);
      create table line (id int primary key, product_id int, order_id int, note text);
      create table purchase (id int primary key, customer_id int, paid boolean);
      create table customer (id int primary key, tenant text, note text);
      insert into product values (1, 'hat');
      insert into customer values (100, 'acme');
      insert into purchase values (10, 100, true);
      insert into line values (1, 1, 10)`);
  });

  const JOINED = `line join purchase on purchase.id = line.order_id join customer on customer_id = customer.id`;
  const view = (sql: string) => db.raw(`create view sold as ${sql}`) as unknown as Promise<unknown>;
  const on = (table: string, options: Partial<ChangeOptions> = {}) => onChangeOf(db, table, { cache, ...options });
  const ofProduct = () => on('product').lookUp('sold', { product_id: 'id' }).bump({ tenant: 'tenant' });
  const ofLine = () =>
    on('line')
      .lookUp('purchase', { id: 'order_id' })
      .thenLookUp('customer', { id: 'customer_id' })
      .bump({ tenant: 'tenant' });
  const ofPurchase = () => on('purchase').lookUp('customer', { id: 'customer_id' }).bump({ tenant: 'tenant' });
  const ofCustomer = () => on('customer').bump({ tenant: 'tenant' });
  const found = async () =>
    (await checkTriggers(db)).map(({ table, problem, message }) => {
      const missing = /The looked-up table \S+?\.(\w+) (?:has no triggers|bumps no scope)/.exec(message)?.[1];
      return `${table.replace(`${schemaOf(db)}.`, '')}: ${problem} ${missing}`;
    });

  const transparent: Record<string, string> = {
    'that joins tables': `select product_id, tenant from ${JOINED} where paid and tenant <> 'none'`,
    'that joins tables in its WHERE': `select product_id, tenant from line, purchase, customer
      where purchase.id = line.order_id and (customer.id = customer_id and paid)`,
  };

  for (const [what, sql] of Object.entries(transparent)) {
    it(`${what} is sound if each of its tables ends where the scope is named`, async () => {
      await view(sql);
      for (const change of [ofCustomer(), ofPurchase(), ofLine(), ofProduct()]) await change.install();
      expect(await found()).to.deep.equal([]);
      await db.raw(`update product set name = 'cap'`);
      expect(await takeScopes(db)).to.deep.equal(['tenant=acme']);
      await db.raw('begin; delete from product; delete from line; delete from purchase; delete from customer; commit');
      expect(await takeScopes(db)).to.deep.equal(['tenant=acme']);
    });
  }

  it('of another view is resolved to the tables of both', async () => {
    await db.raw(`create view paid_by as select purchase.id as paid_id, tenant as who
      from purchase join customer on customer.id = customer_id`);
    await view('select product_id, who as tenant from paid_by join line on order_id = paid_id');
    await ofProduct().install();
    expect(await found()).to.deep.equal(
      ['purchase', 'customer', 'line'].map((table) => `product: looked-up table not watched ${table}`),
    );
    for (const change of [ofCustomer(), ofPurchase(), ofLine()]) await change.install();
    expect(await found()).to.deep.equal([]);
  });

  it('names each table that is not watched, with the triggers that it needs', async () => {
    await view(transparent['that joins tables']!);
    await ofProduct().install();
    const problems = await checkTriggers(db);
    expect(problems.map(({ problem }) => problem)).to.deep.equal(Array(3).fill('looked-up table not watched'));
    expect(problems.map(({ remedy }) => /`(.*)`/.exec(remedy)![1])).to.deep.equal([
      `onChangeOf(db, 'line', { cache: 'shop' }).bump({}).install()`,
      `onChangeOf(db, 'purchase', { cache: 'shop' }).lookUp('customer', { id: 'customer_id' }).bump({ tenant: 'tenant' }).install()`,
      `onChangeOf(db, 'customer', { cache: 'shop' }).bump({ tenant: 'tenant' }).install()`,
    ]);
  });

  it('requires triggers for an UPDATE of each column that the view reads, and of no other', async () => {
    await view(transparent['that joins tables']!);
    await on('customer', { columns: ['tenant', 'id'] })
      .bump({ tenant: 'tenant' })
      .install();
    await on('line', { columns: ['product_id', 'order_id'] })
      .lookUp('purchase', { id: 'order_id' })
      .thenLookUp('customer', { id: 'customer_id' })
      .bump({ tenant: 'tenant' })
      .install();
    await on('purchase', { columns: ['id', 'customer_id'] })
      .lookUp('customer', { id: 'customer_id' })
      .bump({ tenant: 'tenant' })
      .install();
    await ofProduct().install();
    expect(await found()).to.deep.equal(['product: looked-up table not watched purchase']);
    expect((await checkTriggers(db))[0]!.message).to.match(/no triggers for update of \S.*\bpaid\b/);
    await ofPurchase().install();
    expect(await found()).to.deep.equal([]);
  });

  it('is refused where a table of the view bumps another scope', async () => {
    await view(transparent['that joins tables']!);
    await on('customer').bump({ customer: 'id' }).install();
    expect((await rejection(ofProduct().install())).message).to.match(
      /customer bumps no scope at or above \{ tenant \}/,
    );
  });

  const opaque: Record<string, string> = {
    'with an outer join': `select product_id, tenant from line left join purchase on purchase.id = line.order_id
      left join customer on customer.id = customer_id`,
    'with a window': `select product_id, tenant, row_number() over () from ${JOINED}`,
    'with a LIMIT': `select product_id, tenant from ${JOINED} limit 9`,
    'with an aggregate': `select product_id, tenant, count(*) from ${JOINED} group by 1, 2`,
    'with a subquery': `select product_id, (select tenant from customer where customer.id = customer_id) as tenant
      from line join purchase on purchase.id = line.order_id`,
    'with a subquery in FROM': `select * from (select product_id, tenant from ${JOINED} offset 0) as s`,
    'with a WITH': `with s as (select product_id, tenant from ${JOINED}) select * from s`,
    'with a UNION': `select product_id, tenant from ${JOINED} union all select 1, tenant from customer`,
  };
  for (const [what, sql] of Object.entries(opaque)) {
    it(`${what} needs tables that bump everything`, async () => {
      await view(sql);
      for (const change of [ofCustomer(), ofPurchase(), ofLine()]) await change.install();
      expect((await rejection(ofProduct().install())).message).to.match(/bumps no scope at or above \{ tenant \}/);
      for (const table of ['customer', 'purchase', 'line']) await on(table, { name: 'all' }).bump({}).install();
      await ofProduct().install();
      expect(await found()).to.deep.equal([]);
    });
  }

  it('that calls a function of the application needs them too, and so does an inequality or an OR', async () => {
    await db.raw(`create function mine(int) returns int language sql as 'select $1'`);
    const others = [
      `select product_id, tenant from line join purchase on purchase.id = mine(line.order_id) join customer on customer_id = customer.id`,
      `select product_id, tenant from line join purchase on purchase.id = line.order_id join customer on customer_id >= customer.id`,
      `select product_id, tenant from line join purchase on purchase.id = line.order_id, customer where customer_id = customer.id or paid`,
    ];
    for (const change of [ofCustomer(), ofPurchase(), ofLine()]) await change.install();
    for (const sql of others) {
      await view(sql);
      expect((await rejection(ofProduct().install())).message).to.match(/bumps no scope at or above \{ tenant \}/);
      await db.raw('drop view sold');
    }
  });

  it('joins a table twice: a change of the one whose columns the view has not is another scope', async () => {
    await db.raw('alter table customer add parent int');
    await view(
      `select product_id, parent.tenant from ${JOINED} join customer as parent on parent.id = customer.parent`,
    );
    for (const change of [ofCustomer(), ofPurchase(), ofLine()]) await change.install();
    expect((await rejection(ofProduct().install())).message).to.match(/bumps no scope at or above \{ tenant \}/);
  });

  it('stands in the way of no change of the view', async () => {
    await view(transparent['that joins tables']!);
    for (const change of [ofCustomer(), ofPurchase(), ofLine(), ofProduct()]) await change.install();
    await db.raw('drop view sold');
    expect((await checkTriggers(db)).map(({ problem }) => problem)).to.include('table missing');
  });
});
