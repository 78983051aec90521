import type { Knex } from 'knex';
import type { OutboxOptions } from '../outbox/location.js';
import { isSqlstate } from '../postgres/sqlstate.js';
import { functionsNamed, type Relation } from '../postgres/catalog.js';
import { FOREIGN_REMEDY, foreignMessage, repairDefinition } from './install-triggers.js';
import { underInstallationLock, TableLockedError } from '../postgres/table-locks.js';
import { qualifiedName } from '../postgres/identifiers.js';
import { type InstalledOutbox, requireInstalledOutbox } from '../outbox/installed-outbox.js';
import { type PlanDifference, differences, functionNames, planOf, triggersOf } from './trigger-plan.js';
import { installedDefinitions } from './trigger-registry.js';
import { PublishedCaches } from '../outbox/published-caches.js';
import { type DeclarationFault, declarationFaults, severityOf } from './declaration-faults.js';
import { type DefinitionFault, findNamedTables } from './named-tables.js';
import { displayName } from '../postgres/identifiers.js';
import { graphFacts, type LookupFault, lookupFaults } from './lookup-graph.js';
import type { TriggerDefinition } from './trigger-definition.js';

/** The problems of installed triggers. */
export type TriggerProblemKind =
  | DefinitionFault['problem']
  | DeclarationFault['problem']
  | PlanDifference['problem']
  | 'primary key changed'
  | 'foreign partition'
  | LookupFault['problem']
  | 'looked-up rows hidden';

export interface TriggerProblem {
  readonly cache: string;
  /** The watched table, with its schema: `app.workflow`. */
  readonly table: string;
  readonly problem: TriggerProblemKind;
  /** `warn`: every change is bumped nevertheless, or it is too early to tell. */
  readonly severity: 'broken' | 'warn';
  /** The difference, in one or two sentences. */
  readonly message: string;
  readonly remedy: string;
}

const REPAIR = 'Run `gencache triggers repair`, or call `repairTriggers` in a migration; then bump global.';

/**
 * Compares the definitions with the database: triggers that are missing, on new partitions too, or not enabled as
 * installed; functions that are missing or altered; tables, primary keys, and columns of the definition, that changed;
 * lookups that may miss a scope; and caches, namespaces and types of columns that differ from what applications publish. Empty
 * without a problem; other columns of the table may come, go and change. Returns all problems of a definition, but for a
 * missing table only that. Takes no locks. Throws
 * ConfigurationError without an outbox.
 */
export async function checkTriggers(db: Knex, options: OutboxOptions = {}): Promise<TriggerProblem[]> {
  const outbox = await requireInstalledOutbox(db, options);
  const definitions = await installedDefinitions(db, outbox);
  const published = await PublishedCaches.read(db, outbox);
  const facts = await graphFacts(db, definitions);
  const problems: TriggerProblem[] = [];
  for (const definition of definitions) {
    const found = (
      problem: TriggerProblemKind,
      message: string,
      remedy: string,
      severity: TriggerProblem['severity'] = 'broken',
    ) =>
      problems.push({
        cache: definition.cache,
        table: displayName(definition.schema, definition.table),
        problem,
        severity,
        message,
        remedy,
      });
    const tables = await findNamedTables(db, definition);
    const faults = 'faults' in tables ? tables.faults : undefined;
    for (const { problem, message, remedy } of faults ?? []) found(problem, message, remedy);
    for (const fault of declarationFaults(definition, 'faults' in tables ? undefined : tables, published)) {
      found(fault.problem, fault.message, fault.remedy, await severityOf(db, outbox, definition, fault, published));
    }
    if (tables.changed === undefined) continue;
    const { primaryKey } = tables.changed;
    const plan =
      'faults' in tables
        ? await triggersOf(db, outbox, definition, tables.changed)
        : await planOf(db, outbox, definition, tables, definition.compared);
    if (faults !== undefined) {
      // The remedy of the fault, an installation on existing columns, restores the function.
      for (const name of await missingFunctions(db, outbox, definition)) {
        found('function missing', functionMissing(name), faults[0]!.remedy);
      }
    } else if (primaryKey.join() !== definition.primaryKey.join()) {
      found(
        'primary key changed',
        `The primary key, which pairs the old and new rows of an UPDATE, was ${list(definition.primaryKey)} at installation and is ${list(primaryKey)}.`,
        REPAIR,
      );
    }
    for (const difference of await differences(db, plan)) {
      // The new key needs another function: that problem is reported above.
      if (difference.problem === 'function altered' && primaryKey.join() !== definition.primaryKey.join()) continue;
      found(difference.problem, messageOf(difference), REPAIR);
    }
    for (const relation of plan.foreign) found('foreign partition', foreignMessage(relation), FOREIGN_REMEDY);
    for (const table of 'faults' in tables ? [] : tables.lookedUp.flat()) {
      if (table.hidesRows) found('looked-up rows hidden', hiddenMessage(table), HIDDEN_REMEDY);
    }
    for (const { problem, message, remedy } of lookupFaults(definition, definitions, facts)) {
      found(problem, message, remedy);
    }
  }
  return problems;
}

