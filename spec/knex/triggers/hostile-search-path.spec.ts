import { expect } from 'chai';
import type { Knex } from 'knex';
import { onChangeOf } from '../../../lib/knex/triggers/on-change.js';
import { schemaOf } from '../../support/postgres.js';
import { lendOutbox } from '../../support/relay.js';
import { CACHE as cache, takeEvents } from './support.js';

/**
 * A schema with an operator, a function and a type of the writer's for each built-in one that a statement without schemas
 * could reach. Each use of one fails, and moves a sequence, which no rollback takes back. Polymorphic ones and those of
 * pseudo-types are made where PL/pgSQL can have them.
 */
const decoysIn = (schema: string) => {
  const body = `language plpgsql as $f$ begin perform pg_catalog.nextval('${schema}.uses'); raise 'fooled'; end $f$`;
  return `
  create sequence uses;
  do $do$
  declare
    each record;
    procedure text;
    made int := 0;
    body text := $body$${body}$body$;
  begin
    for each in
      select oprname as name, oprleft::regtype as "left", oprright::regtype as "right", oprresult::regtype as result
      from pg_operator
      where oprnamespace = 'pg_catalog'::regnamespace and oprleft <> 0
        and (oprleft in ('text'::regtype, 'int8'::regtype, 'int4'::regtype, 'bool'::regtype, 'uuid'::regtype, 'name'::regtype,
          'anyarray'::regtype, 'anycompatible'::regtype, 'anycompatiblearray'::regtype, 'record'::regtype, 'jsonb'::regtype, 'oid'::regtype,
          'anyenum'::regtype, 'anynonarray'::regtype))
    loop
      begin
        procedure := 'decoy_' || made;
        execute format('create function %I(%s, %s) returns %s ' || body,
          procedure, each."left", each."right", each.result);
        execute format('create operator %s (leftarg = %s, rightarg = %s, function = %I)',
          each.name, each."left", each."right", procedure);
        made := made + 1;
      exception when others then null;
      end;
    end loop;
    for each in
      select proname as name, pg_get_function_identity_arguments(oid) as arguments, prorettype::regtype as result, proretset
      from pg_proc
      where pronamespace = 'pg_catalog'::regnamespace and prokind = 'f'
        and proname in ('array_append', 'array_position', 'array_to_string', 'cardinality', 'convert_to', 'current_setting',
          'format', 'jsonb_build_array', 'jsonb_build_object', 'record_image_eq', 'row_security_active', 'set_config',
          'string_to_array', 'text', 'unnest', 'concat', 'min', 'max', 'count')
    loop
      begin
        execute format('create function %I(%s) returns %s %s ' || body,
          each.name, each.arguments, case when each.proretset then 'setof' else '' end, each.result);
        made := made + 1;
      exception when others then null;
      end;
    end loop;
    perform set_config('decoys.made', made::text, false);
  end $do$;
  create or replace function format(text, name, name) returns text ${body};
  create or replace function jsonb_build_object(text, text) returns jsonb ${body};
  create or replace function jsonb_build_array(jsonb) returns jsonb ${body};
  create or replace function cardinality(text[]) returns int ${body};
  create or replace function unnest(text[]) returns setof text ${body};
  create or replace function array_position(text[], text) returns int ${body};
  create domain text as pg_catalog.text check (false);
  create domain jsonb as pg_catalog.jsonb check (false);
  create domain regclass as pg_catalog.regclass check (false)`;
};

