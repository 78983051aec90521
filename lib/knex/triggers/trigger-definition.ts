import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { checkCacheName } from '../../model/cache-name.js';
import { isName, NAME_RULE } from '../../model/key.js';

/** The operations that triggers watch. TRUNCATE is always watched, since it is easily forgotten in a list. */
export type Operation = 'insert' | 'update' | 'delete' | 'truncate';

export type RowOperation = Exclude<Operation, 'truncate'>;

export const ROW_OPERATIONS: readonly RowOperation[] = ['insert', 'update', 'delete'];

/** One namespace of a path, and the column with its id: of the changed row, or of a row looked up for it. */
export interface IdColumn {
  readonly namespace: string;
  readonly column: string;
  readonly of: 'changed' | 'looked up';
  /** The looked-up table, from 1; absent for the last one. */
  readonly hop?: number;
  /** Of an id of the changed row: `column` is an SQL expression of its columns. */
  readonly expression?: true;
}

/**
 * The lookup of rows that name the scopes: those whose `column` equals `changed`, for each pair: a column of the changed row,
 * or of the table that was looked up before.
 */
export interface TableLookup {
  readonly schema: string | null;
  readonly table: string;
  readonly on: readonly { readonly column: string; readonly changed: string }[];
}

export interface TriggerBump {
  readonly lookUp: TableLookup | null;
  /** The tables that are looked up further, each by the rows of the one before; absent where there are none. */
  readonly further?: readonly TableLookup[];
  /** Root first; an empty list is global. */
  readonly ids: readonly IdColumn[];
  /** An SQL condition: rows that do not meet it bump nothing, an UPDATE if neither its old nor its new row meets it. */
  readonly when?: string;
}

/** The watched changes of one table, and their bumps, for one cache. `gencache_trigger` keeps it as JSON. */
export interface TriggerDefinition {
  readonly cache: string;
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  readonly operations: readonly RowOperation[];
  /** An UPDATE is recorded only if it changes one of these columns, or one that a bump names; null: any column. */
  readonly columns: readonly string[] | null;
  /** The path that TRUNCATE bumps. */
  readonly truncate: string;
  readonly limit: number;
  readonly subscriber: boolean;
  readonly bumps: readonly TriggerBump[];
}

/** The name under which an expression is a column of the changed row (`expressions.ts`). */
export function expressionColumn(sql: string): string {
  return `= ${sql}`;
}

/** The name of an id's column; of an expression, the one under which it is a column. */
export function idColumn({ column, expression }: IdColumn): string {
  return expression === true ? expressionColumn(column) : column;
}

export function hasExpression({ ids, when }: TriggerBump): boolean {
  return when !== undefined || ids.some(({ expression }) => expression === true);
}

/** The columns of the changed row that the path and the lookup of a bump need, each once. */
export function changedColumns(bump: TriggerBump): string[] {
  const named = bump.ids.filter((id) => id.of === 'changed').map(idColumn);
  return [...new Set([...(bump.lookUp?.on ?? []).map((pair) => pair.changed), ...named])];
}

/** The columns of a looked-up table, numbered from 1, that a bump needs, each once. */
export function lookedUpColumns(bump: TriggerBump, hop: number): string[] {
  const hops = hopsOf(bump);
  const found = hops[hop - 1]!.on.map((pair) => pair.column);
  const further = hops[hop]?.on.map((pair) => pair.changed) ?? [];
  const named = bump.ids.filter((id) => positionOf(bump, id) === hop).map((id) => id.column);
  return [...new Set([...found, ...further, ...named])];
}

/** The tables that a bump looks up, one through the other. */
export function hopsOf({ lookUp, further = [] }: TriggerBump): TableLookup[] {
  return lookUp === null ? [] : [lookUp, ...further];
}

/** The table of an id: 0 the changed one, then those that are looked up. */
export function positionOf(bump: TriggerBump, { of, hop }: IdColumn): number {
  return of === 'changed' ? 0 : (hop ?? hopsOf(bump).length);
}

/** All columns of the changed row that the definition names, each once, and those for its expressions. */
export function namedColumns({ bumps, columns }: TriggerDefinition): string[] {
  const conditions = bumps.flatMap(({ when }) => (when === undefined ? [] : [expressionColumn(when)]));
  return [...new Set([...bumps.flatMap(changedColumns), ...conditions, ...(columns ?? [])])];
}

/** The columns whose change is recorded; null: all. */
export function watchedColumns(definition: TriggerDefinition): string[] | null {
  return definition.columns === null ? null : namedColumns(definition);
}

const SEGMENT = /^([^=/]+)=(~|%h[0-9a-f]{64}|(?:[A-Za-z0-9_.-]|%[0-9A-F]{2}){0,200})$/;

/** Checks a definition as far as that needs no database. Throws ConfigurationError. */
export function validateDefinition(definition: TriggerDefinition): void {
  const { cache, name, operations, columns, truncate, limit, bumps } = definition;
  checkCacheName(cache);
  if (typeof name !== 'string' || name.length === 0) {
    refuse('`name` must be a text that tells triggers of one table and cache apart', name, 'Pass some text');
  }
  const unknown = operations.find((operation) => !ROW_OPERATIONS.includes(operation));
  if (unknown !== undefined) {
    refuse('`operations` must be of insert, update, delete and truncate', unknown, 'Pass a list of these');
  }
  if (columns?.length === 0) {
    refuse('`columns` must name at least one column', columns, 'Name one, or leave it out for all columns');
  }
  const segments = truncate === '' ? [] : truncate.split('/');
  if (!segments.every((segment) => SEGMENT.test(segment) && isName(segment.split('=')[0]))) {
    refuse(
      '`truncate` must be the path of a scope, root first',
      truncate,
      'Pass one such as `tenant=7`, or leave it out for global',
    );
  }
  if (!Number.isSafeInteger(limit) || limit < 1) {
    refuse(
      '`limit` must be a whole number of at least 1',
      limit,
      'Pass the number of scopes that one statement may bump',
    );
  }
  if (bumps.length === 0)
    refuse('A change must have at least one bump', bumps.length, 'Call `.bump({ ... })` before `.install()`');
  for (const bump of bumps) {
    const { ids, when } = bump;
    if (when !== undefined && (typeof when !== 'string' || when.trim() === '')) {
      refuse('The condition of a bump must be SQL about the row', when, "Pass one such as `when: 'enabled'`");
    }
    for (const { column, expression } of ids) {
      if (expression === true && (typeof column !== 'string' || column.trim() === '')) {
        refuse(
          'The expression of an id must be SQL about the row',
          column,
          'Pass one such as `expression("config->>\'id\'")`',
        );
      }
    }
    for (const { namespace } of ids) {
      if (!isName(namespace)) refuse(`A namespace's name must be ${NAME_RULE}`, namespace, 'Use its declared name');
    }
    if (hopsOf(bump).some(({ on }) => on.length === 0)) {
      refuse(
        'A lookup must pair columns of its table with columns of the changed row',
        {},
        'Pass a pair such as `{ workflow_id: "id" }`',
      );
    }
  }
}

function refuse(rule: string, arrived: unknown, remedy: string): never {
  throw new ConfigurationError(`${rule}, but got ${describe(arrived)}. ${remedy}.`);
}
