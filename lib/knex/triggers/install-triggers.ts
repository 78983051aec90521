import { isDeepStrictEqual } from 'node:util';
import type { Knex } from 'knex';
import { ConfigurationError } from '../../errors/errors.js';
import { functionsNamed, type Relation, triggersNamed } from '../postgres/catalog.js';
import { graphFacts, lookupFaults } from './lookup-graph.js';
import { hopsOf, type TriggerDefinition } from './trigger-definition.js';
import { ACCESS_EXCLUSIVE, SHARE_ROW_EXCLUSIVE, type TableLock, underTableLocks } from '../postgres/table-locks.js';
import { displayName, qualifiedName } from '../postgres/identifiers.js';
import type { InstalledOutbox } from '../outbox/installed-outbox.js';
import { type PlanDifference, differences, functionNames, namesOf, planOf, triggersOf } from './trigger-plan.js';
import { quoted } from '../postgres/identifiers.js';
import {
  forgetDefinition,
  type InstalledDefinition,
  installedDefinitions,
  keepDefinition,
} from './trigger-registry.js';
import { comparedColumns } from './generate/rows.js';
import { refuseUnstableExpressions } from './expressions.js';
import { findNamedTables, type NamedTables } from './named-tables.js';
import { execute } from '../postgres/sql-text.js';

/**
 * Installs the functions and triggers of a definition, under the installation lock. Locks the tables whose triggers change,
 * and no others: replacing a function takes no lock on the tables that call it. Throws ConfigurationError,
 * TableLockedError.
 */
export async function installDefinition(
  trx: Knex.Transaction,
  outbox: InstalledOutbox,
  definition: TriggerDefinition,
): Promise<void> {
  const tables = await findNamedTables(trx, definition);
  if ('faults' in tables) {
    const [fault] = tables.faults;
    throw new ConfigurationError(`${fault!.message} ${fault!.remedy}`);
  }
  await refuseUnstableExpressions(trx, outbox, definition, tables.changed);
  await refuseUnsoundLookups(trx, outbox, definition);
  await installOn(trx, outbox, definition, tables);
}

async function installOn(
  trx: Knex.Transaction,
  outbox: InstalledOutbox,
  definition: TriggerDefinition,
  tables: NamedTables,
): Promise<void> {
  const plan = await planOf(trx, outbox, definition, tables);
  if (plan.foreign.length > 0) throw new ConfigurationError(`${foreignMessage(plan.foreign[0]!)} ${FOREIGN_REMEDY}`);
  const [before] = await installedDefinitions(trx, outbox, definition);
  const now: InstalledDefinition = {
    ...definition,
    primaryKey: tables.changed.primaryKey,
    compared: comparedColumns(tables.changed),
  };
  const needed = new Set(functionNames(outbox, definition));
  const unneeded = before === undefined ? [] : functionNames(outbox, before).filter((name) => !needed.has(name));
  const wrong = await differences(trx, plan);
  if (wrong.length === 0 && isDeepStrictEqual(before, now)) return;
  await change(trx, wrong, async () => {
    await dropFunctions(trx, outbox, unneeded);
    await keepDefinition(trx, outbox, now, now);
  });
}

/**
 * Throws ConfigurationError for a definition with which a lookup of its cache may miss a scope (`lookup-graph.ts`), unless the
 * reason is a table that is not watched yet: a later installation may watch it, and a check reports it meanwhile. Lookups
 * that were wrong before and have nothing to do with the table do not count.
 */
async function refuseUnsoundLookups(
  trx: Knex.Transaction,
  outbox: InstalledOutbox,
  definition: TriggerDefinition,
): Promise<void> {
  const { cache, schema, table, name } = definition;
  const isReplaced = (other: TriggerDefinition) =>
    other.schema === schema && other.table === table && other.name === name;
  const others = (await installedDefinitions(trx, outbox, { cache })).filter((other) => !isReplaced(other));
  const all = [definition, ...others];
  const facts = await graphFacts(trx, all);
  const concerned = all.filter(
    ({ bumps, ...of }) =>
      (of.schema === schema && of.table === table) ||
      bumps.some((bump) => hopsOf(bump).some((hop) => hop.schema === schema && hop.table === table)),
  );
  for (const each of concerned) {
    const fault = lookupFaults(each, all, facts).find(({ problem }) => problem !== 'looked-up table not watched');
    if (fault === undefined) continue;
    const whose =
      each === definition ? '' : `With these triggers a lookup of ${displayName(each.schema, each.table)} is wrong. `;
    throw new ConfigurationError(`${whose}${fault.message} ${fault.remedy}`);
  }
}

