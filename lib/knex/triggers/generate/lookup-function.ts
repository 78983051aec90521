import { quoted } from '../../postgres/identifiers.js';
import type { Column, Table } from '../../postgres/catalog.js';
import {
  changedColumns,
  hopsOf,
  idColumn,
  positionOf,
  type TableLookup,
  type TriggerBump,
  type TriggerDefinition,
} from '../trigger-definition.js';
import { escapeOf, idValue, pathOf } from './path-sql.js';
import { nameHash, literal } from '../../postgres/sql-text.js';

/**
 * The name of the function that runs a bump's lookup. The name depends on all columns that the function reads, so an event
 * that waits in the outbox while another definition is installed finds its own function or none, and never one that reads
 * other columns. Without its function, the path of the event, global, is bumped.
 */
export function lookupFunctionName({ cache, schema, table, name, bumps }: TriggerDefinition, index: number): string {
  const { lookUp, further = [], ids } = bumps[index]!;
  // Lists, since jsonb does not keep the order of keys.
  const pairs = ({ on }: TableLookup) => on.map(({ column, changed }) => [column, changed]);
  const path = ids.map((id) => [id.namespace, idColumn(id), id.of, ...(id.hop === undefined ? [] : [id.hop])]);
  const hops = further.map((each) => [each.schema, each.table, pairs(each)]);
  const first = [lookUp!.schema, lookUp!.table, pairs(lookUp!)];
  return `gencache_lookup_${nameHash(cache, schema, table, name, ...first, path, ...hops)}`;
}

/**
 * The body of `gencache_lookup_...(args jsonb) returns setof text`: from images of changed rows, `[{"id": "9", ...}, ...]`,
 * to the paths of their scopes. Called after the commit, in a fresh snapshot (docs/protocol.md, rule 3). One query, by
 * index where each looked-up table has one on those columns; reads these tables with its caller's rights; takes no locks.
 * PostgreSQL records no dependency of a function whose body is a text, so no ALTER and no DROP of a table fails because of it;
 * the lookup does, and global is bumped in its place. `tables`: the changed one, then those that are looked up.
 */
export function lookupFunctionSource(bump: TriggerBump, tables: readonly Table[], at: string): string {
  const [changed, ...lookedUp] = tables as [Table, ...Table[]];
  const images = changedColumns(bump).map((name) => changed.columns.get(name)!);
  const image = (name: string) => `image.c${images.findIndex((column) => column.name === name) + 1}`;
  const alias = (position: number) => (position === 1 ? 'found' : `found${position}`);
  const value = (position: number, name: string) =>
    position === 0 ? image(name) : `${alias(position)}.${quoted(name)}`;
  const fields = images.map((column, i) => `(each ->> ${literal(column.name)})::${imageType(column)} as c${i + 1}`);
  const joins = hopsOf(bump).map(({ on }, i) => {
    const pairs = on.map((pair) => {
      const [found, asked] = [value(i + 1, pair.column), value(i, pair.changed)];
      const [theirs, ours] = [lookedUp[i]!.columns.get(pair.column)!, tables[i]!.columns.get(pair.changed)!];
      // The cast of a domain to its enumeration keeps the index.
      if (theirs.enumeration !== null && theirs.enumeration === ours.enumeration) {
        return `${found}::${theirs.enumeration} = ${asked}::${ours.enumeration}`;
      }
      if (theirs.enumeration !== null) return `${found}::text = ${asked}${i === 0 ? '' : '::text'}`;
      return `${found} = ${asked}${i > 0 && ours.enumeration !== null ? '::text' : ''}`;
    });
    const { schema, name } = lookedUp[i]!;
    return `
  join ${quoted(schema)}.${quoted(name)} as ${alias(i + 1)} on ${pairs.join(' and ')}`;
  });
  const path = pathOf(
    bump,
    (id) => {
      const position = positionOf(bump, id);
      const column = tables[position]!.columns.get(idColumn(id))!;
      return { reference: `(${idValue(value(position, idColumn(id)), column)})`, column };
    },
    escapeOf(at),
  );
  return `
  select distinct ${path}
  from (select ${fields.join(', ')} from jsonb_array_elements(args) as each) as image${joins.join('')}`;
}

function imageType({ kind }: Column): string {
  if (kind === 'integer') return 'bigint';
  return kind === 'uuid' ? 'uuid' : 'text';
}
