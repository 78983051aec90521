/**
 * The trigger on Knex's list of migrations: a write to the list, by the CLI, the API or another tool, means that
 * migrations ran.
 *
 * **Invariant.** A statement that changes the list commits with an event: global, or the scopes to which all of its
 * migrations narrowed their bumps. In a batch that is one transaction, the event commits with the migrations. Otherwise
 * Knex writes the list after the migration's own commit, and the lifecycle hooks (`hooks.ts`) cover a crash in between; the
 * trigger in turn covers migrations that run without the hooks.
 *
 * SECURITY DEFINER with a fixed search_path, and a block of its own for all computation from the table, so that a missing
 * grant or column never fails a migration: the event is global then. `gencache.events = 'off'` silences the trigger, as
 * every trigger of the outbox.
 */
import type { Knex } from 'knex';
import { ConfigurationError } from '../../errors/errors.js';
import type { OutboxOptions } from '../outbox/location.js';
import { functionsNamed, type Relation, triggersNamed } from '../postgres/catalog.js';
import { underInstallationLock, ACCESS_EXCLUSIVE, underTableLocks } from '../postgres/table-locks.js';
import { qualifiedName } from '../postgres/identifiers.js';
import { findInstalledOutbox, type InstalledOutbox, requireInstalledOutbox } from '../outbox/installed-outbox.js';
import { recordSafely } from '../outbox/record-safely.js';
import { dropLeftOver } from '../triggers/remove-triggers.js';
import { forgetDefinition, keepDefinition } from '../triggers/trigger-registry.js';
import { TRANSITION_TABLES } from '../postgres/transition-tables.js';
import { functionBody, execute, nameHash, literal } from '../postgres/sql-text.js';
import { checkCacheName } from '../../model/cache-name.js';
import { recordDueBumps } from './due-bumps.js';
import { findMigrationsTable, type MigrationsTable } from './migrations-table.js';
import { query } from '../postgres/query.js';

export interface MigrationsTriggerOptions extends OutboxOptions, MigrationsTable {
  /** The cache whose scopes are bumped. */
  readonly cache: string;
}

/** The name in `gencache_trigger`, beside the triggers on the application's own tables. */
const NAME = 'migrations';
const DEFINITION = { kind: NAME };

/**
 * Bumps the cache after every change of Knex's list of migrations, or of another tool's, named by `table`. Call it in a migration, after `installOutbox`:
 *
 *     export const up = async (db) => {
 *       await installOutbox(db);
 *       await installMigrationsTrigger(db, { cache: 'shop' });
 *     };
 *
 * In one transaction, or the caller's; holds an advisory lock until its end. Does nothing, and locks no table, where the
 * trigger is up to date. Throws ConfigurationError without an outbox or a list, and TableLockedError.
 */
export async function installMigrationsTrigger(db: Knex, options: MigrationsTriggerOptions): Promise<void> {
  const cache = checkCacheName(options.cache);
  await underInstallationLock(db, async (trx) => {
    const outbox = await requireInstalledOutbox(trx, options);
    const list = await findMigrationsTable(trx, options);
    if (list === undefined) throw missingList(options);
    const planned: PlannedMigrationsTrigger = { outbox, cache, list, source: functionSource(outbox.at, cache, list) };
    if (await isInstalled(trx, planned)) return;
    await underTableLocks(trx, [{ relation: list, mode: ACCESS_EXCLUSIVE }], () => install(trx, planned));
  });
}

/**
 * Drops the trigger and its function; recorded events stay. Does nothing where there is no trigger. In one transaction, or the
 * caller's. Throws TableLockedError.
 */
export async function uninstallMigrationsTrigger(db: Knex, options: MigrationsTriggerOptions): Promise<void> {
  await underInstallationLock(db, async (trx) => {
    const list = await findMigrationsTable(trx, options);
    await uninstall(trx, options, ({ cache, schema, table }) => {
      return cache === options.cache && schema === list?.schema && table === list.name;
    });
  });
}

/** Drops the triggers of every cache, as a part of `uninstallOutbox`. Throws TableLockedError. */
export async function uninstallMigrationsTriggers(trx: Knex.Transaction, options: OutboxOptions): Promise<void> {
  await uninstall(trx, options, () => true);
  const outbox = await findInstalledOutbox(trx, options);
  if (outbox !== undefined) await dropLeftOver(trx, outbox, '^gencache_migrations_[0-9a-f]{16}');
}

/** The caches among these whose trigger on this list is enabled. One query. */
export async function coveredByTrigger(db: Knex, caches: readonly string[], list: Relation): Promise<Set<string>> {
  const rows = await query<{ name: string }>(
    db,
    `select tgname as name from pg_trigger where tgrelid = ?::oid and tgname = any(?) and tgenabled = 'A'`,
    [list.oid, caches.flatMap(triggerNames)],
  );
  const enabled = new Set(rows.map(({ name }) => name));
  return new Set(caches.filter((cache) => triggerNames(cache).every((name) => enabled.has(name))));
}

