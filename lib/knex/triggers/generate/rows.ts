import { quoted } from '../../postgres/identifiers.js';
import type { Column, Table } from '../../postgres/catalog.js';
import type { TriggerDefinition } from '../trigger-definition.js';

/** Where a recorder finds what changed: in a statement's transition tables, or in the row of a row-level trigger. */
export type TriggerLevel = 'statement' | 'row';

/** What the functions of one definition are written from. */
export interface RecorderInput {
  readonly definition: TriggerDefinition;
  readonly table: Table;
  /** Qualifies the outbox. */
  readonly at: string;
  readonly level: TriggerLevel;
}

/** Where the images are that an operation has. */
export const TRANSITION_ALIASES = {
  insert: ['gencache_new'],
  update: ['gencache_old', 'gencache_new'],
  delete: ['gencache_old'],
} as const;

export function columnsOf(table: Table, names: readonly string[]): Column[] {
  return names.map((name) => table.columns.get(name)!);
}

/**
 * Which side is absent, of a row that found none by its key: -1 the old, 1 the new, 0 neither. Neither is said, too,
 * where what was the primary key holds null by now.
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
  // The equality of a type that lives elsewhere is not on the function's search_path.
  return column.native ? `${old} = ${renewed}` : `${old}::text collate "C" = ${renewed}::text collate "C"`;
}

/**
 * Whether an UPDATE changed a row. By `is distinct from` where equal means equal to the byte, else by image, which every
 * type has (json has no `=`, 1.0 equals 1.00). Images take twice as long and come last: most rows need none. `entirely`
 * ends with that of all columns, also of those that were added later. As `row(t.*)`, put together where it is compared:
 * `t.*` would be for each row, before the join.
 */
export function rowChanged(columns: readonly Column[], entirely: boolean): string {
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
