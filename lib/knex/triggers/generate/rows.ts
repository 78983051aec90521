import { quoted } from '../../postgres/identifiers.js';
import type { Column, Table } from '../../postgres/catalog.js';
import { expressionColumn, type TriggerBump, type TriggerDefinition } from '../trigger-definition.js';

/** The source of changed rows: the transition tables of a statement, or the row of a row-level trigger. */
export type TriggerLevel = 'statement' | 'row';

/** The input from which a definition's functions are generated. */
export interface RecorderInput {
  readonly definition: TriggerDefinition;
  readonly table: Table;
  /** The prefix of the outbox's tables and functions. */
  readonly at: string;
  readonly level: TriggerLevel;
  /** The columns that a comparison of all columns names before the image of the row: `comparedColumns`, or earlier ones. */
  readonly compared: readonly string[];
}

/**
 * The columns of a table that an UPDATE of any column compares by `is distinct from`. The image of the row shows every
 * change besides, so a function that names other columns than the table has now records the same, a little slower.
 */
export function comparedColumns(table: Table): string[] {
  return [...table.columns.values()]
    .filter(({ exact, expression }) => exact && expression === undefined)
    .map(({ name }) => name);
}

/** What `rowChanged` compares: the named columns; null: all. */
export function columnsToCompare(
  { table, compared }: Pick<RecorderInput, 'table' | 'compared'>,
  names: readonly string[] | null,
): ComparedColumn[] {
  return names === null ? compared.map((name) => ({ name, exact: true })) : columnsOf(table, names);
}

type ComparedColumn = Pick<Column, 'name' | 'exact' | 'expression'>;

/** The aliases of an operation's transition tables. */
export const TRANSITION_ALIASES = {
  insert: ['gencache_new'],
  update: ['gencache_old', 'gencache_new'],
  delete: ['gencache_old'],
} as const;

/** SQL for the value of a column, or of an expression, of one row; null is a row of which all columns are null. */
export function columnValue(side: string, { name, expression }: Pick<Column, 'name' | 'expression'>): string {
  return expression === undefined
    ? `${side}.${quoted(name)}`
    : `(select (${expression}\n) from (select ${side}.*) as gencache_row)`;
}

/** SQL for whether one of these rows meets the condition of a bump; undefined without a condition. */
export function conditionOf(table: Table, { when }: TriggerBump, sides: readonly string[]): string | undefined {
  if (when === undefined) return undefined;
  const column = table.columns.get(expressionColumn(when))!;
  return `(${sides.map((side) => `${columnValue(side, column)} is true`).join(' or ')})`;
}

export function columnsOf(table: Table, names: readonly string[]): Column[] {
  return names.map((name) => table.columns.get(name)!);
}

/**
 * SQL for the absent side of a pair in the full join: -1 the old row, 1 the new row, 0 neither. It is 0 as well where the
 * former primary key is null by now.
 */
export function absentSide(key: string): string {
  const [old, renewed] = [`gencache_old.${key}`, `gencache_new.${key}`];
  return (
    `case when ${old} is null and ${renewed} is not null then -1 ` +
    `when ${renewed} is null and ${old} is not null then 1 else 0 end as absent`
  );
}

export function sameKey(column: Column): string {
  const [old, renewed] = ['gencache_old', 'gencache_new'].map((side) => `${side}.${quoted(column.name)}`);
  // The `=` of a type from another schema is not on the function's search_path, and a domain over an enumeration has none.
  return column.native ? `${old} = ${renewed}` : `${old}::text collate "C" = ${renewed}::text collate "C"`;
}

/**
 * SQL for whether an UPDATE changed a row: by `is distinct from` where equal values are equal byte for byte, otherwise by
 * image, which every type has (json has no `=`, 1.0 equals 1.00). Images take twice as long and come last: most rows need
 * none. `entirely` adds the image of all columns, including later ones. `row(t.*)` builds the image where it is compared;
 * `t.*` would build it for each row, before the join.
 */
export function rowChanged(columns: readonly ComparedColumn[], entirely: boolean): string {
  const side = (name: string, column: ComparedColumn) => columnValue(`gencache_${name}`, column);
  const others = columns.filter((column) => !column.exact);
  const values = (name: string) => others.map((column) => side(name, column));
  const tests = columns
    .filter((column) => column.exact)
    .map((column) => `${side('old', column)} is distinct from ${side('new', column)}`);
  if (entirely) tests.push(imageChanged(['gencache_old.*'], ['gencache_new.*']));
  else if (others.length > 0) tests.push(imageChanged(values('old'), values('new')));
  return tests.join(' or ');
}

/** SQL for whether one of these values changed, byte by byte. Finds no operator by a search path. */
export function imageChanged(before: readonly string[], after: readonly string[]): string {
  return `pg_catalog.record_image_eq(row(${before.join(', ')}), row(${after.join(', ')})) is not true`;
}
