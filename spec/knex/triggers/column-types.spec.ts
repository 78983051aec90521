/** Triggers compare rows of any column type; the types stand in a schema that is not on the search path. */
import { expect } from 'chai';
import type { Knex } from 'knex';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { schemaOf } from '../../support/postgres.js';
import { lendOutbox } from '../../support/relay.js';
import { CACHE as cache, takeEvents, takeScopes } from './support.js';

/** A type in the schema `@`, and two literals of it; `key`: whether it can be a primary key. */
const TYPES: readonly { type: string; values: readonly [string, string]; key?: false }[] = [
  { type: '@.colour', values: ['red', 'green'] },
  { type: '@.tint', values: ['red', 'green'] },
  { type: '@.nuance', values: ['red', 'green'] },
  { type: '@.colour[]', values: ['{red}', '{red,green}'] },
  { type: '@.tint[]', values: ['{red}', '{red,green}'] },
  { type: '@.tints', values: ['{red}', '{red,green}'] },
  { type: 'int[]', values: ['{1}', '{1,2}'] },
  { type: '@.ints', values: ['{1}', '{1,2}'] },
  { type: '@.more_ints', values: ['{1}', '{1,2}'] },
  { type: '@.ints[]', values: ['{"{1}"}', '{"{1}","{2}"}'], key: false },
  { type: '@.pair', values: ['(1,red)', '(2,red)'] },
  { type: '@.good_pair', values: ['(1,red)', '(2,red)'] },
  { type: '@.pair[]', values: ['{"(1,red)"}', '{"(2,red)"}'] },
  { type: 'int4range', values: ['[1,5)', '[1,6)'] },
  { type: '@.span', values: ['[1,5)', '[1,6)'] },
  { type: '@.spans', values: ['{[1,5)}', '{[1,6)}'] },
  { type: '@.colours', values: ['[red,green]', '[red,red]'] },
  { type: '@.some_colours', values: ['[red,green]', '[red,red]'] },
  { type: '@.small', values: ['1', '2'] },
  { type: '@.code', values: ['0b0e0c0d-1111-4222-8333-444455556666', '0b0e0c0d-1111-4222-8333-444455556667'] },
  { type: '@.soft_text', values: ['a', 'A'], key: false },
  { type: '@.point', values: ['(1,2)', '(1,3)'], key: false },
  { type: '@.note', values: ['{"a":1}', '{"a":2}'], key: false },
  { type: 'json', values: ['{"a":1}', '{"a":2}'], key: false },
  { type: 'xid8', values: ['1', '2'] },
  { type: 'interval', values: ['1 day', '24 hours'] },
];

