import type { Knex } from 'knex';
import type { TriggerDefinition } from './trigger-definition.js';
import type { InstalledOutbox } from '../outbox/installed-outbox.js';
import { query } from '../postgres/query.js';

/** An installed definition, and the properties of the table for which its functions were generated. */
export interface InstalledDefinition extends TriggerDefinition {
  readonly primaryKey: readonly string[];
  /** The columns that they compare where a change of any column counts; undefined in installations of earlier versions. */
  readonly compared?: readonly string[];
}

export interface WhichTriggers {
  readonly cache?: string;
  readonly schema?: string;
  readonly table?: string;
  readonly name?: string;
}

/** The definitions in `gencache_trigger`, in the order of installation. One query. */
export async function installedDefinitions(
  db: Knex,
  { at }: InstalledOutbox,
  which: WhichTriggers = {},
): Promise<InstalledDefinition[]> {
  const { cache = null, schema = null, table = null, name = null } = which;
  const rows = await query<{ definition: InstalledDefinition }>(
    db,
    `select definition from ${at}gencache_trigger,
       (select ?::text as cache, ?::text as schema, ?::text as "table", ?::text as name) as which
     where definition ->> 'kind' is null -- not the migrations table's
       and gencache_trigger.cache = coalesce(which.cache, gencache_trigger.cache)
       and table_schema = coalesce(which.schema, table_schema)
       and table_name = coalesce(which.table, table_name)
       and gencache_trigger.name = coalesce(which.name, gencache_trigger.name)
     order by installed_at, table_schema, table_name, gencache_trigger.name`,
    [cache, schema, table, name],
  );
  return rows.map(({ definition }) => definition);
}

/** The key of a definition in `gencache_trigger`. */
export type DefinitionKey = Pick<TriggerDefinition, 'cache' | 'schema' | 'table' | 'name'>;

/** Stores a definition, in place of an earlier one under the same key. */
export async function keepDefinition(
  trx: Knex.Transaction,
  { at }: InstalledOutbox,
  { cache, schema, table, name }: DefinitionKey,
  definition: InstalledDefinition | { readonly kind: string },
): Promise<void> {
  await query(
    trx,
    `insert into ${at}gencache_trigger (cache, table_schema, table_name, name, definition) values (?, ?, ?, ?, ?)
     on conflict (cache, table_schema, table_name, name)
     do update set definition = excluded.definition, installed_at = excluded.installed_at`,
    [cache, schema, table, name, JSON.stringify(definition)],
  );
}

/** Deletes a definition. */
export async function forgetDefinition(
  trx: Knex.Transaction,
  { at }: InstalledOutbox,
  { cache, schema, table, name }: DefinitionKey,
): Promise<void> {
  await query(
    trx,
    `delete from ${at}gencache_trigger where cache = ? and table_schema = ? and table_name = ? and name = ?`,
    [cache, schema, table, name],
  );
}
