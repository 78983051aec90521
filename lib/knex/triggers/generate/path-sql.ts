import type { Column } from '../../postgres/catalog.js';
import type { TriggerBump, IdColumn } from '../trigger-definition.js';
import { literal } from '../../postgres/sql-text.js';

/**
 * A column's value, compared byte by byte as ids are, so that no collation makes two ids equal. The value of an enumeration
 * is its label.
 */
export function idValue(reference: string, column: Column): string {
  return isText(column) ? `${reference}::pg_catalog.text collate pg_catalog."C"` : reference;
}

/**
 * SQL for the path of a bump (`lib/model/key.ts`); `value` returns the SQL and the column of an id. `escape` returns the SQL for
 * the text of an id with other characters than most ids have (`escapeOf`). Every name and operator is qualified, so the SQL
 * means the same under any search path.
 */
export function pathOf(
  bump: TriggerBump,
  value: (id: IdColumn) => { reference: string; column: Column },
  escape: (reference: string) => string,
): string {
  const segments = bump.ids.flatMap((id, i) => {
    const { reference, column } = value(id);
    return [literal(`${i === 0 ? '' : '/'}${id.namespace}=`), idText(reference, column, escape)];
  });
  return segments.length === 0 ? `''::pg_catalog.text` : segments.join(' operator(pg_catalog.||) ');
}

/** The texts of most ids, which need no escape. */
export const PLAIN = `'^[A-Za-z0-9_.-]{0,200}$'`;

/** An id's text in a path, as in `lib/model/id-kind.ts`; the regular expression spares most ids the escape. */
function idText(reference: string, column: Column, escape: (reference: string) => string): string {
  if (!isText(column)) return `coalesce(${reference}::pg_catalog.text, '~')`;
  return (
    `case when ${reference} is null then '~' ` +
    `when ${reference} operator(pg_catalog.~) ${PLAIN} then ${reference} else ${escape(reference)} end`
  );
}

/** Ids whose text may need an escape. */
export function isText({ kind }: Pick<Column, 'kind'>): boolean {
  return kind === 'text' || kind === 'enum';
}

/** The escape by the outbox's function. `at`: its prefix. The function itself needs a search path that starts with pg_catalog. */
export function escapeOf(at: string): (reference: string) => string {
  return (reference) => `${at}gencache_escape(${reference})`;
}
