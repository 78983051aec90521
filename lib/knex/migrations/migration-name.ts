import type { Knex } from 'knex';

/** A migration, as Knex's own source passes it to hooks. */
interface MigrationFile {
  readonly file: string;
  readonly directory: string;
}

/**
 * The name under which Knex records a migration that it passed to a hook; undefined if it is unknown, since hooks do not see
 * a `migrationSource` that was passed to the call. The bump of a migration without a name can't be narrowed.
 */
export function migrationNameOf(db: Knex, migration: unknown): string | undefined {
  if (isFile(migration)) return migration.file;
  const { migrations } = (db.client as { config: Knex.Config }).config;
  const source = migrations?.migrationSource;
  if (source && migration !== undefined) return source.getMigrationName(migration);
  return typeof migration === 'string' ? migration : undefined;
}

function isFile(migration: unknown): migration is MigrationFile {
  const { file, directory } = (migration ?? {}) as Partial<MigrationFile>;
  return typeof file === 'string' && typeof directory === 'string';
}
