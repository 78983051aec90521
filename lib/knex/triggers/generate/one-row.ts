import { type TriggerBump, changedColumns, idColumn, type RowOperation } from '../trigger-definition.js';
import { lookupFunctionName } from './lookup-function.js';
import { escapeOf, idValue, isText, pathOf } from './path-sql.js';
import { columnsOf, columnValue, conditionOf, imageChanged, type RecorderInput, TRANSITION_ALIASES } from './rows.js';
import { literal } from '../../postgres/sql-text.js';

/**
 * SQL that records all bumps of a statement's only row, the most frequent case: the old and the new image belong to one row,
 * whatever its key, so no pairing is needed. One query, since the start of an executor is most of the cost for a single
 * row. STRICT raises an error unless there is exactly one row; the limit tells the planner, which would compile the query (JIT)
 * for the number of rows of its first run. It sets `gencache_many` if an id needs an escape. The lists
 * stay null where nothing is recorded. The limit does not apply to the two scopes of one row.
 *
 * Every name, type and operator is qualified, and no operator is found by `is distinct from`, so the SQL means the same under
 * the search path of any writer, and the function needs no settings of its own.
 */
export function oneRowSource(
  recorder: RecorderInput,
  operation: RowOperation,
  compared: readonly string[] | null,
): string {
  const { definition, table, level } = recorder;
  const sides = TRANSITION_ALIASES[operation];
  const named = definition.bumps.map((bump, i) => ({ bump, i, ids: changedColumns(bump) }));
  /** `list` of `each` image of the row: of both images where they differ in these columns, else of one. */
  const images = (ids: readonly string[], each: (side: string) => string, list: (items: string) => string) => {
    const [side, other] = sides.map(each);
    if (other === undefined || ids.length === 0) return list(side!);
    const value = (of: string) => (id: string) =>
      idValue(columnValue(of, table.columns.get(id)!), table.columns.get(id)!);
    const changed = imageChanged(ids.map(value('gencache_old')), ids.map(value('gencache_new')));
    return `case when ${changed} then ${list(`${side}, ${other}`)} else ${list(side!)} end`;
  };
  /** `value`, a list, if one of the row's images meets the condition of the bump, otherwise null. */
  const met = (bump: TriggerBump, value: string) => {
    const condition = conditionOf(table, bump, sides);
    return condition === undefined ? value : `case when ${condition} then ${value} end`;
  };
  const paths = named
    .filter(({ bump }) => bump.lookUp === null)
    .map(({ bump, ids }) =>
      met(
        bump,
        images(
          ids,
          (side) => pathIn(recorder, bump, side),
          (items) => `array[${items}]`,
        ),
      ),
    );
  const lookups = named.filter(({ bump }) => bump.lookUp !== null);
  const packs = lookups.map(({ ids }) =>
    images(
      ids,
      (side) => imageIn(recorder, ids, side),
      (items) => `pg_catalog.jsonb_build_array(${items})`,
    ),
  );
  const names = lookups.map(({ i }) => literal(lookupFunctionName(definition, i)));
  const targets: [variable: string, value: string][] = [];
  if (paths.length > 0) targets.push(['gencache_paths', paths.join(APPENDED)]);
  if (packs.length > 0) {
    const list = (values: readonly string[]) =>
      lookups.every(({ bump }) => bump.when === undefined)
        ? `array[${values.join(', ')}]`
        : lookups.map(({ bump }, i) => met(bump, `array[${values[i]!}]`)).join(APPENDED);
    targets.push(['gencache_lookups', list(names)], ['gencache_images', list(packs)]);
  }
  const changed = (side: string) => columnsOf(table, compared ?? []).map((column) => columnValue(side, column));
  const test =
    operation !== 'update'
      ? undefined
      : definition.columns === null
        ? imageChanged(['gencache_old.*'], ['gencache_new.*'])
        : imageChanged(changed('gencache_old'), changed('gencache_new'));
  const values = targets.map(([, value]) => (test === undefined ? value : `case when ${test} then ${value} end`));
  const variables = targets.map(([variable]) => variable);
  if (level === 'row') {
    // `new` and `old` are variables, which name no column.
    return oneRowQuery(
      values,
      variables,
      sides.map((side) => `(select ${side.slice(-3)}.*) as ${side}`),
    );
  }
  const strange = definition.bumps.some(
    (bump) => bump.lookUp === null && bump.ids.some((id) => isText(table.columns.get(idColumn(id))!)),
  );
  const query = oneRowQuery(values, variables, sides);
  if (!strange) return query;
  return `${query}
      gencache_many := pg_catalog.array_position(gencache_paths, null) is not null;`;
}

function oneRowQuery(values: readonly string[], variables: readonly string[], from: readonly string[]): string {
  return `
      select ${values.join(`,
        `)}
      into strict ${variables.join(', ')}
      from ${from.join(', ')} limit 2;`;
}

const APPENDED = ' operator(pg_catalog.||) ';

/** In a function without settings the outbox's escape can't run, so a path with an id that needs it is null. */
function pathIn({ table, at, level }: RecorderInput, bump: TriggerBump, side: string): string {
  return pathOf(
    bump,
    (id) => {
      const column = table.columns.get(idColumn(id))!;
      return { reference: `(${idValue(columnValue(side, column), column)})`, column };
    },
    level === 'row' ? escapeOf(at) : () => 'null',
  );
}

/** As text: a bigint as a number would lose digits in JavaScript. */
function imageIn({ table }: RecorderInput, ids: readonly string[], side: string): string {
  const values = ids.map((id) => `${literal(id)}, ${columnValue(side, table.columns.get(id)!)}::pg_catalog.text`);
  return `pg_catalog.jsonb_build_object(${values.join(', ')})`;
}
