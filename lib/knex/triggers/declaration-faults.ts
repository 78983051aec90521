import type { Knex } from 'knex';
import type { NamespaceDeclaration } from '../../model/cache-declaration.js';
import type { InstalledOutbox } from '../outbox/installed-outbox.js';
import { type NameFault, PublishedCaches } from '../outbox/published-caches.js';
import type { Column, ColumnKind, Table } from '../postgres/catalog.js';
import { displayName } from '../postgres/identifiers.js';
import { query } from '../postgres/query.js';
import { warnOwner } from '../postgres/owner-log.js';
import { findNamedTables, type NamedTables } from './named-tables.js';
import { idColumn, positionOf, type TriggerBump, type TriggerDefinition } from './trigger-definition.js';

/** A difference between a definition and the declaration that its cache publishes: readers miss what it bumps. */
export interface DeclarationFault extends NameFault {
  readonly problem: (typeof PROBLEMS)[number];
}

const PROBLEMS = [
  ...(['cache not published', 'namespace unknown'] as const),
  ...(['column of another kind', 'column of a wider kind'] as const),
] as const;

/** Whether a problem is a difference from what is published, and not from what was installed: a repair can't mend it. */
export function isDeclarationFault(problem: string): boolean {
  return (PROBLEMS as readonly string[]).includes(problem);
}

/**
 * The faults of a definition by what is published: its cache, its namespaces, their order, and the types of its columns.
 * None before a first publication. Where several declarations are in use, one that knows the path is enough.
 */
export function declarationFaults(
  definition: TriggerDefinition,
  tables: NamedTables | undefined,
  published: PublishedCaches,
): DeclarationFault[] {
  const { cache, truncate } = definition;
  const strange = published.nameFault(cache);
  if (strange !== undefined) return [{ problem: 'cache not published', ...strange }];
  const paths = definition.bumps.map(({ ids }) => ids.map(({ namespace }) => namespace));
  const truncated = published.pathFault(cache, truncate);
  const faults: DeclarationFault[] = truncated === undefined ? [] : [{ problem: 'namespace unknown', ...truncated }];
  for (const [i, names] of paths.entries()) {
    const fault = names.length === 0 ? undefined : published.namespaceFault(cache, names);
    if (fault !== undefined) faults.push({ problem: 'namespace unknown', ...fault });
    else if (tables !== undefined) {
      const bump = definition.bumps[i]!;
      const columns = columnsOf(bump, [tables.changed, ...tables.lookedUp[i]!]);
      const branches = published.branches(cache, names).map((branch) => columnFaults(cache, branch, columns));
      if (branches.every((found) => found.length > 0)) faults.push(...(branches[0] ?? []));
    }
  }
  return [...new Map(faults.map((fault) => [fault.message, fault])).values()];
}

/** A column with the name that messages have. */
interface NamedColumn {
  readonly name: string;
  readonly column: Column | undefined;
}

/** `tables`: the changed one, then those that are looked up. */
function columnsOf(bump: TriggerBump, tables: readonly Table[]): NamedColumn[] {
  return bump.ids.map((id) => {
    const table = tables[positionOf(bump, id)]!;
    return { name: displayName(table.schema, table.name, id.column), column: table.columns.get(idColumn(id)) };
  });
}

function columnFaults(
  cache: string,
  branch: readonly NamespaceDeclaration[],
  columns: readonly NamedColumn[],
): DeclarationFault[] {
  return branch.flatMap(({ name: namespace, kind }, i): DeclarationFault[] => {
    const { name, column } = columns[i]!;
    const fit = column === undefined ? 'fits' : (FITS[kind.replaceAll('nullable ', '')]?.[column.kind] ?? 'fits');
    if (fit === 'fits') return [];
    const fact = `The ids of ${namespace} are of the kind ${kind} (cache ${cache}), and ${name} is ${column!.type}`;
    if (fit === 'wider') return [{ problem: 'column of a wider kind', ...widerFault(fact, kind, column!) }];
    return [
      {
        problem: 'column of another kind',
        message: `${fact}: no reader has an id that this column can hold.`,
        remedy:
          'Name the column with the ids of the namespace, or declare the namespace with the kind that the column has.',
      },
    ];
  });
}

/**
 * How the values of a column fit a kind of ids. `other`: no value is such an id. `wider`: some may be, or one id has several
 * spellings.
 */
type Fit = 'fits' | 'wider' | 'other';

const NUMBERS: Partial<Record<ColumnKind, Fit>> = { integer: 'fits', text: 'wider', enum: 'other', uuid: 'other' };
const FITS: Readonly<Record<string, Partial<Record<ColumnKind, Fit>>>> = {
  integer: NUMBERS,
  int4: NUMBERS,
  uuid: { uuid: 'fits', text: 'wider', enum: 'other', integer: 'other' },
  text: { text: 'fits', enum: 'fits', integer: 'wider', uuid: 'wider' },
};

function widerFault(fact: string, kind: string, { type }: Column): NameFault {
  return kind.endsWith('text')
    ? {
        message: `${fact}: readers may spell one id of the column in several ways, and a change reaches one spelling.`,
        remedy: `Declare the namespace with the kind of the column (${type === 'uuid' ? 'uuid()' : 'integer()'}).`,
      }
    : {
        message: `${fact}: texts of the column that are no such id have no reader. Is it the right column?`,
        remedy: `If it is, and holds such ids alone, this is sound: the spellings of one id are bumped together. A column of the type ${kind.endsWith('uuid') ? 'uuid' : 'bigint'} says so.`,
      };
}

/**
 * Whether a fault breaks the promise of the triggers. Triggers that were installed after the last publication may be those
 * of a release that has yet to run. One query for such a fault.
 */
export async function severityOf(
  db: Knex,
  outbox: InstalledOutbox,
  { cache, schema, table, name }: TriggerDefinition,
  { problem }: DeclarationFault,
  published: PublishedCaches,
): Promise<'broken' | 'warn'> {
  if (problem === 'column of a wider kind') return 'warn';
  const lastSeenMs = published.of(cache)[0]?.lastSeenMs;
  if (lastSeenMs === undefined) return 'broken';
  const rows = await query<{ ageMs: number }>(
    db,
    `select extract(epoch from clock_timestamp() - installed_at)::float8 * 1000 as "ageMs" from ${outbox.at}gencache_trigger
     where cache = ? and table_schema = ? and table_name = ? and name = ?`,
    [cache, schema, table, name],
  );
  return (rows[0]?.ageMs ?? Infinity) < lastSeenMs ? 'warn' : 'broken';
}

/** Tells the owner of a migration, by Knex's log, which names no application has published. Refuses nothing. */
export async function warnOfDeclaration(
  trx: Knex.Transaction,
  outbox: InstalledOutbox,
  definition: TriggerDefinition,
): Promise<void> {
  const published = await PublishedCaches.read(trx, outbox);
  if (published.names.length === 0) return;
  const tables = await findNamedTables(trx, definition);
  for (const { message, remedy } of declarationFaults(definition, 'faults' in tables ? undefined : tables, published)) {
    const table = displayName(definition.schema, definition.table);
    warnOwner(
      trx,
      `gencache: the triggers on ${table} are installed, but may bump what no reader uses. ${message} ${remedy}`,
    );
  }
}