describe('the functions of triggers', () => {
  let db: Knex;
  let role: string;
  let decoys: string;
  let schema: string;

  beforeEach(async () => {
    db = await lendOutbox();
    schema = schemaOf(db);
    role = `writer_${schema}`;
    decoys = `decoys_${schema}`;
    await db.raw(`
      create type colour as enum ('red', 'light green');
      create table item (id int primary key, shop bigint, shelf text, colour colour, code uuid, name text);
      create table link (id int primary key, item int, note text);
      create role ${role};
      grant usage on schema ${schema} to ${role};
      grant all on item, link to ${role};
      create schema ${decoys} authorization ${role}`);
    await db.transaction(async (trx) => {
      await trx.raw(`set local role ${role}; set local search_path = ${decoys}`);
      await trx.raw(decoysIn(decoys));
      const { rows } = await trx.raw<{ rows: { made: string }[] }>(`select current_setting('decoys.made') as made`);
      expect(Number(rows[0]!.made)).to.be.above(150);
    });
  });

  afterEach(() => db.raw(`drop owned by ${role} cascade; drop role ${role}`));

  async function uses(): Promise<number> {
    const { rows } = await db.raw<{ rows: { uses: string }[] }>(
      `select case when is_called then last_value else 0 end as uses from ${decoys}.uses`,
    );
    return Number(rows[0]!.uses);
  }

  /** Runs statements as the writer, whose own operators, functions and types come before the built-in ones. */
  async function write(...statements: readonly string[]): Promise<string[]> {
    await db.transaction(async (trx) => {
      await trx.raw(`set local role ${role}`);
      for (const statement of statements) {
        await trx.raw(`set local search_path = ${decoys}, pg_catalog, pg_temp`);
        await trx.raw(statement);
        const { rows } = await trx.raw<{ rows: { path: string }[] }>(
          `select pg_catalog.current_setting('search_path') as path`,
        );
        expect(rows[0]!.path).to.equal(`${decoys}, pg_catalog, pg_temp`);
      }
    });
    expect(await uses(), 'uses of a decoy').to.equal(0);
    const events = await takeEvents(db);
    expect(
      events.filter(({ args }) => args !== null && !Array.isArray(args)),
      'failures',
    ).to.deep.equal([]);
    return events.map(({ operation, path, args }) => `${operation} ${args === null ? path : JSON.stringify(args)}`);
  }

  it('are fooled by decoys that the plain statements of a writer meet', async () => {
    let message = '';
    await db
      .transaction(async (trx) => {
        await trx.raw(`set local search_path = ${decoys}, pg_catalog`);
        await trx.raw(`select 'a'::pg_catalog.text || 'b'::pg_catalog.text`);
      })
      .catch((error: Error) => (message = error.message));
    expect(message).to.include('fooled');
    expect(await uses()).to.equal(1);
  });

  for (const [what, columns] of [
    ['all columns', undefined],
    ['some columns', ['shop', 'name']],
  ] as const) {
    it(`use no operator, function or type of a writer, with its search path in force (${what})`, async () => {
      await onChangeOf(db, 'item', { cache, ...(columns && { columns }) })
        .bump({ shop: 'shop' })
        .bump({ shelf: 'shelf', colour: 'colour' })
        .bump({ code: 'code' })
        .install();
      const own = `${schema}.item`;
      const code = '00000000-0000-4000-8000-000000000001';
      expect(await write(`insert into ${own} values (1, 7, 'top', 'red', '${code}', 'a')`), 'one row').to.deep.equal([
        'INSERT shop=7',
        'INSERT shelf=top/colour=red',
        `INSERT code=${code}`,
      ]);
      expect(
        await write(`insert into ${own} values (2, 8, 'a b', 'light green', null, 'b')`),
        'one row with a strange id',
      ).to.have.members(['INSERT shop=8', 'INSERT shelf=a%20b/colour=light%20green', 'INSERT code=~']);
      expect(
        await write(`insert into ${own} values (3, 7, 'top', 'red', null, 'c'), (4, 7, 'low', 'red', null, 'd')`),
        'two rows',
      ).to.have.members([
        ...['INSERT shop=7', 'INSERT shelf=top/colour=red', 'INSERT shelf=low/colour=red', 'INSERT code=~'],
      ]);
      expect(await write(`update ${own} set name = 'z', shop = 9 where id operator(pg_catalog.=) 1`)).to.have.members([
        ...['UPDATE shop=7', 'UPDATE shop=9', 'UPDATE shelf=top/colour=red', `UPDATE code=${code}`],
      ]);
      expect(await write(`update ${own} set name = name`), 'rows that do not change').to.deep.equal([]);
      expect(await write(`update ${own} set name = 'y' where id operator(pg_catalog.=) 1000`)).to.deep.equal([]);
      expect(await write(`update ${own} set name = 'y' where id operator(pg_catalog.>) 2`)).to.have.members([
        ...['UPDATE shop=7', 'UPDATE shelf=top/colour=red', 'UPDATE shelf=low/colour=red', 'UPDATE code=~'],
      ]);
      expect(await write(`delete from ${own} where id operator(pg_catalog.=) 2`)).to.have.members([
        ...['DELETE shop=8', 'DELETE shelf=a%20b/colour=light%20green', 'DELETE code=~'],
      ]);
      expect(await write(`delete from ${own}`))
        .to.include('DELETE shop=9')
        .and.have.length(6);
      expect(await write(`truncate ${own}`)).to.deep.equal(['TRUNCATE ']);
    });
  }

  it('use none for the usual write of one row', async () => {
    await onChangeOf(db, 'link', { cache }).bump({ item: 'item' }).install();
    await onChangeOf(db, 'item', { cache, columns: ['shop', 'name'] })
      .bump({ shop: 'shop', shelf: 'shelf' })
      .lookUp('link', { id: 'id' })
      .bump({ item: 'item' })
      .install();
    const own = `${schema}.item`;
    expect(await write(`insert into ${own} values (1, 7, 'top', 'red', null, 'a')`)).to.deep.equal([
      ...['INSERT shop=7/shelf=top', 'INSERT [{"id":"1"}]'],
    ]);
    expect(await write(`update ${own} set name = 'z'`)).to.deep.equal([
      ...['UPDATE shop=7/shelf=top', 'UPDATE [{"id":"1"}]'],
    ]);
    expect(await write(`delete from ${own}`)).to.deep.equal(['DELETE shop=7/shelf=top', 'DELETE [{"id":"1"}]']);
  });

  it('use none where rows are looked up, and where a failure is recorded', async () => {
    await onChangeOf(db, 'item', { cache }).bump({ shop: 'shop' }).install();
    await onChangeOf(db, 'link', { cache })
      .lookUp('item', { id: 'item' })
      .bump({ shop: 'shop' })
      .lookUp('item', { name: 'note' })
      .bump({ shop: 'shop' })
      .install();
    expect(await write(`insert into ${schema}.link values (1, 5, 'a')`)).to.deep.equal([
      ...[`INSERT [{"item":"5"}]`, `INSERT [{"note":"a"}]`],
    ]);
    expect(await write(`insert into ${schema}.link values (2, 5, 'a'), (3, 6, 'b')`)).to.have.length(2);
    const many = Array.from({ length: 150 }, (_, i) => `(${i + 10}, ${i}, 'x${i}')`).join(', ');
    expect(await write(`insert into ${schema}.link values ${many}`), '150 images for each lookup').to.have.length(4);
    expect(await write(`update ${schema}.link set item = 6 where id operator(pg_catalog.=) 1`)).to.deep.equal([
      ...[`UPDATE [{"item":"5"},{"item":"6"}]`, `UPDATE [{"note":"a"}]`],
    ]);
    await db.raw('alter table item rename shop to store');
    await db.transaction(async (trx) => {
      await trx.raw(`set local role ${role}; set local search_path = ${decoys}, pg_catalog`);
      await trx.raw(`insert into ${schema}.item values (9, 7, 'top', 'red', null, 'a')`);
    });
    const [event, ...more] = await takeEvents(db);
    expect(more).to.deep.equal([]);
    expect(event).to.include({ path: '', operation: 'INSERT' });
    expect(event!.args).to.deep.equal({ error: '42703: column gencache_new.shop does not exist' });
  });
});
