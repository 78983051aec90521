import { type TriggerBump, changedColumns, idColumn, type RowOperation } from '../trigger-definition.js';
import { lookupFunctionName } from './lookup-function.js';
import { idValue, pathOf } from './path-sql.js';
import { columnsOf, columnValue, conditionOf, rowChanged, type RecorderInput, TRANSITION_ALIASES } from './rows.js';
import { literal } from '../../postgres/sql-text.js';

/**
 * SQL that records all bumps of a statement's only row, the most frequent case: the old and the new image belong to one row,
 * whatever its key, so no pairing is needed. One query, since the start of an executor is most of the cost for a single
 * row. It sets `gencache_many` to whether there are more rows, and to null where one side, or both, are empty. The limit
 * does not apply to the two scopes of one row.
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
    const row = (of: string) =>
      `row(${ids.map((id) => idValue(columnValue(of, table.columns.get(id)!), table.columns.get(id)!)).join(', ')})`;
    return (
      `case when ${row('gencache_old')} is distinct from ${row('gencache_new')} ` +
      `then ${list(`${side}, ${other}`)} else ${list(side!)} end`
    );
  };
  /** `value`, a list, if one of the row's images meets the condition of the bump, otherwise an empty list. */
  const met = (bump: TriggerBump, value: string) => {
    const condition = conditionOf(table, bump, sides);
    return condition === undefined ? value : `case when ${condition} then ${value} else '{}' end`;
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
      (items) => `jsonb_build_array(${items})`,
    ),
  );
  const names = lookups.map(({ i }) => literal(lookupFunctionName(definition, i)));
  const targets: [variable: string, value: string][] = [];
  if (paths.length > 0) targets.push(['gencache_paths', paths.join(' || ')]);
  if (packs.length > 0) {
    const list = (values: readonly string[]) =>
      lookups.every(({ bump }) => bump.when === undefined)
        ? `array[${values.join(', ')}]`
        : lookups.map(({ bump }, i) => met(bump, `array[${values[i]!}]`)).join(' || ');
    targets.push(['gencache_lookups', list(names)], ['gencache_images', list(packs)]);
  }
  const test =
    operation === 'update' ? rowChanged(columnsOf(table, compared ?? []), definition.columns === null) : undefined;
  const values = targets.map(([, value]) =>
    test === undefined ? value : `case when ${test} then ${value} else '{}' end`,
  );
  // Reads two rows of the cross join at most.
  const many = 'lead(true, 1, false) over ()';
  const from = sides.map((side) => (level === 'row' ? `(select ${side.slice(-3)}.*) as ${side}` : side)).join(', ');
  return `
      select ${[...(level === 'row' ? [] : [many]), ...values].join(`,
        `)}
      into ${[...(level === 'row' ? [] : ['gencache_many']), ...targets.map(([variable]) => variable)].join(', ')}
      from ${from} limit 1;`;
}

function pathIn({ table, at }: RecorderInput, bump: TriggerBump, side: string): string {
  return pathOf(bump, at, (id) => {
    const column = table.columns.get(idColumn(id))!;
    return { reference: `(${idValue(columnValue(side, column), column)})`, column };
  });
}

/** As text: a bigint as a number would lose digits in JavaScript. */
function imageIn({ table }: RecorderInput, ids: readonly string[], side: string): string {
  const values = ids.map((id) => `${literal(id)}, ${columnValue(side, table.columns.get(id)!)}::text`);
  return `jsonb_build_object(${values.join(', ')})`;
}
