import type { Knex } from 'knex';
import * as outbox from '../../../migrations/outbox/001_outbox.js';
import * as authority from '../../../migrations/outbox/002_authority.js';
import * as declaration from '../../../migrations/outbox/003_declaration.js';
import * as partition from '../../../migrations/outbox/004_partition.js';
import { ConfigurationError } from '../../errors/errors.js';
import { findRelation } from '../postgres/catalog.js';
import { underInstallationLock, ACCESS_EXCLUSIVE, type TableLock, underTableLocks } from '../postgres/table-locks.js';
import { uninstallMigrationsTriggers } from '../migrations/migrations-trigger.js';
import { findInstalledOutbox } from '../outbox/installed-outbox.js';
import { removeAll } from '../triggers/remove-triggers.js';
import { dropNotify } from './notify-relays.js';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { checkHiddenTables } from '../outbox/row-security.js';
import { quoted } from '../postgres/identifiers.js';
import { query } from '../postgres/query.js';

interface Step {
  up(db: Pick<Knex, 'raw'>, at?: string): Promise<void>;
  down(db: Pick<Knex, 'raw'>, at?: string): Promise<void>;
}

/** Immutable once released: each later change is a step of its own. The number of a release is that of its steps. */
const STEPS: readonly Step[] = [outbox, authority, declaration, partition];

/** The tables of each step. */
const TABLES = [
  ['release', 'outbox', 'dead_letter', 'trigger', 'narrowed'],
  ['authority', 'boot'],
  ['declaration'],
  ['partition', 'owed', 'layout'],
];

/** The release of the outbox that this package installs. */
export const OUTBOX_RELEASE = STEPS.length;

/**
 * Creates the outbox, or upgrades one of an older release; its events stay. Does nothing where the outbox is up to date, so
 * any number of processes may call it at once. Call it in a migration of your own:
 *
 *     export const up = (db) => installOutbox(db);
 *
 * In one transaction, or the caller's; holds an advisory lock until its end. `release` pins a migration to the release it
 * was written for. Throws HiddenRowsError, a ConfigurationError, where row level security hides rows of the outbox.
 */
export async function installOutbox(
  db: Knex,
  options: OutboxOptions & { readonly release?: number } = {},
): Promise<void> {
  const at = qualifier(options);
  await underInstallationLock(db, async (trx) => {
    if (options.schema !== undefined) await createSchema(trx, options.schema);
    await query(
      trx,
      `create table if not exists ${at}gencache_release (
         version int primary key, installed_at timestamptz not null default clock_timestamp())`,
    );
    const rows = await query<{ version: number }>(trx, `select version from ${at}gencache_release`);
    const listed = new Set(rows.map(({ version }) => version));
    const installed = await installedSteps(trx, options);
    for (const [i, step] of STEPS.slice(0, options.release).entries()) {
      if (!installed.has(i)) await step.up(statementsOf(trx), at);
      if (!listed.has(i + 1)) await query(trx, `insert into ${at}gencache_release (version) values (?)`, [i + 1]);
    }
    await checkHiddenTables(trx, options, { mayHide: 'forced' });
  });
}

/** Creates the schema unless it is there. IF NOT EXISTS would need the right to create it all the same. */
async function createSchema(trx: Knex.Transaction, schema: string): Promise<void> {
  const rows = await query<{ isThere: boolean; mayCreate: boolean; role: string }>(
    trx,
    `select exists (select from pg_namespace where nspname = ?) as "isThere", current_user as role,
       has_database_privilege(current_database(), 'create') as "mayCreate"`,
    [schema],
  );
  const { isThere, mayCreate, role } = rows[0]!;
  if (isThere) return;
  if (mayCreate) return void (await query(trx, `create schema ${quoted(schema)}`));
  throw new ConfigurationError(
    `There is no schema ${quoted(schema)} for the outbox, and the role ${role} may create no schema in this database. ` +
      `As the owner of the database, run: create schema ${quoted(schema)} authorization ${quoted(role)};`,
  );
}

