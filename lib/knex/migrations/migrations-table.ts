import type { Knex } from 'knex';
import { ConfigurationError } from '../../errors/errors.js';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { findRelation, type Relation } from '../postgres/catalog.js';
import { qualifiedName } from '../postgres/identifiers.js';

/** Where Knex keeps its list of migrations. */
export interface MigrationsTable {
  /** Its name. Default: the one in the `migrations` of the connection's configuration, else `knex_migrations`. */
  readonly table?: string;
  /** Its schema. Default: likewise, else where the connection's search path leads. */
  readonly tableSchema?: string;
}

/** Knex's list of migrations; undefined if it is not there. One query. */
export function findMigrationsTable(db: Knex, at: MigrationsTable = {}): Promise<Relation | undefined> {
  const { table, tableSchema } = named(db, at);
  return findRelation(db, tableSchema, table);
}

/**
 * The lock that a run takes before its hooks are called, if the configuration names the tables it uses: hooks don't see
 * a `tableName` that was passed to the call.
 */
export interface MigrationLock {
  /** As SQL writes it; undefined if it is not there. */
  readonly table: string | undefined;
  /** Whether this run, or one that this connection sees, has it. */
  readonly taken: boolean;
}

/** Two queries, and no lock on any row. */
export async function findMigrationLock(db: Knex): Promise<MigrationLock> {
  const { table, tableSchema } = named(db, {});
  const relation = await findRelation(db, tableSchema, `${table}_lock`);
  if (relation === undefined) return { table: undefined, taken: false };
  const { rows } = await db.raw<{ rows: { taken: boolean }[] }>(
    `select exists (select from ${qualifiedName(relation)} where is_locked = 1) as taken`,
  );
  return { table: qualifiedName(relation), taken: rows[0]!.taken };
}

/** An event outside a transaction is held by the lock, so that lock has to be the one that this run took. */
export function notHeld({ table }: MigrationLock): ConfigurationError {
  const found =
    table === undefined ? 'there is no such table' : `${table} is not locked, so this run locked another one`;
  return new ConfigurationError(
    'A migration outside a transaction is followed by bumps for as long as Knex holds its lock, whose table the ' +
      `configuration names. Here ${found}. Name the migrations table in the knexfile, as \`migrations.tableName\` ` +
      'and `schemaName`, and not in the call that runs them.',
  );
}

function named(db: Knex, { table, tableSchema }: MigrationsTable): { table: string; tableSchema: string | undefined } {
  const { migrations } = (db.client as { config: Knex.Config }).config;
  return {
    table: table ?? migrations?.tableName ?? 'knex_migrations',
    tableSchema: tableSchema ?? migrations?.schemaName ?? undefined,
  };
}

/** Whether there is an outbox. One query, whatever the connection does to results. */
export async function hasOutbox(db: Knex, options: OutboxOptions): Promise<boolean> {
  const { rows } = await db.raw<{ rows: { there: boolean }[] }>('select to_regclass(?) is not null as there', [
    `${qualifier(options)}gencache_outbox`,
  ]);
  return rows[0]!.there;
}
