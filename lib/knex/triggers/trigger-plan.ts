import type { Knex } from 'knex';
import {
  familyOf,
  functionsNamed,
  type InstalledFunction,
  type InstalledTrigger,
  type Relation,
  triggersNamed,
} from '../postgres/catalog.js';
import { hasExpression, type TriggerDefinition } from './trigger-definition.js';
import { lookupFunctionName, lookupFunctionSource } from './generate/lookup-function.js';
import { qualifiedName } from '../postgres/identifiers.js';
import type { InstalledOutbox } from '../outbox/installed-outbox.js';
import { RECORDER_SETTINGS, recorderSource } from './generate/recorder.js';
import { comparedColumns, type RecorderInput } from './generate/rows.js';
import type { NamedTables } from './named-tables.js';
import { TRANSITION_TABLES } from '../postgres/transition-tables.js';
import { functionBody, nameHash } from '../postgres/sql-text.js';

/**
 * The functions and triggers of a definition (`planOf`), and the differences between them and the database
 * (`differences`). An installation mends the differences, a check reports them; so a table without a difference is never
 * locked.
 *
 *     gencache_on_<hash>       records statements         gencache_<hash>_insert, _update, _delete, _truncate, ALWAYS,
 *                                                         on the table, each partition and each inheritance child
 *     gencache_on_<hash>_row   records replicated rows    gencache_<hash>_row, REPLICA, where rows are stored
 *     gencache_lookup_<hash>   runs a lookup
 *
 * The hash stands for outbox, cache, table and name, which together may be longer than an identifier.
 */
export interface TriggerPlan {
  readonly functions: readonly PlannedFunction[];
  readonly triggers: readonly PlannedTrigger[];
  /** All names that triggers of this definition can have. */
  readonly names: readonly string[];
  readonly schema: string;
  /** Foreign partitions and children, which can have no triggers. */
  readonly foreign: readonly Relation[];
}

export interface PlannedFunction {
  readonly name: string;
  readonly source: string;
  readonly definer: boolean;
  readonly settings: Readonly<Record<string, string>>;
  /** `create or replace`. */
  readonly statement: string;
}

export interface PlannedTrigger {
  readonly relation: Relation;
  readonly name: string;
  readonly type: number;
  /** `A` always, or `R` replica. */
  readonly enabled: 'A' | 'R';
  readonly function: string;
  /** `after insert on ... execute function ...`. */
  readonly clause: string;
}

export type PlanDifference =
  | { readonly problem: 'function missing' | 'function altered'; readonly planned: PlannedFunction }
  | { readonly problem: 'trigger missing'; readonly planned: PlannedTrigger }
  | {
      readonly problem: 'trigger altered' | 'trigger not enabled as installed';
      readonly planned: PlannedTrigger;
      readonly found: InstalledTrigger;
    }
  | { readonly problem: 'trigger left over'; readonly found: InstalledTrigger };

/** `pg_trigger.tgtype`: https://github.com/postgres/postgres/blob/REL_15_STABLE/src/include/catalog/pg_trigger.h */
const TYPE = { row: 1, insert: 4, delete: 8, update: 16, truncate: 32 } as const;

/**
 * `compared`: the columns that the functions compare where a change of any column counts; an installation names those of
 * the table, a check those of the installation, since columns that were added, dropped, renamed or retyped since then
 * change nothing in what the functions record. One query.
 */
export async function planOf(
  db: Knex,
  outbox: InstalledOutbox,
  definition: TriggerDefinition,
  tables: NamedTables,
  compared: readonly string[] = comparedColumns(tables.changed),
): Promise<TriggerPlan> {
  const { changed } = tables;
  const { at } = outbox;
  const names = namesOf(outbox, definition);
  const functions = [
    recorder(outbox, names.statement, { definition, table: changed, at, level: 'statement', compared }),
  ];
  if (definition.subscriber) {
    functions.push(recorder(outbox, names.row, { definition, table: changed, at, level: 'row', compared }));
  }
  for (const [i, bump] of definition.bumps.entries()) {
    if (bump.lookUp === null) continue;
    functions.push(
      lookupFunction(
        outbox,
        lookupFunctionName(definition, i),
        lookupFunctionSource(bump, [changed, ...tables.lookedUp[i]!], outbox.at),
      ),
    );
  }
  return { ...(await triggersOf(db, outbox, definition, changed)), functions };
}

/** The plan without functions: where columns are missing, functions can't be generated, and triggers stay the same. */
export async function triggersOf(
  db: Knex,
  outbox: InstalledOutbox,
  definition: TriggerDefinition,
  changed: Relation,
): Promise<TriggerPlan> {
  const family = await familyOf(db, changed.oid);
  return {
    functions: [],
    triggers: family.filter(({ kind }) => kind !== 'f').flatMap((relation) => triggersOn(outbox, definition, relation)),
    names: Object.values(namesOf(outbox, definition).triggers),
    schema: outbox.schema,
    foreign: family.filter(({ kind }) => kind === 'f'),
  };
}