/**
 * Installs a definition as far as its tables allow, under the installation lock. Where columns are missing no function can
 * be generated; the triggers then call the existing functions, which bump everything. A table that reaches a foreign one
 * is left as it is: with triggers, writes might fail that succeed without. Throws TableLockedError.
 */
export async function repairDefinition(
  trx: Knex.Transaction,
  outbox: InstalledOutbox,
  definition: InstalledDefinition,
): Promise<void> {
  const tables = await findNamedTables(trx, definition);
  if (tables.changed === undefined) return;
  const plan = await triggersOf(trx, outbox, definition, tables.changed);
  if (plan.foreign.length > 0) return;
  if (!('faults' in tables)) return installOn(trx, outbox, definition, tables);
  const calls = await functionsNamed(trx, plan.schema, functionNames(outbox, definition));
  await change(
    trx,
    (await differences(trx, plan)).filter(
      (it) => !('planned' in it && 'function' in it.planned) || calls.has(it.planned.function),
    ),
  );
}

/** PostgreSQL refuses writes that reach a foreign partition through a table with transition tables. */
export function foreignMessage(relation: Relation): string {
  return `${qualifiedName(relation)} is a foreign table: triggers of this database do not see its writes.`;
}

export const FOREIGN_REMEDY = 'Detach it and watch it in its own database, or bump by hand after writes to the table.';

/** Drops a definition's functions, its triggers on any table, and its row. Under the installation lock. */
export async function removeDefinition(
  trx: Knex.Transaction,
  outbox: InstalledOutbox,
  definition: TriggerDefinition,
): Promise<void> {
  const triggers = await triggersNamed(trx, Object.values(namesOf(outbox, definition).triggers));
  const locks = triggers.map(({ relation }) => ({ relation, mode: ACCESS_EXCLUSIVE }) as const);
  await underTableLocks(trx, locks, async () => {
    await dropFunctions(trx, outbox, functionNames(outbox, definition));
    await forgetDefinition(trx, outbox, definition);
  });
}

async function change(
  trx: Knex.Transaction,
  wrong: readonly PlanDifference[],
  further: () => Promise<void> = async () => {},
): Promise<void> {
  await underTableLocks(trx, wrong.flatMap(lockFor), async () => {
    for (const difference of wrong) for (const statement of mend(difference)) await execute(trx, statement);
    await further();
  });
}

function lockFor(difference: PlanDifference): TableLock[] {
  switch (difference.problem) {
    case 'function missing':
    case 'function altered':
      return [];
    case 'trigger missing':
    case 'trigger not enabled as installed':
      return [{ relation: difference.planned.relation, mode: SHARE_ROW_EXCLUSIVE }];
    case 'trigger altered':
    case 'trigger left over':
    default:
      return [{ relation: difference.found.relation, mode: ACCESS_EXCLUSIVE }];
  }
}

function mend(difference: PlanDifference): string[] {
  switch (difference.problem) {
    case 'function missing':
    case 'function altered':
      return [difference.planned.statement];
    case 'trigger missing':
      return create(difference);
    case 'trigger not enabled as installed':
      return [enable(difference)];
    case 'trigger altered':
      return [drop(difference), ...create(difference)];
    case 'trigger left over':
    default:
      return [drop(difference)];
  }
}

type Planned = Extract<
  PlanDifference,
  { problem: 'trigger missing' | 'trigger altered' | 'trigger not enabled as installed' }
>;
type Found = Extract<PlanDifference, { problem: 'trigger altered' | 'trigger left over' }>;

function create({ planned }: Planned): string[] {
  return [`create trigger ${quoted(planned.name)} ${planned.clause}`, enable({ planned })];
}

/** `only`: the triggers of partitions are enabled each by itself. */
function enable({ planned }: Pick<Planned, 'planned'>): string {
  const how = planned.enabled === 'A' ? 'always' : 'replica';
  return `alter table only ${qualifiedName(planned.relation)} enable ${how} trigger ${quoted(planned.name)}`;
}

function drop({ found }: Pick<Found, 'found'>): string {
  return `drop trigger ${quoted(found.name)} on ${qualifiedName(found.relation)}`;
}

/** Together with the triggers that call them, on any table. */
async function dropFunctions(
  trx: Knex.Transaction,
  { schema, at }: InstalledOutbox,
  names: readonly string[],
): Promise<void> {
  for (const name of (await functionsNamed(trx, schema, names)).keys()) {
    await execute(trx, `drop function ${at}${quoted(name)} cascade`);
  }
}
