import { expect } from 'chai';
import type { Knex } from 'knex';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { schemaOf } from '../../support/postgres.js';
import { lendOutbox } from '../../support/relay.js';
import { CACHE as cache, takeEvents } from './support.js';

/**
 * Writes of one row, which a single statement outside of any block records: no DDL may make it fail, and what it can't
 * judge is left to the rest of the function.
 */
describe('the trigger of a single-row write', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
    await db.raw(`
      create type pair as (a int, b text);
      create type colour as enum ('7', 'red');
      create domain shop_id as bigint;
      create table item (id int primary key, shop bigint, shelf text, code uuid, name text, note text);
      insert into item values (1, 7, 'top', null, 'a', null), (2, 8, 'a b', null, 'b', null)`);
  });

  async function install(columns?: readonly string[]) {
    await onChangeOf(db, 'item', { cache, ...(columns && { columns }) })
      .bump({ shop: 'shop' })
      .install();
    await takeEvents(db);
  }

  /** What a statement records: `INSERT shop=7`. */
  async function recorded(statement: string): Promise<string[]> {
    await db.raw(statement);
    return (await takeEvents(db)).map(({ operation, path }) => `${operation} ${path}`);
  }

  it('records ids that stay, move, are null or need an escape', async () => {
    await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop', shelf: 'shelf' }).install();
    await takeEvents(db);
    expect(await recorded(`update item set name = 'x' where id = 1`)).to.deep.equal(['UPDATE shop=7/shelf=top']);
    expect(await recorded(`update item set shop = 9 where id = 1`)).to.have.members([
      ...['UPDATE shop=7/shelf=top', 'UPDATE shop=9/shelf=top'],
    ]);
    expect(await recorded(`update item set name = 'x' where id = 2`)).to.deep.equal(['UPDATE shop=8/shelf=a%20b']);
    expect(await recorded(`update item set shelf = null where id = 2`)).to.have.members([
      ...['UPDATE shop=8/shelf=a%20b', 'UPDATE shop=8/shelf=~'],
    ]);
    expect(await recorded(`update item set name = 'y' where id = 2`)).to.deep.equal(['UPDATE shop=8/shelf=~']);
    expect(await recorded(`update item set name = name where id = 1`)).to.deep.equal([]);
    expect(await recorded(`update item set name = 'y' where id = 3`)).to.deep.equal([]);
    expect(await recorded(`insert into item values (3, null, 'low')`)).to.deep.equal(['INSERT shop=~/shelf=low']);
    expect(await recorded(`delete from item where id = 1`)).to.deep.equal(['DELETE shop=9/shelf=top']);
  });

  it('records each of several bumps, and those that look up', async () => {
    await db.raw('create table link (item int, shop bigint)');
    await onChangeOf(db, 'link', { cache }).bump({ shop: 'shop' }).install();
    await onChangeOf(db, 'item', { cache })
      .bump({ shop: 'shop' })
      .bump({})
      .lookUp('link', { item: 'id' })
      .bump({ shop: 'shop' })
      .install();
    await takeEvents(db);
    await db.raw(`update item set name = 'x' where id = 1`);
    const events = await takeEvents(db);
    expect(events.map(({ path, lookup, args }) => [path, lookup === null, args])).to.deep.equal([
      ['shop=7', true, null],
      ['', true, null],
      ['', false, [{ id: '1' }]],
    ]);
    expect(new Set(events.map(({ source, operation }) => `${operation} ${source}`))).to.deep.equal(
      new Set([`UPDATE ${schemaOf(db)}.item`]),
    );
  });

  describe('after DDL', () => {
    /** The statements, and the paths of an UPDATE of row 1 by then; `''` is global. */
    const changes: Readonly<Record<string, readonly [ddl: string, path: string]>> = {
      'the id is renamed': ['alter table item rename shop to store', ''],
      'the id is dropped': ['alter table item drop shop', ''],
      'the id is renamed and another column gets its name': [
        'alter table item rename shop to store; alter table item rename note to shop',
        '~',
      ],
      'the id is an int': ['alter table item alter shop type int', '7'],
      'the id is a text': ['alter table item alter shop type text', '7'],
      'the id is a name': ['alter table item alter shop type name', '7'],
      'the id is jsonb': ['alter table item alter shop type jsonb using to_jsonb(shop)', '7'],
      'the id is numeric': ['alter table item alter shop type numeric', '7'],
      'the id has a domain': ['alter table item alter shop type shop_id', '7'],
      'the id is an enumeration': [
        'update item set shop = 7; alter table item alter shop type colour using shop::text::colour',
        '7',
      ],
      'the id is a row': ['alter table item alter shop type pair using row(shop, null)::pair', '(7,)'],
      'a column is added': ['alter table item add gencache_more text', '7'],
      'a watched column is renamed': ['alter table item rename name to title; alter table item add name2 text', '7'],
      'a watched column is dropped': ['alter table item drop name', '7'],
      'a watched column is json': ['alter table item alter name type json using to_json(name)', '7'],
      'a watched column is a name': ['alter table item alter name type name', '7'],
      'the table is renamed and back': ['alter table item rename to items; alter table items rename to item', '7'],
    };
    for (const [what, [ddl, path]] of Object.entries(changes)) {
      for (const [which, columns] of [
        ['all columns', undefined],
        ['some columns', ['name', 'code']],
      ] as const) {
        it(`${what}: each write succeeds, and bumps its scope or more (${which})`, async () => {
          await install(columns);
          // The session has plans from before the change.
          expect(await recorded(`update item set name = 'x' where id = 1`)).to.deep.equal(['UPDATE shop=7']);
          await db.raw(ddl);
          await takeEvents(db);
          const own = path === '' ? '' : `shop=${path}`;
          const writes = {
            INSERT: 'insert into item select * from copy',
            UPDATE: 'update item set code = gen_random_uuid() where id = 9',
            DELETE: 'delete from item where id = 9',
          };
          await db.raw(`create table copy as select * from item where id = 1; update copy set id = 9`);
          for (const [operation, statement] of Object.entries(writes)) {
            const events = await recorded(statement);
            expect(events, operation).to.have.length(1);
            expect(events[0]).to.be.oneOf([`${operation} `, `${operation} ${own}`]);
          }
        });
      }
    }
  });
});
