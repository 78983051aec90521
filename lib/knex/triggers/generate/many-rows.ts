import { quoted } from '../../postgres/identifiers.js';
import type { Column } from '../../postgres/catalog.js';
import {
  type TriggerBump,
  changedColumns,
  idColumn,
  type TriggerDefinition,
  type RowOperation,
} from '../trigger-definition.js';
import { lookupFunctionName } from './lookup-function.js';
import { escapeOf, idValue, pathOf } from './path-sql.js';
import {
  absentSide,
  columnsOf,
  columnValue,
  conditionOf,
  columnsToCompare,
  rowChanged,
  type RecorderInput,
  sameKey,
  TRANSITION_ALIASES,
} from './rows.js';
import { literal } from '../../postgres/sql-text.js';

/** Images of rows in one event. */
const PACK = 100;

/** SQL that adds the paths, or the images to look up, of one bump for one operation's rows. */
export function manyRowsSource(
  recorder: RecorderInput,
  operation: RowOperation,
  compared: readonly string[] | null,
  index: number,
): string {
  const { definition, table, at } = recorder;
  const bump = definition.bumps[index]!;
  const columns = columnsOf(table, changedColumns(bump));
  const images = `
      with gencache_image as (
        ${imagesOf(recorder, operation, compared, bump, columns)}
      )`;
  if (bump.lookUp !== null) return images + addLookups(definition, columns, lookupFunctionName(definition, index));
  const paths = `${images}${addPaths(definition, at, bump, columns)}
      into gencache_some;`;
  const add = `
      gencache_paths := gencache_paths || gencache_some;`;
  if (operation !== 'update' || table.primaryKey.length === 0 || bump.when !== undefined) return paths + add;
  const first = Math.min(definition.limit, FIRST) + 1;
  const sizes = columns.length === 1 && first > FIRST_OF_FEW ? [FIRST_OF_FEW, first] : [first];
  const ifNone = (attempt: string) => `
      if gencache_some is null then${attempt}
      end if;`;
  return `
      gencache_some := null;
      if exists (select from gencache_new offset ${first}) then${sizes.map((size) => ifNone(ofFirstRows(recorder, compared, bump, columns, size))).join('')}
      end if;${ifNone(paths)}${add}`;
}

/** Of more rows than this, the first are read before all. */
const FIRST = 1_000;
/** Before these, so many: enough to show a few scopes, in a tenth of the time. */
const FIRST_OF_FEW = 100;
/** Up to so many scopes, a comparison one by one takes as long as a hash. */
const FEW = 32;

/**
 * SQL that derives the paths of a long UPDATE from its `first` rows where these are enough: they show too many scopes already,
 * or no other row, changed or not, names a scope beyond those of the first changed rows. Otherwise it yields null. Old and
 * new rows come in the same order, so the first ones are the same rows; where they are not, pairs are missing, and it
 * yields null. Pairing 10,000 rows took 8 ms for 20 scopes and 14 ms for 10,000; this takes 3 ms and 1 ms (PostgreSQL 15,
 * 2 cores, 2026-11).
 */
