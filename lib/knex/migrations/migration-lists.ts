import type { Knex } from 'knex';
import { findRelation, type Relation } from '../postgres/catalog.js';
import { query } from '../postgres/query.js';

/** A table in which a tool lists the migrations that have run. */
export interface MigrationList {
  readonly relation: Relation;
  readonly tool: string;
}

interface KnownList {
  readonly tool: string;
  /** Its usual name; null: any, since its columns are enough. */
  readonly table: string | null;
  readonly columns: readonly string[];
}

/** The lists of tools, told by name and columns as each tool creates them. docs/operations.md has the same table. */
export const KNOWN_LISTS: readonly KnownList[] = [
  { tool: 'Knex', table: null, columns: ['name', 'batch', 'migration_time'] },
  { tool: 'db-migrate', table: 'migrations', columns: ['name', 'run_on'] },
  { tool: 'node-pg-migrate', table: 'pgmigrations', columns: ['name', 'run_on'] },
  { tool: 'TypeORM', table: 'migrations', columns: ['name', 'timestamp'] },
  { tool: 'Sequelize', table: 'SequelizeMeta', columns: ['name'] },
  { tool: 'Prisma', table: '_prisma_migrations', columns: ['migration_name', 'finished_at'] },
  { tool: 'Drizzle', table: '__drizzle_migrations', columns: ['hash', 'created_at'] },
  { tool: 'Kysely', table: 'kysely_migration', columns: ['name', 'timestamp'] },
  { tool: 'MikroORM', table: 'mikro_orm_migrations', columns: ['name', 'executed_at'] },
  { tool: 'graphile-migrate', table: 'migrations', columns: ['hash', 'previous_hash', 'filename'] },
  { tool: 'Rails, dbmate or golang-migrate', table: 'schema_migrations', columns: ['version'] },
  { tool: 'Django', table: 'django_migrations', columns: ['app', 'name', 'applied'] },
  { tool: 'Alembic', table: 'alembic_version', columns: ['version_num'] },
  { tool: 'Flyway', table: 'flyway_schema_history', columns: ['installed_rank', 'script'] },
  { tool: 'Liquibase', table: 'databasechangelog', columns: ['id', 'author', 'filename'] },
  { tool: 'goose', table: 'goose_db_version', columns: ['version_id', 'is_applied'] },
];

/** Schemas that tools make for their lists. */
const OWN_SCHEMAS = ['drizzle', 'graphile_migrate'];

/** The lists of known tools, on the search path, in these schemas and in those that tools make for them. A query, and one a list. */
export async function findMigrationLists(db: Knex, schemas: readonly string[]): Promise<MigrationList[]> {
  const found = await query<{ schema: string; name: string; tool: string }>(
    db,
    `select distinct on (nspname, relname) nspname as schema, relname as name, known.tool
     from pg_class join pg_namespace on pg_namespace.oid = relnamespace
     join json_to_recordset(?::json) as known (tool text, "table" text, columns json, place int)
       on coalesce(known."table", relname) = relname
     where relkind in ('r', 'p') and nspname = any(current_schemas(false) || ?::name[])
       and not exists (
         select from json_array_elements_text(known.columns) as needed
         where not exists (select from pg_attribute where attrelid = pg_class.oid and attname = needed and not attisdropped))
     order by nspname, relname, known.place`,
    [JSON.stringify(KNOWN_LISTS.map((list, place) => ({ ...list, place }))), [...schemas, ...OWN_SCHEMAS]],
  );
  const lists: MigrationList[] = [];
  for (const { schema, name, tool } of found) {
    const relation = await findRelation(db, schema, name);
    if (relation !== undefined) lists.push({ relation, tool });
  }
  return lists;
}
