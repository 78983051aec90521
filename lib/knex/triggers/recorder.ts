import { quoted } from '../outbox/place.js';
import type { Column, Table } from './catalog.js';
import { type Bump, changedColumns, type Definition, type RowOperation, watchedColumns } from './definition.js';
import { lookUpName } from './look-up.js';
import { idValue, pathOf } from './path.js';
import { literal } from './sql.js';

/** Where a recorder finds what changed: in a statement's transition tables, or in the row of a row-level trigger. */
export type Level = 'statement' | 'row';

/** What the functions of one definition are written from. */
interface Recorder {
  readonly definition: Definition;
  readonly table: Table;
  /** Qualifies the outbox. */
  readonly at: string;
  readonly level: Level;
}

/** How many images of rows one event carries. */
const PACK = 100;

/**
 * Writes the body of the PL/pgSQL function that records what a statement changed (ladder step 3).
 *
 *     off?        `set gencache.events = 'off'`: nothing
 *     TRUNCATE    one event, for the path that the definition names
 *     compute     the rows that changed -> their distinct ids, old and new -> paths, or images of rows to look up
 *     record      an event for each path, or for their nearest common ancestor; one for each 100 images
 *
 * No loop over rows: each operation is one query on the transition tables, a short one for a single row. An UPDATE of
 * more pairs old and new rows by the primary key, so that rows that did not change record nothing; without one all count.
 * One of more than a thousand rows looks at the first before all.
 *
 * **Invariant.** A statement that changed a row commits with events that cover every scope its old and its new row
 * name, or does not commit. Computing happens in a block of its own, whose failure (a column was renamed) records one
 * global event instead of breaking the write; the block writes nothing, so PostgreSQL assigns it no subtransaction
 * id. Recording happens outside of it.
 *
 * A full join can't be planned as a nested loop, whatever number of rows the cached plan was made for.
 */
export function recorderSource(definition: Definition, table: Table, at: string, level: Level): string {
  const recorder: Recorder = { definition, table, at, level };
  const cache = literal(definition.cache);
  const insert = `insert into ${at}gencache_outbox (cache, path, lookup, args, source, operation)`;
  const cause = `format('%I.%I', tg_table_schema, tg_table_name), tg_op`;
  const watched = watchedColumns(definition);
  return `
declare
  gencache_many boolean;
  gencache_count bigint;
  gencache_some text[];
  gencache_paths text[] := '{}';
  gencache_lookups text[] := '{}';
  gencache_packs jsonb[];
  gencache_images jsonb[] := '{}';
  gencache_error text;
begin
  if current_setting('gencache.events', true) = 'off' then
    return null;
  end if;
  if tg_op = 'TRUNCATE' then
    ${insert}
    values (${cache}, ${literal(definition.truncate)}, null, null, ${cause});
    return null;
  end if;
  begin${definition.operations.map((operation) => computed(recorder, operation, watched)).join('')}
  exception ${watched === null && definition.operations.includes('update') ? comparingImagesOnly(recorder) : ''}when others then
    gencache_error := sqlstate || ': ' || sqlerrm;
  end;
  if gencache_error is not null then
    ${insert}
    values (${cache}, '', null, jsonb_build_object('error', gencache_error), ${cause});
    return null;
  end if;
  if cardinality(gencache_paths) = 1 then
    ${insert}
    values (${cache}, gencache_paths[1], null, null, ${cause});
  elsif cardinality(gencache_paths) > 1 then
    ${insert}
    select ${cache}, path, null, null, ${cause}
    from unnest(gencache_paths) as path;
  end if;
  if cardinality(gencache_lookups) = 1 then
    ${insert}
    values (${cache}, '', gencache_lookups[1], gencache_images[1], ${cause});
  elsif cardinality(gencache_lookups) > 1 then
    ${insert}
    select ${cache}, '', lookup, args, ${cause}
    from unnest(gencache_lookups, gencache_images) as each (lookup, args);
  end if;
  return null;
end`;
}

/** `compared`: the columns that may tell that a row changed; null: all of them, though its image tells as well. */
function computed(recorder: Recorder, operation: RowOperation, compared: readonly string[] | null): string {
  const { definition, level } = recorder;
  const [first, ...more] = SIDES[operation].map((side) => `exists (select from ${side})`);
  const any = [first, ...more].join(' or ');
  const bumps = definition.bumps.map((bump, i) => ofBump(recorder, operation, compared, bump, i));
  return `
    if tg_op = '${operation.toUpperCase()}' then${ofOneRow(recorder, operation, compared)}${
      level === 'row'
        ? ''
        : `
      if gencache_many is null then
        gencache_many := ${any};
      end if;
      if gencache_many then
        gencache_paths := '{}';
        gencache_lookups := '{}';
        gencache_images := '{}';${bumps.join('')}
      end if;`
    }
    end if;`;
}

