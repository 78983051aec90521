import type { Column } from '../../postgres/catalog.js';
import type { TriggerBump, IdColumn } from '../trigger-definition.js';
import { literal } from '../../postgres/sql-text.js';

/**
 * A column's value as ids are told apart: byte by byte, so that no collation makes two of them one. An enumeration's is
 * its label.
 */
export function idValue(reference: string, column: Column): string {
  return column.kind === 'text' || column.kind === 'enum' ? `${reference}::text collate "C"` : reference;
}

/** The path of a bump (`lib/model/key.ts`) as an SQL expression; `value` says where an id is found. `at` qualifies functions. */
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

/** An id's text in a path, as `lib/model/id-kind.ts` has it; the regular expression spares most ids the function. */
function escaped(reference: string, column: Column, at: string): string {
  if (column.kind !== 'text' && column.kind !== 'enum') return `coalesce(${reference}::text, '~')`;
  return (
    `case when ${reference} is null then '~' when ${reference} ~ '^[A-Za-z0-9_.-]{0,200}$' then ${reference} ` +
    `else ${at}gencache_escape(${reference}) end`
  );
}