interface PlannedMigrationsTrigger {
  readonly outbox: InstalledOutbox;
  readonly cache: string;
  /** Knex's list of migrations. */
  readonly list: Relation;
  /** The body of the trigger's function. */
  readonly source: string;
}

async function install(
  trx: Knex.Transaction,
  { outbox, cache, list, source }: PlannedMigrationsTrigger,
): Promise<void> {
  const { at } = outbox;
  const name = functionName(cache, list.schema, list.name);
  await execute(
    trx,
    `create or replace function ${at}${name}() returns trigger
     language plpgsql security definer set search_path = pg_catalog, pg_temp as ${functionBody(source)}`,
  );
  for (const [event, transition] of Object.entries(TRANSITION_TABLES)) {
    const trigger = triggerName(cache, event);
    await execute(trx, `drop trigger if exists ${trigger} on ${qualifiedName(list)}`);
    await execute(
      trx,
      `create trigger ${trigger} after ${event} on ${qualifiedName(list)} ${transition}
       for each statement execute function ${at}${name}()`,
    );
    // ALWAYS: it fires where session_replication_role is `replica`, too.
    await execute(trx, `alter table ${qualifiedName(list)} enable always trigger ${trigger}`);
  }
  await keepDefinition(trx, outbox, { cache, schema: list.schema, table: list.name, name: NAME }, DEFINITION);
}

async function isInstalled(
  trx: Knex.Transaction,
  { outbox: { at, schema }, cache, list, source }: PlannedMigrationsTrigger,
): Promise<boolean> {
  const rows = await query(
    trx,
    `select from ${at}gencache_trigger where cache = ? and table_schema = ? and table_name = ? and name = ?`,
    [cache, list.schema, list.name, NAME],
  );
  const name = functionName(cache, list.schema, list.name);
  const found = (await functionsNamed(trx, schema, [name])).get(name);
  const covered = await coveredByTrigger(trx, [cache], list);
  return rows.length > 0 && found?.source === source && found.definer && covered.has(cache);
}

interface Installed {
  readonly cache: string;
  readonly schema: string;
  readonly table: string;
}

async function uninstall(
  trx: Knex.Transaction,
  options: OutboxOptions,
  which: (row: Installed) => boolean,
): Promise<void> {
  const outbox = await findInstalledOutbox(trx, options);
  if (outbox === undefined) return;
  const rows = await query<Installed>(
    trx,
    `select cache, table_schema as schema, table_name as table from ${outbox.at}gencache_trigger
     where definition->>'kind' = ?`,
    [NAME],
  );
  for (const { cache, schema, table } of rows.filter(which)) {
    const name = functionName(cache, schema, table);
    // By the function, since the table may have another name by now.
    const triggers = (await triggersNamed(trx, triggerNames(cache))).filter((trigger) => trigger.function === name);
    const locks = triggers.map(({ relation }) => ({ relation, mode: ACCESS_EXCLUSIVE }) as const);
    await underTableLocks(trx, locks, async () => {
      await execute(trx, `drop function if exists ${outbox.at}${name}() cascade`);
    });
    await forgetDefinition(trx, outbox, { cache, schema, table, name: NAME });
  }
}

function functionSource(at: string, cache: string, list: Relation): string {
  const due = recordDueBumps({
    at,
    cache: literal(cache),
    names: 'names',
    source: literal(`${list.schema}.${list.name}`),
    take: true,
    unlessRecorded: false,
  });
  return `
  declare
    names text[] := array[null];
  begin
    begin
      if TG_OP = 'INSERT' then select array_agg(name::text) into names from gencache_new;
      elsif TG_OP = 'DELETE' then select array_agg(name::text) into names from gencache_old;
      elsif TG_OP = 'UPDATE' then
        select array_agg(name::text) into names
        from (select name from gencache_new union all select name from gencache_old) as changed;
      end if;
    exception when others then
      names := array[null];
    end;
    if names is null then return null; end if;
    ${recordSafely(at, `${due};`)}
    return null;
  end`;
}

function functionName(cache: string, schema: string, table: string): string {
  return `gencache_migrations_${nameHash(cache, schema, table)}`;
}

function triggerName(cache: string, event: string): string {
  return `gencache_migrations_${nameHash(cache)}_${event}`;
}

function triggerNames(cache: string): string[] {
  return Object.keys(TRANSITION_TABLES).map((event) => triggerName(cache, event));
}

function missingList({ table = 'list of migrations' }: MigrationsTable): ConfigurationError {
  return new ConfigurationError(
    `There is no ${table}. The migrations trigger watches the table in which Knex lists the migrations that have run. ` +
      'Pass its `table`, and its `tableSchema`.',
  );
}
