import { lendOutbox } from '../../support/relay.js';
import { expect } from 'chai';
import type { Knex } from 'knex';
import { checkTriggers, repairTriggers, type TriggerProblem } from '../../../lib/knex/triggers/check-triggers.js';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { removeTriggers } from '../../../lib/knex/triggers/remove-triggers.js';
import { rejection } from '../../support/rejection.js';
import { schemaOf } from '../../support/postgres.js';
import { CACHE as cache, leftovers, takePaths } from './support.js';

describe('triggers on a family of tables', () => {
  let db: Knex;

  const kinds = async () => (await checkTriggers(db)).map(({ problem }) => problem);
  const install = (table: string) => onChangeOf(db, table, { cache }).bump({ shop: 'shop' }).install();

  beforeEach(async () => {
    db = await lendOutbox();
    await db.raw(`
      create table part (id int, shop int, name text, primary key (id, shop)) partition by range (shop);
      create table part_low partition of part for values from (0) to (100) partition by list (shop);
      create table part_low_1 partition of part_low for values in (1, 2);
      create table part_high (name text, shop int not null, id int not null);
      alter table part attach partition part_high for values from (100) to (200);
      create table parent (id int primary key, shop int);
      create table child (extra text) inherits (parent);
      create table grandchild (more text) inherits (child);`);
  });

  it('record a write to the partitioned table once', async () => {
    await install('part');
    await db.raw(`insert into part values (1, 1, 'a'), (2, 2, 'b'), (3, 150, 'c')`);
    expect(await takePaths(db)).to.deep.equal(['INSERT shop=1', 'INSERT shop=150', 'INSERT shop=2']);
    await db.raw(`update part set name = 'c' where id > 1`);
    expect(await takePaths(db)).to.deep.equal(['UPDATE shop=2']);
    await db.raw(`update part set shop = 151 where id = 1`);
    expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1', 'UPDATE shop=151']);
    await db.raw(`delete from part where id = 3`);
    expect(await takePaths(db)).to.deep.equal(['DELETE shop=150']);
  });

  it('record a write to a partition, nested or with its columns in another order', async () => {
    await install('part');
    await db.raw(`insert into part_low_1 values (1, 1, 'a')`);
    await db.raw(`insert into part_low values (2, 2, 'a')`);
    await db.raw(`insert into part_high (id, shop, name) values (3, 150, 'a')`);
    await db.raw(`update part_high set name = 'b'`);
    await db.raw(`truncate part_high`);
    expect(await takePaths(db)).to.deep.equal([
      'INSERT shop=1',
      'INSERT shop=150',
      'INSERT shop=2',
      'TRUNCATE ',
      'UPDATE shop=150',
    ]);
  });

  it('record a write to an inheritance child or its parent', async () => {
    await install('parent');
    await db.raw(`insert into grandchild values (1, 1, 'x', 'y')`);
    await db.raw(`update grandchild set more = 'z'`);
    await db.raw(`update parent set shop = 2`);
    await db.raw(`delete from child`);
    expect(await takePaths(db)).to.deep.equal([
      'DELETE shop=2',
      'INSERT shop=1',
      'UPDATE shop=1',
      'UPDATE shop=1',
      'UPDATE shop=2',
    ]);
  });

  it('are reported missing on a new partition, and installed by a repair without a lock on the others', async () => {
    await install('part');
    await install('parent');
    expect(await checkTriggers(db)).to.deep.equal([]);
    await db.raw(`create table part_low_3 partition of part_low for values in (3);
                  create table late () inherits (grandchild)`);
    const missing = await checkTriggers(db);
    expect(new Set(missing.map(({ problem, table }) => `${table}: ${problem}`))).to.deep.equal(
      new Set([`${schemaOf(db)}.part: trigger missing`, `${schemaOf(db)}.parent: trigger missing`]),
    );
    expect(missing).to.have.length(8);
    expect(missing[0]!.message).to.match(
      /^The trigger gencache_\w+ is missing on "\w+"\."part_low_3"\. The table, each partition and each inheritance child needs its own\.$/,
    );

    await db.transaction(async (reader) => {
      await reader.raw('lock table part_low_1 in row exclusive mode');
      await repairTriggers(db);
    });
    expect(await checkTriggers(db)).to.deep.equal([]);
    await db.raw(`insert into part_low_3 values (1, 3)`);
    expect(await takePaths(db)).to.deep.equal(['INSERT shop=3']);
  });

  it('are reported left over on a detached partition', async () => {
    await install('part');
    await db.raw('alter table part detach partition part_high');
    expect(new Set(await kinds())).to.deep.equal(new Set(['trigger left over']));
    await repairTriggers(db);
    expect(await checkTriggers(db)).to.deep.equal([]);
    await removeTriggers(db, 'part', { cache });
    expect(await leftovers(db)).to.deep.equal([]);
  });

  it('are rejected for a foreign partition, which is reported when it is attached later', async () => {
    const wrapper = `wrapper_${schemaOf(db)}`;
    await db.raw(`create foreign data wrapper ${wrapper}; create server ${wrapper} foreign data wrapper ${wrapper}`);
    try {
      await db.raw('create table plain (id int, shop int) partition by list (shop)');
      await install('plain');
      await db.raw(`create foreign table elsewhere partition of plain for values in (3) server ${wrapper}`);
      expect(await kinds()).to.deep.equal(['foreign partition']);
      const error = await rejection(install('plain'));
      expect(error).to.include({ name: 'ConfigurationError' });
      expect(error.message).to.equal(
        `"${schemaOf(db)}"."elsewhere" is a foreign table: triggers of this database do not see its writes. ` +
          'Detach it and watch it in its own database, or bump by hand after writes to the table.',
      );
    } finally {
      await db.raw(`drop foreign data wrapper ${wrapper} cascade`);
    }
  });

  it('are removed from the whole family', async () => {
    await install('part');
    await install('parent');
    await removeTriggers(db, 'part', { cache });
    await removeTriggers(db, 'parent', { cache });
    expect(await leftovers(db)).to.deep.equal([]);
  });

  describe('checkTriggers reports', () => {
    const damages: Record<string, [damage: string, problems: TriggerProblem['problem'][], repairs: boolean]> = {
      'DISABLE TRIGGER ALL and ENABLE, which turn ALWAYS into ORIGIN': [
        'alter table parent disable trigger all; alter table parent enable trigger all',
        Array<TriggerProblem['problem']>(4).fill('trigger not enabled as installed'),
        true,
      ],
      'disabled triggers': [
        'alter table child disable trigger user',
        Array<TriggerProblem['problem']>(4).fill('trigger not enabled as installed'),
        true,
      ],
      'a trigger that was dropped': [
        `do $$ declare t name; begin
           select tgname into t from pg_trigger where tgrelid = 'grandchild'::regclass and tgname ~ 'delete';
           execute format('drop trigger %I on grandchild', t); end $$`,
        ['trigger missing'],
        true,
      ],
      'a function that was altered': [
        `do $$ declare f text; begin
           select pg_get_functiondef(tgfoid) into f from pg_trigger where tgrelid = 'parent'::regclass limit 1;
           execute replace(f, '''off''', '''on'''); end $$`,
        ['function altered'],
        true,
      ],
      'a function that got a search_path': [
        `do $$ declare f regprocedure; begin
           select tgfoid into f from pg_trigger where tgrelid = 'parent'::regclass limit 1;
           execute format('alter function %s set search_path = public', f); end $$`,
        ['function altered'],
        true,
      ],
      'functions that were dropped, with their triggers': [
        `do $$ declare f regprocedure; begin
           select tgfoid into f from pg_trigger where tgrelid = 'parent'::regclass limit 1;
           execute format('drop function %s cascade', f); end $$`,
        ['function missing', ...Array<TriggerProblem['problem']>(12).fill('trigger missing')],
        true,
      ],
      'a primary key that changed': [
        'alter table parent drop constraint parent_pkey, add primary key (shop)',
        ['primary key changed'],
        true,
      ],
      'a column that was renamed': ['alter table parent rename shop to store', ['column missing'], false],
      'a column that has another type': ['alter table parent alter shop type numeric', ['column unsuitable'], false],
      'a table that is gone': ['drop table parent cascade', ['table missing'], false],
      'a table that has another name': ['alter table parent rename to father', ['table missing'], false],
    };
    for (const [what, [damage, problems, repairs]] of Object.entries(damages)) {
      it(what, async () => {
        await install('parent');
        await db.raw(damage);
        expect(await kinds()).to.deep.equal(problems);
        for (const problem of await checkTriggers(db)) {
          expect(problem).to.include({ cache, table: `${schemaOf(db)}.parent` });
          expect(problem.message).to.match(/\.$/);
          expect(problem.remedy).to.match(/\.$/);
        }
        if (repairs) {
          await repairTriggers(db);
          expect(await checkTriggers(db)).to.deep.equal([]);
        } else {
          await removeTriggers(db, 'parent', { cache });
          expect(await leftovers(db)).to.deep.equal([]);
        }
      });
    }

    it('all problems of one definition', async () => {
      await onChangeOf(db, 'parent', { cache }).lookUp('part', { id: 'id' }).bump({ shop: 'shop' }).install();
      await db.raw('alter table part rename shop to store; alter table grandchild disable trigger user');
      await db.raw(`do $$ declare f text; begin
        select proname into f from pg_proc where proname ~ '^gencache_lookup_' and pronamespace = current_schema()::regnamespace;
        execute format('drop function %I(jsonb)', f); end $$`);
      expect(await kinds()).to.deep.equal([
        'column missing',
        'function missing',
        ...Array<TriggerProblem['problem']>(4).fill('trigger not enabled as installed'),
        'looked-up table not watched',
      ]);
    });

    it('the removal of a dropped table’s definition as its remedy', async () => {
      await install('parent');
      await db.raw('drop table parent cascade');
      const [{ remedy }] = (await checkTriggers(db)) as [TriggerProblem];
      const schema = schemaOf(db);
      expect(remedy).to.equal(
        `Run \`gencache triggers remove --cache shop --table ${schema}.parent\`, or in a migration call ` +
          `\`removeTriggers(db, 'parent', { cache: 'shop', schema: '${schema}' })\`. If it has another name now, install ` +
          'on that as well.',
      );
    });

    it('a looked-up table without triggers', async () => {
      await onChangeOf(db, 'parent', { cache }).lookUp('part', { id: 'id' }).bump({ shop: 'shop' }).install();
      expect(await kinds()).to.deep.equal(['looked-up table not watched']);
      await install('part');
      expect(await kinds()).to.deep.equal([]);
    });
  });

  describe('after a change of a table’s columns', () => {
    const before = `id int primary key, shop int, note text, size int, shade colour`;
    const unrelated: Record<string, string> = {
      'ADD COLUMN': `alter table goods add later text default 'x'`,
      'ADD COLUMN of a type without an operator': `alter table goods add later json default '{}'`,
      'DROP COLUMN': 'alter table goods drop size',
      'RENAME COLUMN': 'alter table goods rename size to extent',
      'another name for each column': 'alter table goods rename size to x; alter table goods rename note to size',
      'a type without an operator': 'alter table goods alter note type json using to_json(note)',
      'a domain over an enumeration': 'alter table goods alter shade type tint',
      'a greater type': 'alter table goods alter size type bigint',
      'a type whose equal values differ': 'alter table goods alter size type numeric',
      'a collation that ignores case': 'alter table goods alter note type text collate soft',
      'columns dropped, and others added in their place':
        'alter table goods drop size, drop note; alter table goods add size json, add note int',
      'the id of another size': 'alter table goods alter shop type bigint',
      'another default and NOT NULL': `alter table goods alter note set default 'x', alter size set not null`,
      'an index and a constraint': 'create index on goods (note); alter table goods add check (size > 0)',
    };
    const related: Record<string, [change: string, problem: TriggerProblem['problem']]> = {
      'the id of another kind': ['alter table goods alter shop type text', 'function altered'],
      'the id renamed': ['alter table goods rename shop to store', 'column missing'],
      'the id dropped': ['alter table goods drop shop', 'column missing'],
      'the id of an unsuitable type': ['alter table goods alter shop type numeric', 'column unsuitable'],
      'the key renamed': ['alter table goods rename id to number', 'primary key changed'],
      'the key dropped': ['alter table goods drop constraint goods_pkey', 'primary key changed'],
      'the key of a type of another schema': [
        'alter table goods alter id type sized using row(id)',
        'function altered',
      ],
    };
    const relatedToColumns: Record<string, [change: string, problem: TriggerProblem['problem']]> = {
      'a watched column of a type without an operator': [
        'alter table goods alter note type json using to_json(note)',
        'function altered',
      ],
      'a watched column renamed': ['alter table goods rename note to remark', 'column missing'],
      'a watched column dropped': ['alter table goods drop note', 'column missing'],
    };

    beforeEach(() =>
      db.raw(`
        create type colour as enum ('red', 'green');
        create domain tint as colour;
        create type sized as (size int);
        create collation soft (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        create table goods (${before});
        insert into goods select i, i, 'a', i, 'red' from generate_series(1, 4) i`),
    );
    const watch = (columns?: string[]) =>
      onChangeOf(db, 'goods', { cache, ...(columns && { columns }) })
        .bump({ shop: 'shop' })
        .install();
    const column = async (type = '') => {
      const { rows } = await db.raw<{ rows: { name: string }[] }>(
        `select quote_ident(attname) as name from pg_attribute
         where attrelid = 'goods'::regclass and attnum > 0 and not attisdropped and attname not in ('id', 'shop')
           and format_type(atttypid, null) ~ ?`,
        [type],
      );
      return rows.map(({ name }) => name);
    };

    for (const [what, change] of Object.entries(unrelated)) {
      it(`finds nothing, and recording stays exact: ${what}`, async () => {
        await watch();
        await db.raw(change);
        expect(await checkTriggers(db)).to.deep.equal([]);
        await takePaths(db);
        await db.raw('update goods set shop = shop');
        expect(await takePaths(db)).to.deep.equal([]);
        const [text] = await column('text');
        const [json] = await column('json');
        const [number] = await column('int|numeric');
        const set = text ? `${text} = 'A'` : json ? `${json} = '{"a": 1}'` : `${number} = 9`;
        await db.raw(`update goods set ${set} where id < 3`);
        expect(await takePaths(db)).to.deep.equal(['UPDATE shop=1', 'UPDATE shop=2']);
        for (const each of await column('colour|tint')) await db.raw(`update goods set ${each} = 'green' where id > 2`);
        expect(await takePaths(db)).to.deep.equal(['UPDATE shop=3', 'UPDATE shop=4']);
        await db.raw('update goods set shop = shop + 10 where id in (1, 4)');
        expect(await takePaths(db)).to.deep.equal([
          'UPDATE shop=1',
          'UPDATE shop=11',
          'UPDATE shop=14',
          'UPDATE shop=4',
        ]);
        expect(await repairTriggers(db)).to.deep.equal([]);
        await db.raw('update goods set shop = shop');
        await db.raw('delete from goods where id > 2');
        expect(await takePaths(db)).to.deep.equal(['DELETE shop=14', 'DELETE shop=3']);
      });
    }

    for (const [what, [change, problem]] of Object.entries(related)) {
      it(`reports ${what}: ${problem}`, async () => {
        await watch();
        await db.raw(change);
        expect(await kinds()).to.deep.equal([problem]);
      });
    }

    for (const [what, [change, problem]] of Object.entries(relatedToColumns)) {
      it(`reports ${what}: ${problem}`, async () => {
        await watch(['note']);
        await db.raw('alter table goods rename size to extent; alter table goods add later json');
        expect(await kinds()).to.deep.equal([]);
        await db.raw(change);
        expect(await kinds()).to.deep.equal([problem]);
      });
    }

    it('finds nothing after changes of other columns of a looked-up table, and reports those of its own', async () => {
      await onChangeOf(db, 'parent', { cache }).lookUp('goods', { id: 'id' }).bump({ shop: 'shop' }).install();
      await watch();
      await db.raw('alter table goods add later text, drop note; alter table goods rename size to extent');
      expect(await kinds()).to.deep.equal([]);
      await db.raw('alter table goods alter shop type text');
      expect(await kinds()).to.deep.equal(['function altered', 'function altered']);
    });
  });

  it('are found as installed by and for a session with quote_all_identifiers', async () => {
    await db.raw(`create type colour as enum ('red'); create table goods (id int primary key, shade colour)`);
    await onChangeOf(db, 'parent', { cache }).bump({ shop: 'shop' }).install();
    for (const on of [true, false]) {
      await db.transaction(async (trx) => {
        await trx.raw(`set local quote_all_identifiers = ${on ? 'on' : 'off'}`);
        expect(await checkTriggers(trx)).to.deep.equal([]);
        await onChangeOf(trx, 'goods', { cache, name: `${on}` })
          .bump({ shade: 'shade' })
          .lookUp('goods', { shade: 'shade' })
          .bump({ shade: 'shade' })
          .install();
        expect(await checkTriggers(trx)).to.deep.equal([]);
      });
      expect(await checkTriggers(db)).to.deep.equal([]);
    }
  });

  describe('repairTriggers', () => {
    const disabled = (table: string) =>
      db.raw('alter table ?? disable trigger user', [table]) as unknown as Promise<unknown>;

    it('repairs other definitions beside one of a dropped table, and returns its problem', async () => {
      await install('parent');
      await install('part');
      await db.raw('drop table parent cascade');
      await disabled('part');
      const left = await repairTriggers(db);
      expect(left.map(({ table, problem }) => `${table}: ${problem}`)).to.deep.equal([
        `${schemaOf(db)}.parent: table missing`,
      ]);
      expect(await checkTriggers(db)).to.deep.equal(left);
      await db.raw(`insert into part values (1, 1, 'a')`);
      expect(await takePaths(db)).to.deep.equal(['INSERT shop=1']);
      await removeTriggers(db, 'parent', { cache });
      expect(await repairTriggers(db)).to.deep.equal([]);
    });

    it('enables triggers whose columns are missing: they bump everything', async () => {
      await install('parent');
      await db.raw('alter table parent rename shop to store');
      await disabled('parent');
      expect((await repairTriggers(db)).map(({ problem }) => problem)).to.deep.equal(['column missing']);
      await db.raw('insert into parent values (1, 1)');
      expect(await takePaths(db)).to.deep.equal(['INSERT ']);
    });

    it('creates no trigger whose columns and function are missing', async () => {
      await install('parent');
      await db.raw('alter table parent rename shop to store');
      await db.raw(`do $$ declare f regprocedure; begin
        select tgfoid into f from pg_trigger where tgrelid = 'parent'::regclass limit 1;
        execute format('drop function %s cascade', f); end $$`);
      const before = await kinds();
      expect(before).to.include('function missing').and.include('trigger missing');
      expect((await repairTriggers(db)).map(({ problem }) => problem)).to.deep.equal(before);
    });
  });
});
