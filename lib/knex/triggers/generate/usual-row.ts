import { quoted } from '../../postgres/identifiers.js';
import { literal } from '../../postgres/sql-text.js';
import { changedColumns, hasExpression, idColumn, type RowOperation, watchedColumns } from '../trigger-definition.js';
import { lookupFunctionName } from './lookup-function.js';
import { isText, PLAIN } from './path-sql.js';
import { imageChanged, type RecorderInput, TRANSITION_ALIASES } from './rows.js';

/**
 * SQL that records the usual write in one statement: one row, whose ids have plain texts and stay the same. It inserts nothing
 * for any other write, which the other SQL of the recorder judges then. One statement without a block takes 20 of 60 us from
 * the trigger of a single-row UPDATE (4 writers, PostgreSQL 15, 2 cores, 2026-11).
 *
 * **Invariant.** It runs outside of any block, so no DDL may make it fail. A column that is gone is found in
 * `gencache_missing`, one query further out, with a type that no id has. Types are compared when it runs, and each type has
 * a text and an image.
 *
 * Undefined for a definition with an expression, which may fail, or with an id of a type that a DROP may take away.
 */
export function usualRowSource(recorder: RecorderInput, operation: RowOperation, insert: string): string | undefined {
  const { definition, table } = recorder;
  const { bumps } = definition;
  const ids = [...new Set(bumps.flatMap(changedColumns))];
  const types = ids.map((name) => BUILT_IN[table.columns.get(name)!.kind]);
  if (bumps.some(hasExpression) || types.includes(undefined)) return undefined;

  const sides = TRANSITION_ALIASES[operation];
  const compared = operation === 'update' ? (watchedColumns(definition) ?? []) : [];
  const columns = [...new Set([...ids, ...compared])];
  const at = (side: string, name: string) => `${side}_row.gencache_c${columns.indexOf(name) + 1}`;
  const value = (name: string) => at(sides[0], name);
  const text = (reference: string) => `${reference}::pg_catalog.text`;
  const byBytes = (reference: string) => `${text(reference)} collate pg_catalog."C"`;
  const typeOf = (name: string) => `pg_catalog.pg_typeof(${value(name)})`;

  const from: string[] = [...sides];
  if (columns.length > 0) {
    from.push(
      `(select ${columns.map((name) => `null::${MISSING} as ${quoted(name)}`).join(', ')}) as gencache_missing`,
    );
    const named = columns.map((name, i) => `${quoted(name)} as gencache_c${i + 1}`).join(', ');
    for (const side of sides)
      from.push(`lateral (select ${named} from (select ${side}.*) as gencache_row) as ${side}_row`);
  }
  const inPaths = new Set(bumps.flatMap((bump) => (bump.lookUp === null ? bump.ids.map(idColumn) : [])));
  const conditions = [
    `not exists (select from ${sides[0]} offset 1)`,
    ...ids.map(
      (name, i) =>
        `${typeOf(name)} operator(pg_catalog.=) any (array[${types[i]!.map(literal).join(', ')}]::pg_catalog.regtype[])`,
    ),
    ...compared
      .filter((name) => !ids.includes(name))
      .map((name) => `${typeOf(name)} operator(pg_catalog.<>) '${MISSING}'::pg_catalog.regtype`),
    ...ids.map((name) =>
      inPaths.has(name) && isText(table.columns.get(name)!)
        ? `${byBytes(value(name))} operator(pg_catalog.~) ${PLAIN}`
        : `${value(name)} is not null`,
    ),
  ];
  if (operation === 'update') {
    const [before, after] = sides.map((side) =>
      definition.columns === null ? [`${side}.*`] : compared.map((name) => at(side, name)),
    );
    conditions.push(imageChanged(before!, after!));
    for (const name of ids) {
      const [old, renewed] = sides.map((side) => byBytes(at(side, name)));
      conditions.push(`${old} operator(pg_catalog.=) ${renewed}`);
    }
  }
  const rows = bumps.map((bump, i) => {
    if (bump.lookUp === null) {
      const segments = bump.ids.flatMap((id, place) => [
        literal(`${place === 0 ? '' : '/'}${id.namespace}=`),
        text(value(idColumn(id))),
      ]);
      const path = segments.length === 0 ? `''::pg_catalog.text` : segments.join(' operator(pg_catalog.||) ');
      return [path, 'null::pg_catalog.text', 'null::pg_catalog.jsonb'];
    }
    const image = changedColumns(bump).map((name) => `${literal(name)}, ${text(value(name))}`);
    return [
      `''::pg_catalog.text`,
      `${literal(lookupFunctionName(definition, i))}::pg_catalog.text`,
      `pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(${image.join(', ')}))`,
    ];
  });
  const [only, ...more] = rows;
  const each = 'each (path, lookup, args)';
  const row = (list: string) => `
      from (
        select ${list}
        from ${from.join(`,
          `)}
        where ${conditions.join(`
          and `)}
        limit 1
      ) as`;
  const selected =
    more.length === 0
      ? `${row(only!.join(', '))} ${each}`
      : `${row(['1 as c0', ...columns.map((name, i) => `${value(name)} as gencache_c${i + 1}`)].join(', '))} ${sides[0]}_row,
        lateral (values ${rows.map((values) => `(${values.join(', ')})`).join(', ')}) as ${each}`;
  return `
      ${insert}
      select ${literal(definition.cache)}, path, lookup, args, pg_catalog.format('%I.%I', tg_table_schema, tg_table_name), tg_op${selected};`;
}

/** The types of ids that no DROP takes away, by kind. A change among them changes nothing in the SQL. */
const BUILT_IN: Readonly<Record<string, readonly string[]>> = {
  integer: ['pg_catalog.int8', 'pg_catalog.int4', 'pg_catalog.int2'],
  text: ['pg_catalog.text', 'pg_catalog.varchar'],
  uuid: ['pg_catalog.uuid'],
};
/** The type of a column that is gone. */
const MISSING = 'pg_catalog.name';