function ofFirstRows(
  recorder: RecorderInput,
  compared: readonly string[] | null,
  bump: TriggerBump,
  columns: readonly Column[],
  first: number,
): string {
  const { definition, table, at } = recorder;
  const sides = TRANSITION_ALIASES.update.map((side) => `(select * from ${side} limit ${first}) as ${side}`);
  const pairs = table.primaryKey.map((name) => sameKey(table.columns.get(name)!)).join(' and ');
  const comparing = columnsToCompare(recorder, compared);
  const values = (side: string, letter: string) =>
    columns.map((column, i) => `${idValue(columnValue(side, column), column)} as ${letter}${i + 1}`);
  const list = (letter: string) => ['1 as c0', ...columns.map((_, i) => `${letter}${i + 1} as c${i + 1}`)].join(', ');
  const images = '(select count(*) from gencache_image)';
  const settled = [
    columns.length === 0
      ? `when ${images} > 0 then array['']`
      : `when ${images} > ${definition.limit} and ${ancestorOf(at, bump, columns)} = '' then array['']`,
  ];
  if (columns.length === 1) {
    const others = TRANSITION_ALIASES.update.map((side) => {
      const value = idValue(columnValue(side, columns[0]!), columns[0]!);
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
        with gencache_pair as materialized (
          select distinct ${['1 as c0', ...values('gencache_old', 'o'), ...values('gencache_new', 'n')].join(', ')}
          from ${sides.join(` join `)} on ${pairs}
          where ${rowChanged(comparing, definition.columns === null)}
        ), gencache_image as materialized (
          select ${list('o')} from gencache_pair union select ${list('n')} from gencache_pair
        )
        select case
          ${settled.join(`
          `)}
        end
        into gencache_some;`;
}

/** A query for `c1, c2, ...`: the distinct values of these columns in the changed rows, old and new. */
function imagesOf(
  recorder: RecorderInput,
  operation: RowOperation,
  compared: readonly string[] | null,
  bump: TriggerBump,
  columns: readonly Column[],
): string {
  const { definition, table } = recorder;
  const where = (...sides: string[]) => conditionOf(table, bump, sides);
  const values = (side: string, letter: string) =>
    columns.map((column, i) => `${idValue(columnValue(side, column), column)} as ${letter}${i + 1}`);
  // The constant comes first, since a global bump names no column.
  const all = (side: string) =>
    `select distinct ${['1 as c0', ...values(side, 'c')].join(', ')} from ${side}${
      bump.when === undefined ? '' : ` where ${where(side)!}`
    }`;
  if (operation === 'insert') return all('gencache_new');
  if (operation === 'delete') return all('gencache_old');
  const [key] = table.primaryKey.map(quoted);
  if (key === undefined) return `${all('gencache_old')} union ${all('gencache_new')}`;

  const list = (letter: string) => columns.map((_, i) => `${letter}${i + 1}`);
  const row = (letter: string) => `row(${list(letter).join(', ')})`;
  const side = (letter: string) => ['1 as c0', ...list(letter).map((each, i) => `${each} as c${i + 1}`)].join(', ');
  const pairs = table.primaryKey.map((name) => sameKey(table.columns.get(name)!)).join(' and ');
  const comparing = columnsToCompare(recorder, compared);
  return `select distinct ${['c0', ...list('c')].join(', ')}
        from (
          with gencache_pair as materialized (
            select distinct ${[absentSide(key), ...values('gencache_old', 'o'), ...values('gencache_new', 'n')].join(', ')}
            from gencache_old full join gencache_new on ${pairs}
            where ${
              bump.when === undefined
                ? rowChanged(comparing, definition.columns === null)
                : `(${rowChanged(comparing, definition.columns === null)}) and ${where(...TRANSITION_ALIASES.update)!}`
            }
          )
          select ${side('o')} from gencache_pair where absent >= 0
          union all
          select ${side('n')} from gencache_pair
          where absent < 0 or absent = 0 and ${columns.length === 0 ? 'false' : `${row('o')} is distinct from ${row('n')}`}
        ) as sides`;
}

function addPaths({ limit }: TriggerDefinition, at: string, bump: TriggerBump, columns: readonly Column[]): string {
  return `
      select case
        when (select count(*) from (select from gencache_image limit ${limit + 1}) as counted) > ${limit}
          then array[${ancestorOf(at, bump, columns)}]
        else array(select ${imagePath(at, bump.ids, bump, columns)} from gencache_image)
      end`;
}

/**
 * SQL for the nearest common ancestor of several images. The paths differ, so the ancestor is at least one namespace shorter;
 * all paths have the same number of namespaces, so the part that the least and the greatest share is common to all.
 */
function ancestorOf(at: string, bump: TriggerBump, columns: readonly Column[]): string {
  const above = bump.ids.slice(0, -1);
  if (above.length === 0) return `''`;
  return `(select ${at}gencache_common_ancestor(min(above collate "C"), max(above collate "C"))
            from (select ${imagePath(at, above, bump, columns)} as above from gencache_image) as named)`;
}

function imagePath(at: string, ids: TriggerBump['ids'], bump: TriggerBump, columns: readonly Column[]): string {
  return pathOf(
    { ...bump, ids },
    (id) => {
      const name = idColumn(id);
      const i = columns.findIndex((column) => column.name === name);
      return { reference: `c${i + 1}`, column: columns[i]! };
    },
    escapeOf(at),
  );
}

function addLookups({ limit }: TriggerDefinition, columns: readonly Column[], lookUp: string): string {
  // As text: a bigint as a number would lose digits in JavaScript.
  const image = columns.map(({ name }, i) => `${literal(name)}, c${i + 1}::text`).join(', ');
  return `
      select (select count(*) from gencache_image), array(
        select jsonb_agg(jsonb_build_object(${image}))
        from (select *, row_number() over () - 1 as place from gencache_image limit ${limit}) as placed
        group by place / ${PACK}
      )
      into gencache_count, gencache_packs;
      if gencache_count > ${limit} then
        gencache_paths := gencache_paths || array[''];
      else
        gencache_lookups := gencache_lookups || array_fill(${literal(lookUp)}::text, array[cardinality(gencache_packs)]);
        gencache_images := gencache_images || gencache_packs;
      end if;`;
}
