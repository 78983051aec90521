import { quoted } from '../../postgres/identifiers.js';
import type { Column, Table } from '../../postgres/catalog.js';
import { type TriggerBump, changedColumns, type TriggerDefinition } from '../trigger-definition.js';
import { idValue, pathOf } from './path-sql.js';
import { nameHash, literal } from '../../postgres/sql-text.js';

/**
 * The name of the function that runs a bump's lookup. The name depends on all columns that the function reads, so an event
 * that waits in the outbox while another definition is installed finds its own function or none, and never one that reads
 * other columns. Without its function, the path of the event, global, is bumped.
 */
export function lookupFunctionName({ cache, schema, table, name, bumps }: TriggerDefinition, index: number): string {
  const { lookUp, ids } = bumps[index]!;
  // Lists, since jsonb does not keep the order of keys.
  const on = lookUp!.on.map(({ column, changed }) => [column, changed]);
  const path = ids.map(({ namespace, column, of }) => [namespace, column, of]);
  return `gencache_lookup_${nameHash(cache, schema, table, name, lookUp!.schema, lookUp!.table, on, path)}`;
}

/**
 * The body of `gencache_lookup_...(args jsonb) returns setof text`: from images of changed rows, `[{"id": "9", ...}, ...]`,
 * to the paths of their scopes. Called after the commit, in a fresh snapshot (docs/protocol.md, rule 3). One query, by
 * index where the looked-up table has one on those columns; reads that table with its caller's rights; takes no locks.
 */
export function lookupFunctionSource(bump: TriggerBump, changed: Table, lookedUp: Table, at: string): string {
  const images = changedColumns(bump).map((name) => changed.columns.get(name)!);
  const image = (name: string) => `image.c${images.findIndex((column) => column.name === name) + 1}`;
  const found = (name: string) => `found.${quoted(name)}`;
  const fields = images.map((column, i) => `(each ->> ${literal(column.name)})::${imageType(column)} as c${i + 1}`);
  const pairs = bump.lookUp!.on.map((pair) => {
    const column = lookedUp.columns.get(pair.column)!;
    const { enumeration } = column;
    if (enumeration === null) return `${found(pair.column)} = ${image(pair.changed)}`;
    // The cast of a domain to its enumeration keeps the index.
    return enumeration === changed.columns.get(pair.changed)!.enumeration
      ? `${found(pair.column)}::${enumeration} = ${image(pair.changed)}::${enumeration}`
      : `${found(pair.column)}::text = ${image(pair.changed)}`;
  });
  const path = pathOf(bump, at, ({ column: name, of }) => {
    const [reference, column] =
      of === 'changed' ? [image(name), changed.columns.get(name)!] : [found(name), lookedUp.columns.get(name)!];
    return { reference: `(${idValue(reference, column)})`, column };
  });
  return `
  select distinct ${path}
  from (select ${fields.join(', ')} from jsonb_array_elements(args) as each) as image
  join ${quoted(lookedUp.schema)}.${quoted(lookedUp.name)} as found on ${pairs.join(' and ')}`;
}

function imageType({ kind }: Column): string {
  if (kind === 'integer') return 'bigint';
  return kind === 'uuid' ? 'uuid' : 'text';
}