/**
 * Installs all stored definitions again, for partitions that were added and triggers that were lost, and returns the
 * remaining problems: a missing table or column does not stop the repair of other definitions. Each definition in a
 * transaction of its own, or in the caller's; locks only tables with a difference. Throws ConfigurationError without an
 * outbox; and, after the other definitions, TableLockedError or PostgreSQL's error for a missing right.
 */
export async function repairTriggers(db: Knex, options: OutboxOptions = {}): Promise<TriggerProblem[]> {
  const outbox = await requireInstalledOutbox(db, options);
  const failures: unknown[] = [];
  for (const { cache, schema, table, name } of await installedDefinitions(db, outbox)) {
    try {
      await underInstallationLock(db, async (trx) => {
        // Read again under the lock: another installation may have changed it.
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
  return `The function ${name}, which records or looks up changes, is missing.`;
}

function messageOf(difference: PlanDifference): string {
  switch (difference.problem) {
    case 'function missing':
      return functionMissing(difference.planned.name);
    case 'function altered':
      return `The function ${difference.planned.name} differs from the one for this definition and the table's columns: another release made it, the columns have changed, or it was changed by hand.`;
    case 'trigger missing':
      return `The trigger ${difference.planned.name} is missing on ${qualifiedName(difference.planned.relation)}. The table, each partition and each inheritance child needs its own.`;
    case 'trigger altered':
      return `The trigger ${difference.planned.name} on ${qualifiedName(difference.planned.relation)} differs from the installed one.`;
    case 'trigger not enabled as installed': {
      const { planned, found } = difference;
      return `The trigger ${planned.name} on ${qualifiedName(planned.relation)} was installed as ${ENABLED[planned.enabled]} and is ${ENABLED[found.enabled]}.`;
    }
    case 'trigger left over':
    default:
      return `The trigger ${difference.found.name} is on ${qualifiedName(difference.found.relation)}, which does not belong to the table.`;
  }
}

function hiddenMessage(table: Relation): string {
  return (
    `Row level security hides rows of ${displayName(table.schema, table.name)} from this role. A lookup by a role like ` +
    'that is refused, and global is bumped in its place.'
  );
}

const HIDDEN_REMEDY =
  'Give the role of the relays and of the writers BYPASSRLS, or let the owner of the table run relays, without FORCE.';

const ENABLED: Readonly<Record<string, string>> = {
  A: 'ALWAYS',
  R: 'for REPLICA',
  O: 'for ORIGIN',
  D: 'DISABLED',
};

function list(columns: readonly string[]): string {
  return columns.length === 0 ? 'none' : `(${columns.map((column) => displayName(null, column)).join(', ')})`;
}