export function namesOf({ schema: outboxSchema }: InstalledOutbox, { cache, schema, table, name }: TriggerDefinition) {
  const id = nameHash(outboxSchema, cache, schema, table, name);
  return {
    statement: `gencache_on_${id}`,
    row: `gencache_on_${id}_row`,
    triggers: {
      insert: `gencache_${id}_insert`,
      update: `gencache_${id}_update`,
      delete: `gencache_${id}_delete`,
      truncate: `gencache_${id}_truncate`,
      row: `gencache_${id}_row`,
    },
  };
}

/** The names of a definition's functions. */
export function functionNames(outbox: InstalledOutbox, definition: TriggerDefinition): string[] {
  const { statement, row } = namesOf(outbox, definition);
  const lookups = definition.bumps.flatMap((bump, i) =>
    bump.lookUp === null ? [] : [lookupFunctionName(definition, i)],
  );
  return [statement, ...(definition.subscriber ? [row] : []), ...lookups];
}

function triggersOn(outbox: InstalledOutbox, definition: TriggerDefinition, relation: Relation): PlannedTrigger[] {
  const names = namesOf(outbox, definition);
  const target = qualifiedName(relation);
  const triggers: PlannedTrigger[] = [...definition.operations, 'truncate' as const].map((operation) => ({
    relation,
    name: names.triggers[operation],
    type: TYPE[operation],
    enabled: 'A',
    function: names.statement,
    clause:
      `after ${operation} on ${target} ${TRANSITION_TABLES[operation]} for each statement ` +
      `execute function ${outbox.at}${names.statement}()`,
  }));
  // PostgreSQL copies a row-level trigger of a partitioned table to its partitions; each partition gets its own instead.
  if (definition.subscriber && relation.kind === 'r' && definition.operations.length > 0) {
    triggers.push({
      relation,
      name: names.triggers.row,
      type: definition.operations.reduce((type, operation) => type + TYPE[operation], TYPE.row as number),
      enabled: 'R',
      function: names.row,
      clause:
        `after ${definition.operations.join(' or ')} on ${target} for each row ` +
        `execute function ${outbox.at}${names.row}()`,
    });
  }
  return triggers;
}

/**
 * Runs with its owner's rights, so that a writer needs none on the outbox; other roles can't use it in triggers. Settings are
 * clauses where an owner's expression runs, whose names no generator can qualify, and at a subscriber.
 */
function recorder({ at }: InstalledOutbox, name: string, input: RecorderInput): PlannedFunction {
  const settings = input.level === 'row' || input.definition.bumps.some(hasExpression) ? RECORDER_SETTINGS : {};
  const source = recorderSource(input);
  const statement = `
    create or replace function ${at}${name}() returns trigger language plpgsql security definer
    ${clauses(settings)} as ${functionBody(source)};
    revoke all on function ${at}${name}() from public`;
  return { name, source, definer: true, settings, statement };
}

const LOOKUP_SETTINGS = { search_path: RECORDER_SETTINGS.search_path, jit: RECORDER_SETTINGS.jit };

function lookupFunction({ at }: InstalledOutbox, name: string, source: string): PlannedFunction {
  const statement = `
    create or replace function ${at}${name}(args jsonb) returns setof text language sql stable
    ${clauses(LOOKUP_SETTINGS)} as ${functionBody(source)}`;
  return { name, source, definer: false, settings: LOOKUP_SETTINGS, statement };
}

function clauses(settings: PlannedFunction['settings']): string {
  return Object.entries(settings)
    .map(([name, value]) => `set ${name} = ${value}`)
    .join(' ');
}

/** Two queries. */
export async function differences(db: Knex, plan: TriggerPlan): Promise<PlanDifference[]> {
  const found = await functionsNamed(
    db,
    plan.schema,
    plan.functions.map(({ name }) => name),
  );
  const installed = await triggersNamed(db, plan.names);
  const result: PlanDifference[] = [];
  for (const planned of plan.functions) {
    const there = found.get(planned.name);
    if (there === undefined) result.push({ problem: 'function missing', planned });
    else if (!sameFunction(planned, there)) result.push({ problem: 'function altered', planned });
  }
  const left = new Map(installed.map((trigger) => [keyOf(trigger), trigger]));
  for (const planned of plan.triggers) {
    const there = left.get(keyOf(planned));
    left.delete(keyOf(planned));
    if (there === undefined) result.push({ problem: 'trigger missing', planned });
    else if (there.type !== planned.type || there.function !== planned.function) {
      result.push({ problem: 'trigger altered', planned, found: there });
    } else if (there.enabled !== planned.enabled) {
      result.push({ problem: 'trigger not enabled as installed', planned, found: there });
    }
  }
  return [
    ...result,
    ...[...left.values()].map((trigger) => ({ problem: 'trigger left over', found: trigger }) as const),
  ];
}

function sameFunction(planned: PlannedFunction, found: InstalledFunction): boolean {
  const settings = Object.entries(planned.settings).map(([name, value]) => `${name}=${value}`);
  return (
    planned.source === found.source &&
    planned.definer === found.definer &&
    settings.toSorted().join() === found.settings.map(unquoted).toSorted().join()
  );
}

/** A session with `quote_all_identifiers` stores the names in a setting in quotes that they do not need. */
function unquoted(setting: string): string {
  return setting.replaceAll(/"([a-z_][a-z0-9_]*)"/g, '$1');
}

function keyOf({ relation, name }: { readonly relation: Relation; readonly name: string }): string {
  return `${relation.oid} ${name}`;
}
