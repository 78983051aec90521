import type { Knex } from 'knex';
import { ConfigurationError } from '../../errors/errors.js';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { findRelation, type Relation } from '../postgres/catalog.js';
import { qualifiedName } from '../postgres/identifiers.js';
import { query, verbatim } from '../postgres/query.js';

/** The table in which Knex, or another tool, lists the migrations that have run. */
export interface MigrationsTable {
  /** Its name. Default: the one in the `migrations` of the connection's configuration, else `knex_migrations`. */
  readonly table?: string;
  /** Its schema. Default: the one in that configuration, else the search path of the connection. */
  readonly tableSchema?: string;
}

/** Knex's list of migrations; undefined if there is none. One query. */
export function findMigrationsTable(db: Knex, at: MigrationsTable = {}): Promise<Relation | undefined> {
  const { table, tableSchema } = named(db, at);
  return findRelation(db, tableSchema, table);
}

/**
 * The lock that a run takes before Knex calls its hooks, if the configuration names the tables of the run: hooks do not see
 * a `tableName` that was passed to the call.
 */
export interface MigrationLock {
  /** In SQL; undefined if there is no such table. */
  readonly table: string | undefined;
  /** Whether this connection sees the lock as taken. */
  readonly taken: boolean;
}

/** Two queries, and no lock on any row. */
export async function findMigrationLock(db: Knex): Promise<MigrationLock> {
  const { table, tableSchema } = named(db, {});
  const relation = await findRelation(db, tableSchema, `${table}_lock`);
  if (relation === undefined) return { table: undefined, taken: false };
  const rows = await query<{ taken: boolean }>(
    db,
    `select exists (select from ${verbatim(qualifiedName(relation))} where is_locked = 1) as taken`,
  );
  return { table: qualifiedName(relation), taken: rows[0]!.taken };
}

/** The lock of the configuration is not the one that this run took, so it can't hold an event of this run. */
export function notHeld({ table }: MigrationLock): ConfigurationError {
  const found =
    table === undefined ? 'there is no such table' : `${table} is not locked, so this run locked another one`;
  return new ConfigurationError(
    'The knexfile must name the migrations table: bumps follow a migration outside a transaction for as long as Knex ' +
      `holds the lock beside it, but ${found}. Name the table in the knexfile, as \`migrations.tableName\` and ` +
      '`schemaName`, and not in the call that runs the migrations.',
  );
}

function named(db: Knex, { table, tableSchema }: MigrationsTable): { table: string; tableSchema: string | undefined } {
  const { migrations } = (db.client as { config: Knex.Config }).config;
  return {
    table: table ?? migrations?.tableName ?? 'knex_migrations',
    tableSchema: tableSchema ?? migrations?.schemaName ?? undefined,
  };
}

/** Whether there is an outbox. One query. */
export async function hasOutbox(db: Knex, options: OutboxOptions): Promise<boolean> {
  const rows = await query<{ there: boolean }>(db, 'select to_regclass(?) is not null as there', [
    `${qualifier(options)}gencache_outbox`,
  ]);
  return rows[0]!.there;
}