describe('a table with columns of all types', () => {
  let db: Knex;
  let types: string;

  before(async () => {
    db = await lendOutbox();
    types = `${schemaOf(db)}_types`;
    await db.raw(
      `create schema @;
       create type @.colour as enum ('red', 'green');
       create domain @.tint as @.colour;
       create domain @.nuance as @.tint check (value is not null);
       create domain @.tints as @.tint[];
       create domain @.ints as int[];
       create domain @.more_ints as @.ints;
       create type @.pair as (id int, colour @.colour);
       create domain @.good_pair as @.pair;
       create domain @.span as int4range;
       create domain @.spans as int4multirange;
       create type @.colours as range (subtype = @.colour);
       create domain @.some_colours as @.colours;
       create domain @.small as smallint;
       create domain @.code as uuid;
       create domain @.point as point;
       create domain @.note as json;
       create collation @.soft (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
       create domain @.soft_text as text collate @.soft`.replaceAll('@', types),
    );
  });

  after(() => db.raw(`drop schema ${types} cascade`));

  /** A table of three rows, of which an UPDATE changes the first two. */
  async function create(table: string, columns: string, values: (row: number) => string) {
    await db.raw(`create table ${table} (${columns.replaceAll('@', types)})`);
    await db.raw(`insert into ${table} values ${[1, 2, 3].map((row) => `(${values(row)})`).join(', ')}`);
  }
  const recorded = async () => (await takeEvents(db)).map(({ path, args }) => (args === null ? path : args));

  for (const [i, { type, values, key = true }] of TYPES.entries()) {
    const [old, renewed] = values;
    const name = type.replaceAll('@.', '');

    it(`records the changed rows where a column is ${name}`, async () => {
      const table = `other_${i}`;
      await create(table, `id int primary key, shop int, value ${type}`, (row) => `${row}, ${row}, '${old}'`);
      await onChangeOf(db, table, { cache }).bump({ shop: 'shop' }).install();
      await db.raw(`update ${table} set value = '${renewed}' where id = 1`);
      expect(await recorded()).to.deep.equal(['shop=1']);
      await db.raw(`update ${table} set value = '${renewed}' where id < 3`);
      expect(await recorded()).to.deep.equal(['shop=2']);
      await db.raw(`update ${table} set value = value`);
      expect(await recorded()).to.deep.equal([]);
      await db.raw(`update ${table} set value = null`).catch(() => {});
      await takeEvents(db);
      await db.raw(`delete from ${table}`);
      expect((await recorded()).sort()).to.deep.equal(['shop=1', 'shop=2', 'shop=3']);
    });

    it(`records the changed rows where a watched column is ${name}`, async () => {
      const table = `watched_${i}`;
      await create(table, `id int primary key, shop int, value ${type}`, (row) => `${row}, ${row}, '${old}'`);
      await onChangeOf(db, table, { cache, columns: ['value'] })
        .bump({ shop: 'shop' })
        .install();
      await db.raw(`update ${table} set value = '${renewed}' where id < 3`);
      expect((await recorded()).sort()).to.deep.equal(['shop=1', 'shop=2']);
    });

    if (!key) continue;
    it(`pairs old and new rows by a primary key of ${name}`, async () => {
      const table = `keyed_${i}`;
      await create(
        table,
        `value ${type}, id int, shop int, primary key (value, id)`,
        (row) => `'${old}', ${row}, ${row}`,
      );
      await onChangeOf(db, table, { cache }).bump({ shop: 'shop' }).install();
      await db.raw(`update ${table} set shop = shop + 10 where id < 3`);
      expect((await recorded()).sort()).to.deep.equal(['shop=1', 'shop=11', 'shop=12', 'shop=2']);
      await db.raw(`update ${table} set shop = shop`);
      expect(await recorded()).to.deep.equal([]);
      await db.raw(`insert into ${table} select '${old}', i, 5 from generate_series(100, 1300) i`);
      await takeEvents(db);
      await db.raw(`update ${table} set shop = 6 where shop = 5`);
      expect((await recorded()).sort()).to.deep.equal(['shop=5', 'shop=6']);
    });
  }

  for (const [looked, ours] of [
    ['@.tint', '@.tint'],
    ['@.nuance', '@.tint'],
    ['@.tint', '@.colour'],
    ['@.colour', '@.nuance'],
    ['text', '@.nuance'],
    ['@.nuance', 'text'],
    ['@.code', '@.code'],
    ['@.code', 'uuid'],
    ['@.small', 'bigint'],
    ['int', '@.small'],
  ] as const) {
    it(`looks up a ${looked.replace('@.', '')} by a ${ours.replace('@.', '')}`, async () => {
      const n = `${looked}_${ours}`.replaceAll(/\W/g, '');
      const value = looked.endsWith('code')
        ? '0b0e0c0d-1111-4222-8333-444455556666'
        : /small|^int/.test(looked)
          ? '7'
          : 'red';
      await create(`stock_${n}`, `value ${looked}, owner int`, (row) => `'${value}', ${row}`);
      await create(`sale_${n}`, `id int primary key, value ${ours}`, (row) => `${row}, '${value}'`);
      await onChangeOf(db, `sale_${n}`, { cache })
        .lookUp(`stock_${n}`, { value: 'value' })
        .bump({ owner: 'owner' })
        .install();
      await db.raw(`delete from sale_${n}`);
      expect(await takeScopes(db)).to.deep.equal(['owner=1', 'owner=2', 'owner=3']);
    });
  }
});
