import { lendOutbox } from '../../support/relay.js';
import { expect } from 'chai';
import fc from 'fast-check';
import type { Knex } from 'knex';
import { childPath } from '../../../lib/model/key.js';
import { nullable, text } from '../../../lib/model/id-kind.js';
import { checkTriggers, repairTriggers } from '../../../lib/knex/triggers/check-triggers.js';
import { changed, onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { removeTriggers, uninstallTriggers } from '../../../lib/knex/triggers/remove-triggers.js';
import { withoutEvents } from '../../../lib/knex/triggers/without-events.js';
import { rejection } from '../../support/rejection.js';
import { schemaOf } from '../../support/postgres.js';
import { CACHE as cache, leftovers, takeEvents, takePaths, takeScopes } from './support.js';

describe('onChangeOf', () => {
  let db: Knex;

  beforeEach(async () => {
    db = await lendOutbox();
    await db.raw(`
      create type colour as enum ('red', 'Green light');
      create domain sku as varchar(300) check (value <> 'no');
      create domain good_sku as sku;
      create table item (
        id int primary key, shop bigint, shelf text, colour colour, code uuid, sku good_sku,
        price numeric, note json, name text)`);
    await takeEvents(db);
  });

  describe('an event', () => {
    it('carries path, table, operation, application and transaction, and commits with its change', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      await db.transaction(async (trx) => {
        await trx.raw('insert into item (id, shop) values (1, 7), (2, 7), (3, 8)');
        const { rows } = await trx.raw(
          `select xid = pg_current_xact_id() as own, recorded_at between now() and clock_timestamp() as timely
           from gencache_outbox`,
        );
        expect(rows).to.deep.equal([
          { own: true, timely: true },
          { own: true, timely: true },
        ]);
        expect(await db('gencache_outbox').select('path')).to.deep.equal([]);
      });
      const own = { cache, lookup: null, args: null, source: `${schemaOf(db)}.item`, operation: 'INSERT' };
      expect(await takeEvents(db))
        .to.have.length(2)
        .and.satisfy(([first]: object[]) => {
          expect(first).to.deep.include({ ...own, application: schemaOf(db) });
          return true;
        });
    });

    it('rolls back with its change, also in a savepoint', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      await db.transaction(async (trx) => {
        await trx('item').insert({ id: 1, shop: 1 });
        await rejection(
          trx.transaction(async (inner) => {
            await inner('item').insert({ id: 2, shop: 2 });
            throw new Error('no');
          }),
        );
      });
      expect(await takePaths(db)).to.deep.equal(['INSERT shop=1']);
    });

    it('names the old and the new scope of a row that moves, and those of a row whose key changes', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop', shelf: 'shelf' }).install();
      await db.raw(`insert into item (id, shop, shelf) values (1, 1, 'a'), (2, 2, 'b'), (3, 3, null)`);
      await takeEvents(db);
      await db.raw(`update item set shop = shop + 10 where id = 1`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1/shelf=a', 'UPDATE shop=11/shelf=a']);
      await db.raw(`update item set id = 20, shelf = 'c' where id = 2`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=2/shelf=b', 'UPDATE shop=2/shelf=c']);
      await db.raw(`update item set shelf = 'd' where id = 3`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=3/shelf=d', 'UPDATE shop=3/shelf=~']);
    });

    it('distinguishes rows that exchange their keys', async () => {
      await db.raw(`alter table item drop constraint item_pkey, add primary key (id) deferrable`);
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      await db.raw(`insert into item (id, shop) values (1, 1), (2, 2), (3, 3)`);
      await takeEvents(db);
      await db.raw('update item set id = 3 - id where id < 3');
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1', 'UPDATE shop=2']);
    });

    it('is global when the bump names no column', async () => {
      await onChangeOf(db, 'item', { cache }).bump({}).install();
      await db.raw('insert into item (id, shop) values (1, 7), (2, 8)');
      await db.raw('update item set shop = shop');
      await db.raw('update item set shop = 9');
      await db.raw('delete from item');
      expect(await takePaths(db)).to.deep.equal(['DELETE ', 'INSERT ', 'UPDATE ']);
    });

    it('comes once a scope for each bump of each installation', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).bump({ colour: 'colour' }).install();
      await onChangeOf(db, 'item', { cache, name: 'by code' }).bump({ code: 'code' }).install();
      await onChangeOf(db, 'item', { cache: 'other' }).bump({ shop: 'shop' }).install();
      const code = '0b0e0c0d-1111-4222-8333-444455556666';
      await db('item').insert({ id: 1, shop: 5, colour: 'Green light', code: code.toUpperCase() });
      const events = (await takeEvents(db)).map((event) => `${event.cache} ${event.path}`);
      expect(events.sort()).to.deep.equal([
        `other shop=5`,
        `shop code=${code}`,
        `shop colour=Green%20light`,
        `shop shop=5`,
      ]);
    });
  });

  describe('an unchanged row', () => {
    beforeEach(async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      await db.raw(`insert into item (id, shop, price, note, name)
                    select i, i, 1.0, '{"a": 1}', repeat('long', 5000) || i from generate_series(1, 5) i`);
      await takeEvents(db);
    });

    it('records nothing, also beside a changed row', async () => {
      await db.raw(`update item set shop = shop, name = name, note = note`);
      expect(await takePaths(db)).to.deep.equal([]);
      await db.raw(`update item set name = case when id = 3 then 'short' else name end`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=3']);
    });

    it('is compared by its image: 1.00 differs from 1.0, and json has no equality', async () => {
      await db.raw(`update item set price = 1.00 where id = 1`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1']);
      await db.raw(`update item set note = '{"a":1}' where id = 2`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=2']);
    });

    it('is compared by columns that were added later', async () => {
      await db.raw(`alter table item add column added int`);
      await db.raw('update item set added = 1 where id = 4');
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=4']);
    });

    it('is recognized after DROP COLUMN of a column that no bump names', async () => {
      await db.raw(`alter table item drop column name`);
      await db.raw('update item set shop = shop');
      await db.raw('update item set price = 2 where id = 4');
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=4']);
      expect(await checkTriggers(db)).to.deep.equal([]);
    });

    it('is recorded beside another row without a primary key, and not alone', async () => {
      await db.raw('alter table item drop constraint item_pkey');
      await repairTriggers(db);
      await db.raw('update item set shop = shop where id = 1');
      expect(await takePaths(db)).to.deep.equal([]);
      await db.raw(`update item set name = 'x' where id = 1`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1']);
      await db.raw('update item set shop = shop where id < 3');
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1', 'UPDATE shop=2']);
    });

    it('may be recorded, and changed rows are, where the key lost its constraint after the installation', async () => {
      await db.raw(`alter table item drop constraint item_pkey, alter id drop not null;
                    update item set id = null where id < 4; delete from gencache_outbox`);
      await db.raw(`update item set name = 'x' where shop = 2`);
      expect(await takePaths(db)).to.include('UPDATE shop=2');
    });
  });

  describe('with `columns`', () => {
    beforeEach(async () => {
      await db.raw(`insert into item (id, shop, shelf, note) values (1, 1, 'a', '{}')`);
      await onChangeOf(db, 'item', { cache, columns: ['price', 'note'] })
        .bump({ shop: 'shop' })
        .install();
    });

    it('records an UPDATE of these columns or of an id, and no other', async () => {
      await db.raw(`update item set shelf = 'b', name = 'x'`);
      expect(await takePaths(db)).to.deep.equal([]);
      await db.raw(`update item set note = '{ }'`);
      await db.raw(`update item set price = 2`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1', 'UPDATE shop=1']);
      await db.raw(`update item set shop = 2`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1', 'UPDATE shop=2']);
    });
  });

  describe('above the limit', () => {
    it('bumps the nearest common ancestor', async () => {
      await onChangeOf(db, 'item', { cache, limit: 3 }).bump({ shop: 'shop', shelf: 'shelf' }).install();
      await db.raw(`insert into item (id, shop, shelf) select i, 7, 's' || i from generate_series(1, 3) i`);
      expect(await takePaths(db)).to.have.length(3);
      await db.raw(`insert into item (id, shop, shelf) select i, 7, 's' || i from generate_series(4, 7) i`);
      expect(await takePaths(db)).to.deep.equal(['INSERT shop=7']);
      await db.raw(`update item set shop = 8 where id > 2`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE ']);
    });

    it('records the old and new scopes of no, one, some or many rows, changed or not, that stay or move', async () => {
      const limit = 4;
      await onChangeOf(db, 'item', { cache, limit })
        .bump({ shop: 'shop' })
        .bump({ shop: 'shop', shelf: 'shelf' })
        .bump({})
        .install();
      const shop = fc.option(fc.integer({ min: 1, max: 3 }), { freq: 20 });
      const wide = fc.integer({ min: 1, max: 9 });
      const shelf = fc.constantFrom('a', 'b');
      const row = fc.record({ shop: fc.oneof(shop, wide), shelf, name: shelf });
      type Row = typeof row extends fc.Arbitrary<infer T> ? T : never;
      const pair = fc.oneof(
        row.map((each) => [each, each] as const),
        fc.tuple(row, row),
        fc.tuple(row, shelf).map(([each, name]) => [each, { ...each, name }] as const),
      );
      const level = ({ shop }: Row) => [`shop=${shop ?? '~'}`];
      const paths = [level, (each: Row) => [`${level(each)[0]}/shelf=${each.shelf}`], () => ['']];
      const ancestor = (above: Set<string>) => (above.size === 1 ? [...above][0]! : '');
      await fc.assert(
        fc.asyncProperty(fc.array(pair, { maxLength: 40 }), async (pairs) => {
          await db.raw('truncate item');
          const values = (side: 0 | 1) => JSON.stringify(pairs.map((each, id) => ({ id, ...each[side] })));
          await db.raw(
            'insert into item (id, shop, shelf, name) select * from json_to_recordset(?) as (id int, shop bigint, shelf text, name text)',
            [values(0)],
          );
          await takeEvents(db);
          await db.raw(
            `update item set shop = now.shop, shelf = now.shelf, name = now.name
             from json_to_recordset(?) as now (id int, shop bigint, shelf text, name text) where item.id = now.id`,
            [values(1)],
          );
          const images = pairs.filter(([was, is]) => JSON.stringify(was) !== JSON.stringify(is)).flat();
          const expected = paths.flatMap((path, i) => {
            const scopes = new Set(images.flatMap(path));
            if (scopes.size <= limit) return [...scopes];
            return [i === 0 ? '' : ancestor(new Set(images.flatMap(level)))];
          });
          expect(await takePaths(db)).to.deep.equal(expected.map((path) => `UPDATE ${path}`).sort());
        }),
        { numRuns: 200 },
      );
    });

    it('records all scopes of a long UPDATE whose first rows differ from the others', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      const items = (shops: string) =>
        db.raw(
          `truncate item; insert into item (id, shop) select i, ${shops} from generate_series(1, 3000) i; delete from gencache_outbox`,
        );
      const update = async (name: string) => {
        await db.raw(`update item set name = ${name}`);
        return takePaths(db);
      };
      await items('i % 20');
      expect(await update(`'x'`))
        .to.have.length(20)
        .and.include('UPDATE shop=19');
      expect(await update(`case when id = 2999 then 'y' else name end`)).to.deep.equal(['UPDATE shop=19']);
      await items('case when i < 2900 then 1 when i = 2950 then null else 2 end');
      expect(await update(`case when shop is null then 'x' else name end`)).to.deep.equal(['UPDATE shop=~']);
      expect(await update(`case when shop = 1 then 'y' else name end`)).to.deep.equal(['UPDATE shop=1']);
      expect(await update(`'z'`)).to.deep.equal(['UPDATE shop=1', 'UPDATE shop=2', 'UPDATE shop=~']);
      await items('i');
      expect(await update(`'x'`)).to.deep.equal(['UPDATE ']);
      await items('7');
      await db.raw('update item set shop = 7 + case when id = 2990 then 1 else 0 end');
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=7', 'UPDATE shop=8']);
      await items('7');
      await db.raw(`update item set name = 'x', shop = 7 + case when id = 2990 then 1 else 0 end`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=7', 'UPDATE shop=8']);
      await db.raw(`update item set name = 'y', shop = 7`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE shop=7', 'UPDATE shop=8']);
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop', item: 'id' }).install();
      expect(await update(`'z'`)).to.deep.equal(['UPDATE shop=7']);
      await db.raw('update item set shop = id % 2');
      expect(await takePaths(db)).to.deep.equal(['UPDATE ']);
    });

    it('bumps global without a lookup', async () => {
      await db.raw(
        'create table stock (item_id int, shop bigint); insert into stock select i, i from generate_series(1, 9) i',
      );
      await onChangeOf(db, 'item', { cache, limit: 3 })
        .lookUp('stock', { item_id: 'id' })
        .bump({ shop: 'shop' })
        .install();
      await db.raw(`insert into item (id) values (1), (2), (3)`);
      expect(await takeScopes(db)).to.deep.equal(['shop=1', 'shop=2', 'shop=3']);
      await db.raw(`insert into item (id) values (4), (5), (6), (7)`);
      expect(await takeScopes(db)).to.deep.equal(['']);
    });
  });

  it('bumps the path of `truncate` on TRUNCATE, else global', async () => {
    await onChangeOf(db, 'item', { cache, truncate: 'shop=7/shelf=~', operations: ['insert'] })
      .bump({ shop: 'shop' })
      .install();
    await db.raw('truncate item');
    expect(await takePaths(db)).to.deep.equal(['TRUNCATE shop=7/shelf=~']);
    await onChangeOf(db, 'item', { cache, operations: ['insert'] })
      .bump({ shop: 'shop' })
      .install();
    await db.raw('truncate item');
    expect(await takePaths(db)).to.deep.equal(['TRUNCATE ']);
  });

  it('stops watching an operation, and its lookup, that a later installation leaves out', async () => {
    await db.raw('create table stock (item_id int, shop bigint)');
    await onChangeOf(db, 'item', { cache, subscriber: true })
      .lookUp('stock', { item_id: 'id' })
      .bump({ shop: 'shop' })
      .install();
    await onChangeOf(db, 'item', { cache, operations: ['delete'] })
      .bump({ shop: 'shop' })
      .install();
    expect(await checkTriggers(db)).to.deep.equal([]);
    expect((await leftovers(db)).filter((name) => /lookup|_row|_insert|_update$/.test(name))).to.deep.equal([]);
    await db.raw('insert into item (id, shop) values (1, 1)');
    await db.raw('update item set shop = 2');
    await db.raw('delete from item');
    expect(await takePaths(db)).to.deep.equal(['DELETE shop=2']);
  });

  describe('an id', () => {
    it('of text is escaped as in the cache, for any characters', async () => {
      await onChangeOf(db, 'item', { cache, limit: 10_000 }).bump({ shelf: 'shelf' }).install();
      const kind = nullable(text());
      const unicode = fc.string({ unit: 'binary', maxLength: 80 }).map((value) => value.replaceAll('\0', ''));
      const ids = fc.oneof(
        unicode,
        fc.string({ maxLength: 250 }),
        fc.constantFrom('', '~', 'null', '1:2', '}', '\n', 'é'.repeat(99), 'x'.repeat(200), 'x'.repeat(201), '%41'),
        fc.constant(null),
      );
      await fc.assert(
        fc.asyncProperty(fc.uniqueArray(ids, { minLength: 1, maxLength: 50 }), async (shelves) => {
          await db.raw('delete from item');
          await takeEvents(db);
          await db('item').insert(shelves.map((shelf, id) => ({ id, shelf })));
          const paths = shelves.map((shelf) => `INSERT ${childPath('', 'shelf', kind.text(shelf))}`);
          expect(await takePaths(db)).to.deep.equal(paths.sort());
        }),
        { numRuns: 30 },
      );
    });

    it('may be a domain over a domain; texts that are equal by collation stay two ids', async () => {
      await db.raw(`create collation soft (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                    alter table item alter shelf type text collate soft`);
      await onChangeOf(db, 'item', { cache }).bump({ sku: 'sku', shelf: 'shelf' }).install();
      await db.raw(`insert into item (id, sku, shelf) values (1, 'a b', 'x'), (2, 'a b', 'X'), (3, null, 'x')`);
      expect(await takePaths(db)).to.deep.equal([
        'INSERT sku=a%20b/shelf=X',
        'INSERT sku=a%20b/shelf=x',
        'INSERT sku=~/shelf=x',
      ]);
      await db.raw(`update item set shelf = 'X' where id = 1`);
      expect(await takePaths(db)).to.deep.equal(['UPDATE sku=a%20b/shelf=X', 'UPDATE sku=a%20b/shelf=x']);
    });

    it('beyond 2^53 keeps its digits, also in a lookup', async () => {
      await db.raw(`create table stock (shop bigint, owner text);
                    insert into stock values (9007199254740993, 'us'), (9007199254740992, 'them')`);
      await onChangeOf(db, 'item', { cache })
        .bump({ shop: 'shop' })
        .lookUp('stock', { shop: 'shop' })
        .bump({ shop: changed('shop'), owner: 'owner' })
        .install();
      await db.raw('insert into item (id, shop) values (1, 9007199254740993)');
      expect(await takeScopes(db)).to.deep.equal(['shop=9007199254740993', 'shop=9007199254740993/owner=us']);
    });

    it('in a lookup may be an enumeration, a uuid or text', async () => {
      await db.raw(`create table stock (colour colour, code uuid, sku text, owner text);
                    insert into stock values ('red', '0b0e0c0d-1111-4222-8333-444455556666', 'a', 'o/1')`);
      await onChangeOf(db, 'item', { cache })
        .lookUp('stock', { colour: 'colour', code: 'code', sku: 'sku' })
        .bump({ colour: changed('colour'), owner: 'owner' })
        .install();
      await db('item').insert({ id: 1, colour: 'red', code: '0B0E0C0D-1111-4222-8333-444455556666', sku: 'a' });
      await db('item').insert({ id: 2, colour: null });
      expect(await takeScopes(db)).to.deep.equal(['colour=red/owner=o%2F1']);
    });
  });

  describe('a write', () => {
    it('succeeds after a needed column was renamed, and bumps global', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      await db.raw('alter table item rename shop to store');
      await db.raw('insert into item (id, store) values (1, 1)');
      await db.raw('update item set store = 2');
      await db.raw('delete from item');
      const events = await takeEvents(db);
      expect(events.map(({ operation, path, lookup }) => [operation, path, lookup])).to.deep.equal([
        ['INSERT', '', null],
        ['UPDATE', '', null],
        ['DELETE', '', null],
      ]);
      expect(events[0]!.args).to.deep.equal({ error: '42703: column gencache_new.shop does not exist' });
    });

    it('gets no further transaction id from the computation', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      await db.transaction(async (trx) => {
        await trx.raw('insert into item (id, shop) values (1, 1)');
        const { rows } = await trx.raw(
          `select count(distinct xmin::text) as ids, min(xmin::text) = (pg_current_xact_id()::text::bigint % 4294967296)::text as own
           from (select xmin from item union all select xmin from gencache_outbox) as written`,
        );
        expect(rows).to.deep.equal([{ ids: '1', own: true }]);
      });
    });

    it('needs no right on the outbox, and uses no object of the writer in its place', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shelf: 'shelf' }).install();
      const role = `writer_${schemaOf(db)}`;
      await db.raw(
        `create role ${role}; grant usage, create on schema ${schemaOf(db)} to ${role}; grant all on item to ${role}`,
      );
      try {
        await db.transaction(async (trx) => {
          await trx.raw(`set local role ${role}`);
          await trx.raw(`create temporary table gencache_outbox (path text) on commit drop`);
          await trx.raw(
            `create function cardinality(text[]) returns int language plpgsql as $$ begin raise 'fooled'; end $$`,
          );
          await trx.raw(`set local search_path = pg_temp, ${schemaOf(db)}, pg_catalog`);
          await trx.raw(`insert into item (id, shelf) values (1, 'a b')`);
        });
        const [event] = await takeEvents(db);
        expect(event).to.include({ path: 'shelf=a%20b', source: `${schemaOf(db)}.item` });
        const made = await rejection(
          db.transaction(async (trx) => {
            const { rows } = await trx.raw(
              `select tgfoid::regproc::text as fn from pg_trigger where tgrelid = 'item'::regclass limit 1`,
            );
            await trx.raw(`set local role ${role}`);
            await trx.raw(`create table own (id int)`);
            await trx.raw(`create trigger own after insert on own for each statement execute function ${rows[0].fn}()`);
          }),
        );
        expect(made.message).to.match(/permission denied for function/);
      } finally {
        await db.raw(`drop owned by ${role}; drop role ${role}`);
      }
    });

    it('records nothing under `gencache.events = off`, in that transaction', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      await db.transaction(async (trx) => {
        const result = await withoutEvents(trx, async () => {
          await trx('item').insert({ id: 1, shop: 1 });
          await trx.raw('truncate item');
          return 'done';
        });
        expect(result).to.equal('done');
        await trx('item').insert({ id: 2, shop: 2 });
        await rejection(withoutEvents(trx, () => Promise.reject(new Error('no'))));
        await trx('item').insert({ id: 3, shop: 3 });
      });
      expect(await takePaths(db)).to.deep.equal(['INSERT shop=2', 'INSERT shop=3']);
    });

    it('is recorded in a session whose session_replication_role is replica', async () => {
      await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
      await db.transaction(async (trx) => {
        await trx.raw('set local session_replication_role = replica');
        await trx('item').insert({ id: 1, shop: 1 });
      });
      expect(await takePaths(db)).to.deep.equal(['INSERT shop=1']);
    });
  });

  describe('names', () => {
    const HOSTILE = [
      `"; drop table x; --`,
      `it's`,
      'new\nline',
      'UPPER case',
      `back\\slash and ?`,
      `\\?`,
      '$gencache$',
      'é'.repeat(31),
      'x'.repeat(63),
      'gencache_old',
      'gencache_paths',
      'select',
    ];
    for (const name of HOSTILE) {
      it(`such as ${JSON.stringify(name)} are harmless`, async () => {
        const cases = { cache, name };
        const quoted = `"${name.replaceAll('"', '""')}"`;
        const pg = await (
          db.client as { acquireConnection(): Promise<{ query(sql: string): Promise<unknown> }> }
        ).acquireConnection();
        try {
          await pg.query(`create table ${quoted} (${quoted} text primary key, other int)`);
          await pg.query(`create table "${'y'.repeat(60)}" (${quoted} text, ref text)`);
          await pg.query(`insert into "${'y'.repeat(60)}" values ('1', '1'), ('2', 'two')`);
          await onChangeOf(db, name, cases)
            .bump({ id: name })
            .lookUp('y'.repeat(60), { [name]: name })
            .bump({ id: changed(name), ref: 'ref' })
            .install();
          await onChangeOf(db, name, cases)
            .bump({ id: name })
            .lookUp('y'.repeat(60), { [name]: name })
            .bump({ id: changed(name), ref: 'ref' })
            .install();
          expect((await checkTriggers(db)).map(({ problem }) => problem)).to.deep.equal([
            'looked-up table not watched',
          ]);
          await pg.query(`insert into ${quoted} values ('1', 1)`);
          await pg.query(`update ${quoted} set ${quoted} = '2'`);
          await pg.query(`update ${quoted} set other = other`);
          await pg.query(`truncate ${quoted}`);
        } finally {
          await db.client.releaseConnection(pg);
        }
        expect(await takeScopes(db)).to.deep.equal(['', 'id=1', 'id=1/ref=1', 'id=2', 'id=2/ref=two']);
        await removeTriggers(db, name, { cache });
        expect(await leftovers(db)).to.deep.equal([]);
      });
    }
  });

  describe('refuses', () => {
    const on = (options = {}) => onChangeOf(db, 'item', { cache, ...options });
    const refusals: Record<string, [() => { install(): Promise<void> }, string]> = {
      'no bump': [
        () => on(),
        'A change must have at least one bump, but got 0. Call `.bump({ ... })` before `.install()`.',
      ],
      'a missing column': [
        () => on().bump({ shop: 'shopp' }),
        'There is no column SCHEMA.item.shopp. Name an existing column, and install again.',
      ],
      'a type that has several texts for one value': [
        () => on().bump({ price: 'price' }),
        'An id must be a smallint, integer, bigint, text, varchar, uuid, an enumeration, or a domain over one, but ' +
          'SCHEMA.item.price is numeric. Leave the id out, which bumps the scope above, or name another column.',
      ],
      'a missing table': [
        () => onChangeOf(db, 'itm', { cache }).bump({}),
        'There is no table itm to watch or to look up in. Create it in an earlier migration, or pass its `schema`.',
      ],
      'a table with its schema before a dot': [
        () => onChangeOf(db, 'app.item', { cache }).bump({}),
        `There is no table "app.item" to watch or to look up in. The schema is an option of its own: pass 'item' with { schema: 'app' }.`,
      ],
      'a looked-up table with its schema before a dot': [
        () => on().lookUp('app.stock', { id: 'id' }).bump({ shop: 'shop' }),
        `There is no table "app.stock" to watch or to look up in. The schema is an option of its own: pass 'stock' with { schema: 'app' }.`,
      ],
      'a table that is not in the schema that was passed': [
        () => onChangeOf(db, 'it.em', { cache, schema: 'app' }).bump({}),
        'There is no table app."it.em" to watch or to look up in. Create it in an earlier migration, or pass its `schema`.',
      ],
      'a view': [
        () => onChangeOf(db, 'seen', { cache }).bump({}),
        'SCHEMA.seen is a view. Triggers watch tables and partitioned tables. Watch the tables that it is made of.',
      ],
      'a lookup of columns of different kinds': [
        () => on().lookUp('item', { shelf: 'shop' }).bump({ shop: 'shop' }),
        'A lookup must compare columns of one kind, but SCHEMA.item.shelf is text and SCHEMA.item.shop is bigint. Look up by a column that refers to the other.',
      ],
      'an unknown operation': [
        () => on({ operations: ['upsert'] }).bump({}),
        "`operations` must be of insert, update, delete and truncate, but got 'upsert'. Pass a list of these.",
      ],
      'an invalid namespace name': [
        () => on().bump({ 'shop=1/x': 'shop' }),
        "A namespace's name must be a lower-case letter, then letters, digits or underscores, 64 characters at most, but got 'shop=1/x'. Use its declared name.",
      ],
      'an invalid path': [
        () => on({ truncate: 'shop:7' }).bump({}),
        "`truncate` must be the path of a scope, root first, but got 'shop:7'. Pass one such as `tenant=7`, or leave it out for global.",
      ],
      'a limit of 0': [
        () => on({ limit: 0 }).bump({}),
        '`limit` must be a whole number of at least 1, but got 0. Pass the number of scopes that one statement may bump.',
      ],
    };
    for (const [what, [change, message]] of Object.entries(refusals)) {
      it(what, async () => {
        await db.raw('create view seen as select * from item');
        const error = await rejection(change().install());
        expect(error).to.include({ name: 'ConfigurationError', message: message.replaceAll('SCHEMA', schemaOf(db)) });
        expect(await leftovers(db)).to.deep.equal([]);
      });
    }

    it('a call without a cache', async () => {
      const untyped = onChangeOf as unknown as (db: Knex, table: string) => unknown;
      expect(() => untyped(db, 'item'))
        .to.throw()
        .that.includes({
          name: 'ConfigurationError',
          message:
            'The options of onChangeOf must be an object with `cache`, but got undefined. ' +
            "Name the cache: `onChangeOf(db, 'item', { cache: 'shop' })`.",
        });
      const remove = removeTriggers as unknown as (db: Knex, table: string) => Promise<void>;
      expect(await rejection(remove(db, 'item'))).to.include({
        name: 'ConfigurationError',
        message:
          'The options of removeTriggers must be an object with `cache`, but got undefined. ' +
          "Name the cache: `removeTriggers(db, 'item', { cache: 'shop' })`.",
      });
    });

    it('a database without an outbox', async () => {
      const { uninstallOutbox } = await import('../../../lib/knex/install/install-outbox.js');
      await uninstallOutbox(db);
      const error = await rejection(on().bump({}).install());
      expect(error.message).to.equal(
        'There is no outbox of this release on the search path of this connection. Triggers record there. Call ' +
          '`installOutbox` in a migration, or pass the `outbox: { schema }` it is in.',
      );
      await removeTriggers(db, 'item', { cache });
      await uninstallTriggers(db);
    });
  });
});
