import type { Column } from '../../postgres/catalog.js';
import type { TriggerBump, IdColumn } from '../trigger-definition.js';
import { literal } from '../../postgres/sql-text.js';

/**
 * A column's value, compared byte by byte as ids are, so that no collation makes two ids equal. The value of an enumeration
 * is its label.
 */
export function idValue(reference: string, column: Column): string {
  return column.kind === 'text' || column.kind === 'enum' ? `${reference}::text collate "C"` : reference;
}

/** SQL for the path of a bump (`lib/model/key.ts`); `value` returns the SQL and the column of an id. `at`: the outbox's prefix. */
export function pathOf(
  bump: TriggerBump,
  at: string,
  value: (id: IdColumn) => { reference: string; column: Column },
): string {
  const segments = bump.ids.map((id, i) => {
    const { reference, column } = value(id);
    return `${literal(`${i === 0 ? '' : '/'}${id.namespace}=`)} || ${escaped(reference, column, at)}`;
  });
  return segments.length === 0 ? `''::text` : segments.join(' || ');
}

/** An id's text in a path, as in `lib/model/id-kind.ts`; the regular expression spares most ids the function call. */
function escaped(reference: string, column: Column, at: string): string {
  if (column.kind !== 'text' && column.kind !== 'enum') return `coalesce(${reference}::text, '~')`;
  return (
    `case when ${reference} is null then '~' when ${reference} ~ '^[A-Za-z0-9_.-]{0,200}$' then ${reference} ` +
    `else ${at}gencache_escape(${reference}) end`
  );
}
