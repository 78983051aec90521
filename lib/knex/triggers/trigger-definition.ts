import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { checkCacheName } from '../../model/cache-name.js';
import { isName, NAME_RULE } from '../../model/key.js';

/** What a trigger can watch. TRUNCATE is watched always: whoever lists operations would forget it. */
export type Operation = 'insert' | 'update' | 'delete' | 'truncate';

export type RowOperation = Exclude<Operation, 'truncate'>;

export const ROW_OPERATIONS: readonly RowOperation[] = ['insert', 'update', 'delete'];

/** One namespace of a path and the column that names its id: of the row that changed, or of one looked up for it. */
export interface IdColumn {
  readonly namespace: string;
  readonly column: string;
  readonly of: 'changed' | 'looked up';
}

/** Where the rows are that name the scopes: those whose `column` is the changed row's `changed`, for each pair. */
export interface TableLookup {
  readonly schema: string | null;
  readonly table: string;
  readonly on: readonly { readonly column: string; readonly changed: string }[];
}

export interface TriggerBump {
  readonly lookUp: TableLookup | null;
  /** Root first; none is global. */
  readonly ids: readonly IdColumn[];
}

/** What is watched on one table for one cache, and what it bumps: kept in `gencache_trigger`, as JSON. */
export interface TriggerDefinition {
  readonly cache: string;
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  readonly operations: readonly RowOperation[];
  /** Only an UPDATE that changes one of these, or a column that a bump names, counts; null: of any. */
  readonly columns: readonly string[] | null;
  /** The path that TRUNCATE bumps. */
  readonly truncate: string;
  readonly limit: number;
  readonly subscriber: boolean;
  readonly bumps: readonly TriggerBump[];
}

/** The columns of the changed row that a bump needs, each once. */
export function changedColumns(bump: TriggerBump): string[] {
  const named = bump.ids.filter((id) => id.of === 'changed').map((id) => id.column);
  return [...new Set([...(bump.lookUp?.on ?? []).map((pair) => pair.changed), ...named])];
}

/** The columns of the looked-up table that a bump needs, each once. */
export function lookedUpColumns(bump: TriggerBump): string[] {
  const named = bump.ids.filter((id) => id.of === 'looked up').map((id) => id.column);
  return [...new Set([...(bump.lookUp?.on ?? []).map((pair) => pair.column), ...named])];
}

/** Everything of the changed row that the definition names, each once. */
export function namedColumns(definition: TriggerDefinition): string[] {
  return [...new Set([...definition.bumps.flatMap(changedColumns), ...(definition.columns ?? [])])];
}

/** The columns whose change counts; null: all. */
export function watchedColumns(definition: TriggerDefinition): string[] | null {
  return definition.columns === null ? null : namedColumns(definition);
}

const SEGMENT = /^([^=/]+)=(~|%h[0-9a-f]{64}|(?:[A-Za-z0-9_.-]|%[0-9A-F]{2}){0,200})$/;

/** Throws ConfigurationError for what can be told without the database. */
export function validateDefinition(definition: TriggerDefinition): void {
  const { cache, name, operations, columns, truncate, limit, bumps } = definition;
  checkCacheName(cache);
  if (typeof name !== 'string' || name.length === 0) {
    refuse('Triggers of one table and cache are told apart by a name', name, 'Pass some text');
  }
  const unknown = operations.find((operation) => !ROW_OPERATIONS.includes(operation));
  if (unknown !== undefined) {
    refuse('Triggers watch insert, update, delete and truncate', unknown, 'Pass a list of these as `operations`');
  }
  if (columns?.length === 0) {
    refuse('`columns` names those whose change counts', columns, 'Name one, or leave it out for all');
  }
  const segments = truncate === '' ? [] : truncate.split('/');
  if (!segments.every((segment) => SEGMENT.test(segment) && isName(segment.split('=')[0]))) {
    refuse(
      '`truncate` is the path of a scope, root first',
      truncate,
      'Pass such as `tenant=7`, or leave it out for global',
    );
  }
  if (!Number.isSafeInteger(limit) || limit < 1) {
    refuse('`limit` is how many scopes one statement bumps one by one', limit, 'Pass a whole number of at least 1');
  }
  if (bumps.length === 0) refuse('A change bumps something', 'no bump', 'Call `.bump({ ... })` before `.install()`');
  for (const { lookUp, ids } of bumps) {
    for (const { namespace } of ids) {
      if (!isName(namespace)) refuse(`A namespace's name is ${NAME_RULE}`, namespace, 'Name the declared namespace');
    }
    if (lookUp?.on.length === 0) {
      refuse(
        'A look-up says which of its columns is which of the changed row',
        {},
        'Pass such as `{ workflow_id: "id" }`',
      );
    }
  }
}

function refuse(rule: string, arrived: unknown, remedy: string): never {
  throw new ConfigurationError(`${rule}. Got ${describe(arrived)}. ${remedy}.`);
}