/**
 * For an UPDATE where a column is gone by now that only the comparison names: images tell as well which rows changed,
 * and take twice as long. Without this, each UPDATE after an innocent DROP COLUMN would be a global event.
 */
function comparingImagesOnly(recorder: Recorder): string {
  return `when undefined_column then
    gencache_paths := '{}';
    gencache_lookups := '{}';
    gencache_images := '{}';
    if tg_op <> 'UPDATE' then
      gencache_error := sqlstate || ': ' || sqlerrm;
    end if;
    begin${computed(recorder, 'update', [])}
    exception when others then
      gencache_error := sqlstate || ': ' || sqlerrm;
    end;
  `;
}

/** Where the images are that an operation has. */
const SIDES = {
  insert: ['gencache_new'],
  update: ['gencache_old', 'gencache_new'],
  delete: ['gencache_old'],
} as const;

/**
 * What all bumps have to say about a row that is its statement's only one, which most are: its old and its new image are
 * one row, whatever its key, so that nothing needs pairing or sorting out. In one query, since for a single row starting
 * an executor is most of the cost. `gencache_many` tells that there are more, null that one side, or both, have none.
 * Its two scopes are two whatever the limit.
 */
function ofOneRow(recorder: Recorder, operation: RowOperation, compared: readonly string[] | null): string {
  const { definition, table, level } = recorder;
  const sides = SIDES[operation];
  const named = definition.bumps.map((bump, i) => ({ bump, i, ids: changedColumns(bump) }));
  /** What `each` makes of the row's images: of both where they differ in these columns. */
  const images = (ids: readonly string[], each: (side: string) => string, list: (items: string) => string) => {
    const [side, other] = sides.map(each);
    if (other === undefined || ids.length === 0) return list(side!);
    const row = (of: string) =>
      `row(${ids.map((id) => idValue(`${of}.${quoted(id)}`, table.columns.get(id)!)).join(', ')})`;
    return (
      `case when ${row('gencache_old')} is distinct from ${row('gencache_new')} ` +
      `then ${list(`${side}, ${other}`)} else ${list(side!)} end`
    );
  };
  const paths = named
    .filter(({ bump }) => bump.lookUp === null)
    .map(({ bump, ids }) =>
      images(
        ids,
        (side) => pathIn(recorder, bump, side),
        (items) => `array[${items}]`,
      ),
    );
  const lookUps = named.filter(({ bump }) => bump.lookUp !== null);
  const packs = lookUps.map(({ ids }) =>
    images(
      ids,
      (side) => imageIn(ids, side),
      (items) => `jsonb_build_array(${items})`,
    ),
  );
  const names = lookUps.map(({ i }) => literal(lookUpName(definition, i)));
  const targets: [variable: string, value: string][] = [];
  if (paths.length > 0) targets.push(['gencache_paths', paths.join(' || ')]);
  if (packs.length > 0) {
    targets.push(['gencache_lookups', `array[${names.join(', ')}]`], ['gencache_images', `array[${packs.join(', ')}]`]);
  }
  const test =
    operation === 'update' ? differs(columnsOf(table, compared ?? []), definition.columns === null) : undefined;
  const values = targets.map(([, value]) =>
    test === undefined ? value : `case when ${test} then ${value} else '{}' end`,
  );
  // Reads two rows at most, of pairs of all with all.
  const many = 'lead(true, 1, false) over ()';
  const from = sides.map((side) => (level === 'row' ? `(select ${side.slice(-3)}.*) as ${side}` : side)).join(', ');
  return `
      select ${[...(level === 'row' ? [] : [many]), ...values].join(`,
        `)}
      into ${[...(level === 'row' ? [] : ['gencache_many']), ...targets.map(([variable]) => variable)].join(', ')}
      from ${from} limit 1;`;
}

function pathIn({ table, at }: Recorder, bump: Bump, side: string): string {
  return pathOf(bump, at, ({ column: name }) => {
    const column = table.columns.get(name)!;
    return { reference: `(${idValue(`${side}.${quoted(name)}`, column)})`, column };
  });
}

/** As text: a bigint as a number would lose digits on its way through JavaScript. */
function imageIn(ids: readonly string[], side: string): string {
  return `jsonb_build_object(${ids.map((id) => `${literal(id)}, ${side}.${quoted(id)}::text`).join(', ')})`;
}

function columnsOf(table: Table, names: readonly string[]): Column[] {
  return names.map((name) => table.columns.get(name)!);
}