/** Drops every trigger, and the outbox with its events. In one transaction, or the caller's. Throws TableLockedError. */
export async function uninstallOutbox(db: Knex, options: OutboxOptions = {}): Promise<void> {
  const at = qualifier(options);
  await underInstallationLock(db, async (trx) => {
    const release = await installedRelease(trx, options);
    if (release === undefined) return;
    const outbox = await findInstalledOutbox(trx, options);
    if (outbox !== undefined) await removeAll(trx, outbox);
    await uninstallMigrationsTriggers(trx, options);
    await underTableLocks(trx, await locksOn(trx, TABLES.slice(0, release).flat(), options), async () => {
      await dropNotify(trx, options);
      for (const step of STEPS.slice(0, release).toReversed()) await step.down(statementsOf(trx), at);
      await query(trx, `drop table ${at}gencache_release`);
    });
  });
}

/** The part of a Knex that the steps use, past the application's hooks. */
function statementsOf(trx: Knex.Transaction): Pick<Knex, 'raw'> {
  return { raw: ((sql: string) => query(trx, sql)) as Knex['raw'] };
}

/** Locks to drop those of these tables that exist. A query for each table. */
async function locksOn(
  trx: Knex.Transaction,
  tables: readonly string[],
  { schema }: OutboxOptions,
): Promise<TableLock[]> {
  const locks: TableLock[] = [];
  for (const table of tables) {
    const relation = await findRelation(trx, schema, `gencache_${table}`);
    if (relation !== undefined) locks.push({ relation, mode: ACCESS_EXCLUSIVE });
  }
  return locks;
}

/** The release of the installed outbox; undefined if there is none. Two queries. */
export async function installedRelease(db: Knex, options: OutboxOptions = {}): Promise<number | undefined> {
  const installed = await installedSteps(db, options);
  if (installed.size === 0) return undefined;
  const own = Math.max(...installed) + 1;
  const rows = await query<{ version: number | null }>(
    db,
    `select max(version) as version from ${qualifier(options)}gencache_release`,
  );
  const listed = rows[0]!.version ?? own;
  // A later release has steps that this package does not know.
  return listed > STEPS.length ? listed : own;
}

/**
 * The steps whose tables are there, by index. The rows of `gencache_release` do not tell: a test cleaner that empties every
 * table empties that one, too. One query.
 */
async function installedSteps(db: Knex, options: OutboxOptions): Promise<Set<number>> {
  const names = TABLES.flat();
  const rows = await query<{ name: string }>(
    db,
    'select name from unnest(?::text[]) as name where to_regclass(? || name) is not null',
    [names, `${qualifier(options)}gencache_`],
  );
  const there = new Set(rows.map(({ name }) => name));
  return new Set(TABLES.flatMap((tables, i) => (tables.every((name) => there.has(name)) ? [i] : [])));
}

/** Knex migrations of the outbox, for a `migrationSource` apart from the application's own migrations. */
export const outboxMigrations: Knex.MigrationSource<number> = {
  getMigrations: async () => STEPS.map((_, i) => i + 1),
  getMigrationName: (release) => `gencache_outbox_${String(release).padStart(3, '0')}`,
  getMigration: async (release) => ({
    up: (db) => installOutbox(db, { release }),
    down: (db) => (release === 1 ? uninstallOutbox(db) : withdraw(db, release)),
  }),
};

async function withdraw(db: Knex, release: number): Promise<void> {
  await underInstallationLock(db, async (trx) => {
    await query(trx, 'delete from gencache_release where version = ?', [release]);
    if (!(await installedSteps(trx, {})).has(release - 1)) return;
    await underTableLocks(trx, await locksOn(trx, TABLES[release - 1]!, {}), () =>
      STEPS[release - 1]!.down(statementsOf(trx)),
    );
  });
}
