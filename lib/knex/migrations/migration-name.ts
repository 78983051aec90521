import type { Knex } from 'knex';

/** What Knex's own source of migrations passes to hooks. */
interface MigrationFile {
  readonly file: string;
  readonly directory: string;
}

/**
 * The name that Knex records for what it passed to a hook; undefined if that can't be told, since hooks don't see a
 * `migrationSource` that was passed to the call. Nobody can narrow the bump of a migration without a name.
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