/** The statements that add what one bump has to say about one operation's rows. */
function ofBump(
  recorder: Recorder,
  operation: RowOperation,
  compared: readonly string[] | null,
  bump: Bump,
  index: number,
): string {
  const { definition, table, at } = recorder;
  const columns = columnsOf(table, changedColumns(bump));
  const images = `
      with gencache_image as (
        ${imagesOf(recorder, operation, compared, columns)}
      )`;
  if (bump.lookUp !== null) return images + addLookUps(definition, columns, lookUpName(definition, index));
  const paths = `${images}${addPaths(definition, at, bump, columns)}
      into gencache_some;`;
  const add = `
      gencache_paths := gencache_paths || gencache_some;`;
  if (operation !== 'update' || table.primaryKey.length === 0) return paths + add;
  return `${ofFirstRows(recorder, compared, bump, columns)}
      if gencache_some is null then${paths}
      end if;${add}`;
}

/** Of so many rows at least the first are looked at before all. */
const FIRST = 1_000;
/** Rows are compared with so many scopes one by one, which takes as long as hashing them. */
const FEW = 32;

/**
 * What a long UPDATE's first rows tell is often all: that there are too many scopes, or that no row, changed or not,
 * names any but those that changed there. Else null. Old and new rows come in the same order, so their first
 * are the same rows; where they are not, pairs are missing, and nothing is told. Pairing 10,000 rows took 8 ms for 20
 * scopes and 14 ms for 10,000; this takes 3 ms and 1 ms (PostgreSQL 15, 2 cores, 2026-11).
 */
function ofFirstRows(
  recorder: Recorder,
  compared: readonly string[] | null,
  bump: Bump,
  columns: readonly Column[],
): string {
  const { definition, table, at } = recorder;
  const first = Math.min(definition.limit, FIRST) + 1;
  const sides = SIDES.update.map((side) => `(select * from ${side} limit ${first}) as ${side}`);
  const pairs = table.primaryKey.map((name) => sameKey(table.columns.get(name)!)).join(' and ');
  const comparing = columnsOf(table, compared ?? [...table.columns.keys()]);
  const values = (side: string, letter: string) =>
    columns.map((column, i) => `${idValue(`${side}.${quoted(column.name)}`, column)} as ${letter}${i + 1}`);
  const list = (letter: string) => ['1 as c0', ...columns.map((_, i) => `${letter}${i + 1} as c${i + 1}`)].join(', ');
  const images = '(select count(*) from gencache_image)';
  const settled = [
    columns.length === 0
      ? `when ${images} > 0 then array['']`
      : `when ${images} > ${definition.limit} and ${ancestorOf(at, bump, columns)} = '' then array['']`,
  ];
  if (columns.length === 1) {
    const others = SIDES.update.map((side) => {
      const value = idValue(`${side}.${quoted(columns[0]!.name)}`, columns[0]!);
      return `not exists (select from ${side} where (${value} = any(array(select c1 from gencache_image))) is not true)`;
    });
    settled.push(
      `when ${images} between 1 and ${Math.min(FEW, definition.limit)}
          and ${others.join(`
          and `)}
          then array(select ${imagePath(at, bump.ids, bump, columns)} from gencache_image)`,
    );
  }
  return `
      gencache_some := null;
      if exists (select from gencache_new offset ${first}) then
        with gencache_pair as materialized (
          select distinct ${['1 as c0', ...values('gencache_old', 'o'), ...values('gencache_new', 'n')].join(', ')}
          from ${sides.join(` join `)} on ${pairs}
          where ${differs(comparing, definition.columns === null)}
        ), gencache_image as materialized (
          select ${list('o')} from gencache_pair union select ${list('n')} from gencache_pair
        )
        select case
          ${settled.join(`
          `)}
        end
        into gencache_some;
      end if;`;
}

/** A query for `c1, c2, ...`: the distinct values of these columns in the rows that changed, old and new. */
function imagesOf(
  { definition, table }: Recorder,
  operation: RowOperation,
  compared: readonly string[] | null,
  columns: readonly Column[],
): string {
  const values = (side: string, letter: string) =>
    columns.map((column, i) => `${idValue(`${side}.${quoted(column.name)}`, column)} as ${letter}${i + 1}`);
  // A constant stands in front, since a bump of global names no column.
  const all = (side: string) => `select distinct ${['1 as c0', ...values(side, 'c')].join(', ')} from ${side}`;
  if (operation === 'insert') return all('gencache_new');
  if (operation === 'delete') return all('gencache_old');
  const [key] = table.primaryKey.map(quoted);
  if (key === undefined) return `${all('gencache_old')} union ${all('gencache_new')}`;

  const list = (letter: string) => columns.map((_, i) => `${letter}${i + 1}`);
  const row = (letter: string) => `row(${list(letter).join(', ')})`;
  const side = (letter: string) => ['1 as c0', ...list(letter).map((each, i) => `${each} as c${i + 1}`)].join(', ');
  const pairs = table.primaryKey.map((name) => sameKey(table.columns.get(name)!)).join(' and ');
  const comparing = columnsOf(table, compared ?? [...table.columns.keys()]);
  return `select distinct ${['c0', ...list('c')].join(', ')}
        from (
          with gencache_pair as materialized (
            select distinct ${[absent(key), ...values('gencache_old', 'o'), ...values('gencache_new', 'n')].join(', ')}
            from gencache_old full join gencache_new on ${pairs}
            where ${differs(comparing, definition.columns === null)}
          )
          select ${side('o')} from gencache_pair where absent >= 0
          union all
          select ${side('n')} from gencache_pair
          where absent < 0 or absent = 0 and ${columns.length === 0 ? 'false' : `${row('o')} is distinct from ${row('n')}`}
        ) as sides`;
}

