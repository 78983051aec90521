import type { Knex } from 'knex';
import type { OutboxOptions } from '../outbox/location.js';
import { isSqlstate } from '../postgres/sqlstate.js';
import { functionsNamed } from '../postgres/catalog.js';
import { FOREIGN_REMEDY, foreignMessage, repairDefinition } from './install-triggers.js';
import { underInstallationLock, TableLockedError } from '../postgres/table-locks.js';
import { qualifiedName } from '../postgres/identifiers.js';
import { type InstalledOutbox, requireInstalledOutbox } from '../outbox/installed-outbox.js';
import { type PlanDifference, differences, functionNames, planOf, triggersOf } from './trigger-plan.js';
import { type InstalledDefinition, installedDefinitions } from './trigger-registry.js';
import { type DefinitionFault, findNamedTables } from './named-tables.js';
import { displayName } from '../postgres/identifiers.js';
import { type TriggerDefinition, ROW_OPERATIONS } from './trigger-definition.js';

/** What can be wrong with triggers that were installed. */
export type TriggerProblemKind =
  | DefinitionFault['problem']
  | PlanDifference['problem']
  | 'primary key changed'
  | 'foreign partition'
  | 'looked-up table not watched';

export interface TriggerProblem {
  readonly cache: string;
  /** The table that was named at installation, with its schema: `app.workflow`. */
  readonly table: string;
  readonly problem: TriggerProblemKind;
  /** The rule, and what was found. */
  readonly message: string;
  readonly remedy: string;
}

const REPAIR = 'Run `gencache triggers repair`, or call `repairTriggers` in a migration; then bump global.';

/**
 * Compares what was installed with what is there: triggers that are missing, on new partitions too, or not enabled as
 * they were installed; functions that are missing or altered; tables, columns and primary keys that changed. Empty if
 * all is well. Of a definition all that is wrong is told, but of tables that are gone no more than that. Takes no
 * locks. Throws ConfigurationError without an outbox.
 */
export async function checkTriggers(db: Knex, options: OutboxOptions = {}): Promise<TriggerProblem[]> {
  const outbox = await requireInstalledOutbox(db, options);
  const definitions = await installedDefinitions(db, outbox);
  const problems: TriggerProblem[] = [];
  for (const definition of definitions) {
    const found = (problem: TriggerProblemKind, message: string, remedy: string) =>
      problems.push({
        cache: definition.cache,
        table: displayName(definition.schema, definition.table),
        problem,
        message,
        remedy,
      });
    const tables = await findNamedTables(db, definition);
    const faults = 'faults' in tables ? tables.faults : undefined;
    for (const { problem, message, remedy } of faults ?? []) found(problem, message, remedy);
    if (tables.changed === undefined) continue;
    const { primaryKey } = tables.changed;
    const plan =
      'faults' in tables
        ? await triggersOf(db, outbox, definition, tables.changed)
        : await planOf(db, outbox, definition, tables);
    if (faults !== undefined) {
      // Mended by installing on columns that exist, as the fault's own remedy says.
      for (const name of await missingFunctions(db, outbox, definition)) {
        found('function missing', functionMissing(name), faults[0]!.remedy);
      }
    } else if (primaryKey.join() !== definition.primaryKey.join()) {
      found(
        'primary key changed',
        `An UPDATE's old and new rows are paired by the primary key. It was ${list(definition.primaryKey)} and is ${list(primaryKey)}.`,
        REPAIR,
      );
    }
    for (const difference of await differences(db, plan)) {
      // The function that the new key asks for is another one, which has been said.
      if (difference.problem === 'function altered' && primaryKey.join() !== definition.primaryKey.join()) continue;
      found(difference.problem, messageOf(difference), REPAIR);
    }
    for (const relation of plan.foreign) found('foreign partition', foreignMessage(relation), FOREIGN_REMEDY);
    for (const message of unwatched(definition, definitions)) {
      found('looked-up table not watched', message, 'Call `onChangeOf` for that table, too, with all operations.');
    }
  }
  return problems;
}

