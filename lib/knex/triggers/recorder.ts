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
 * No loop over rows: each operation is one query on the transition tables. An UPDATE pairs old and new rows by the
 * primary key, so that rows that did not change record nothing; without one all rows count.
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
  if cardinality(gencache_paths) > 0 then
    ${insert}
    select ${cache}, path, null, null, ${cause}
    from unnest(gencache_paths) as path;
  end if;
  if cardinality(gencache_lookups) > 0 then
    ${insert}
    select ${cache}, '', lookup, args, ${cause}
    from unnest(gencache_lookups, gencache_images) as each (lookup, args);
  end if;
  return null;
end`;
}

/** `compared`: the columns that may tell that a row changed; null: all of them, though its image tells as well. */
function computed(recorder: Recorder, operation: RowOperation, compared: readonly string[] | null): string {
  const bumps = recorder.definition.bumps.map((bump, i) => ofBump(recorder, operation, compared, bump, i));
  return `
    if tg_op = '${operation.toUpperCase()}' then${bumps.join('')}
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

/** The statements that add what one bump has to say about one operation. */
function ofBump(
  recorder: Recorder,
  operation: RowOperation,
  compared: readonly string[] | null,
  bump: Bump,
  index: number,
): string {
  const { definition, table, at, level } = recorder;
  const columns = changedColumns(bump).map((name) => table.columns.get(name)!);
  const images = `
      with ${level === 'row' ? `${ROWS[operation]}, ` : ''}gencache_image as (
        ${imagesOf(recorder, operation, compared, columns)}
      )`;
  return bump.lookUp === null
    ? images + addPaths(definition, at, bump, columns)
    : images + addLookUps(definition, columns, lookUpName(definition, index));
}

/** The row of a row-level trigger, as if it were its statement's only one. */
const ROWS: Readonly<Record<RowOperation, string>> = {
  insert: 'gencache_new as (select new.*)',
  update: 'gencache_old as (select old.*), gencache_new as (select new.*)',
  delete: 'gencache_old as (select old.*)',
};

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
  const comparing = (compared ?? [...table.columns.keys()]).map((name) => table.columns.get(name)!);
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

/**
 * Above the limit only the ancestors are put together. They are at least one namespace shorter, since the paths differ;
 * all are of one length, so what the least and the greatest of them share, all share.
 */
function addPaths({ limit }: Definition, at: string, bump: Bump, columns: readonly Column[]): string {
  const path = (ids: Bump['ids']) =>
    pathOf({ ...bump, ids }, at, ({ column: name }) => {
      const i = columns.findIndex((column) => column.name === name);
      return { reference: `c${i + 1}`, column: columns[i]! };
    });
  const above = bump.ids.slice(0, -1);
  const ancestor =
    above.length === 0
      ? `''`
      : `(select ${at}gencache_common_ancestor(min(above collate "C"), max(above collate "C"))
            from (select ${path(above)} as above from gencache_image) as named)`;
  return `
      select case
        when (select count(*) from (select from gencache_image limit ${limit + 1}) as counted) > ${limit}
          then array[${ancestor}]
        else array(select ${path(bump.ids)} from gencache_image)
      end
      into gencache_some;
      gencache_paths := gencache_paths || gencache_some;`;
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