/**
 * Which side is absent, of a row that found none by its key: -1 the old, 1 the new, 0 neither. Neither is said, too,
 * where what was the primary key holds null by now.
 */
function absent(key: string): string {
  const [old, renewed] = [`gencache_old.${key}`, `gencache_new.${key}`];
  return (
    `case when ${old} is null and ${renewed} is not null then -1 ` +
    `when ${renewed} is null and ${old} is not null then 1 else 0 end as absent`
  );
}

function sameKey(column: Column): string {
  const [old, renewed] = ['gencache_old', 'gencache_new'].map((side) => `${side}.${quoted(column.name)}`);
  // The equality of a type that lives elsewhere is not on the function's search_path.
  return column.native ? `${old} = ${renewed}` : `${old}::text collate "C" = ${renewed}::text collate "C"`;
}

/**
 * Whether an UPDATE changed a row. By `is distinct from` where equal means equal to the byte, else by image, which every
 * type has (json has no `=`, 1.0 equals 1.00). Images take twice as long and come last: most rows need none. `entirely`
 * ends with that of all columns, also of those that were added later. As `row(t.*)`, put together where it is compared:
 * `t.*` would be for each row, before the join.
 */
function differs(columns: readonly Column[], entirely: boolean): string {
  const side = (name: string, { name: column }: Column) => `gencache_${name}.${quoted(column)}`;
  const others = columns.filter((column) => !column.exact);
  const row = (name: string) => `row(${others.map((column) => side(name, column)).join(', ')})`;
  const tests = columns
    .filter((column) => column.exact)
    .map((column) => `${side('old', column)} is distinct from ${side('new', column)}`);
  if (entirely) tests.push('record_image_eq(row(gencache_old.*), row(gencache_new.*)) is not true');
  else if (others.length > 0) tests.push(`record_image_eq(${row('old')}, ${row('new')}) is not true`);
  return tests.join(' or ');
}

function addPaths({ limit }: Definition, at: string, bump: Bump, columns: readonly Column[]): string {
  return `
      select case
        when (select count(*) from (select from gencache_image limit ${limit + 1}) as counted) > ${limit}
          then array[${ancestorOf(at, bump, columns)}]
        else array(select ${imagePath(at, bump.ids, bump, columns)} from gencache_image)
      end`;
}

/**
 * Of several images. Only the ancestors are put together: they are at least one namespace shorter, since the paths
 * differ; all are of one length, so what the least and the greatest of them share, all share.
 */
function ancestorOf(at: string, bump: Bump, columns: readonly Column[]): string {
  const above = bump.ids.slice(0, -1);
  if (above.length === 0) return `''`;
  return `(select ${at}gencache_common_ancestor(min(above collate "C"), max(above collate "C"))
            from (select ${imagePath(at, above, bump, columns)} as above from gencache_image) as named)`;
}

function imagePath(at: string, ids: Bump['ids'], bump: Bump, columns: readonly Column[]): string {
  return pathOf({ ...bump, ids }, at, ({ column: name }) => {
    const i = columns.findIndex((column) => column.name === name);
    return { reference: `c${i + 1}`, column: columns[i]! };
  });
}

function addLookUps({ limit }: Definition, columns: readonly Column[], lookUp: string): string {
  // As text: a bigint as a number would lose digits on its way through JavaScript.
  const image = columns.map(({ name }, i) => `${literal(name)}, c${i + 1}::text`).join(', ');
  return `
      select (select count(*) from gencache_image), array(
        select jsonb_agg(jsonb_build_object(${image}))
        from (select *, row_number() over () - 1 as place from gencache_image limit ${limit}) as placed
        group by place / ${PACK}
      )
      into gencache_count, gencache_packs;
      if gencache_count > ${limit} then
        gencache_paths := array_append(gencache_paths, '');
      else
        gencache_lookups := gencache_lookups || array_fill(${literal(lookUp)}::text, array[cardinality(gencache_packs)]);
        gencache_images := gencache_images || gencache_packs;
      end if;`;
}