/**
 * Installs again whatever definitions are kept, for partitions that were added and triggers that were lost, and returns
 * what is left: a table or column that is gone stops no other's repair. Each definition in a transaction of its own, or
 * in the caller's; locks only tables that lack something. Throws ConfigurationError without an outbox; and, when the
 * others are done, TableLockedError, or what PostgreSQL says to a role that may not.
 */
export async function repairTriggers(db: Knex, options: OutboxOptions = {}): Promise<TriggerProblem[]> {
  const outbox = await requireInstalledOutbox(db, options);
  const failures: unknown[] = [];
  for (const { cache, schema, table, name } of await installedDefinitions(db, outbox)) {
    try {
      await underInstallationLock(db, async (trx) => {
        // As it is kept once nobody else installs.
        const [definition] = await installedDefinitions(trx, outbox, { cache, schema, table, name });
        if (definition !== undefined) await repairDefinition(trx, outbox, definition);
      });
    } catch (error) {
      if (!(error instanceof TableLockedError) && !isSqlstate(error, 'insufficient privilege')) throw error;
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
  return checkTriggers(db, options);
}

async function missingFunctions(db: Knex, outbox: InstalledOutbox, definition: TriggerDefinition): Promise<string[]> {
  const names = functionNames(outbox, definition);
  const there = await functionsNamed(db, outbox.schema, names);
  return names.filter((name) => !there.has(name));
}

function functionMissing(name: string): string {
  return `A change is recorded, or looked up, by functions made at installation. ${name} is gone.`;
}

function messageOf(difference: PlanDifference): string {
  switch (difference.problem) {
    case 'function missing':
      return functionMissing(difference.planned.name);
    case 'function altered':
      return `A function is as the definition and the table's columns have it. ${difference.planned.name} is not: it was made by another release, for other columns, or changed by hand.`;
    case 'trigger missing':
      return `The table, each partition and each inheritance child has its triggers. ${qualifiedName(difference.planned.relation)} lacks ${difference.planned.name}.`;
    case 'trigger altered':
      return `A trigger is as it was installed. ${difference.planned.name} on ${qualifiedName(difference.planned.relation)} is another one.`;
    case 'trigger not enabled as installed': {
      const { planned, found } = difference;
      return `A trigger stays enabled as it was installed, ${ENABLED[planned.enabled]}. ${planned.name} on ${qualifiedName(planned.relation)} is ${ENABLED[found.enabled]}.`;
    }
    case 'trigger left over':
    default:
      return `Triggers are on what belongs to the table. ${difference.found.name} is on ${qualifiedName(difference.found.relation)}.`;
  }
}

const ENABLED: Readonly<Record<string, string>> = {
  A: 'ALWAYS',
  R: 'for REPLICA',
  O: 'for ORIGIN',
  D: 'DISABLED',
};

/** docs/protocol.md, rule 3: a row of a looked-up table that another transaction writes at the same time bumps for itself. */
function unwatched(definition: TriggerDefinition, all: readonly InstalledDefinition[]): string[] {
  return definition.bumps.flatMap(({ lookUp }) => {
    if (lookUp === null) return [];
    const watched = all.some(
      ({ cache, schema, table, operations }) =>
        cache === definition.cache &&
        schema === lookUp.schema &&
        table === lookUp.table &&
        ROW_OPERATIONS.every((operation) => operations.includes(operation)),
    );
    if (watched) return [];
    return [
      `A look-up after the commit misses rows that another transaction adds meanwhile, unless these bump for ` +
        `themselves. ${displayName(lookUp.schema, lookUp.table)} has no triggers for insert, update and delete.`,
    ];
  });
}

function list(columns: readonly string[]): string {
  return columns.length === 0 ? 'none' : `(${columns.map((column) => displayName(null, column)).join(', ')})`;
}
