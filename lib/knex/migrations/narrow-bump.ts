import { basename, isAbsolute } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Knex } from 'knex';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import { type OutboxOptions, qualifier } from '../outbox/location.js';
import { checkCacheName } from '../../model/cache-name.js';
import { narrowedPaths, type ScopeIds } from './narrowed-paths.js';
import { hasOutbox } from './migrations-table.js';
import { query } from '../postgres/query.js';

export interface WaiveOptions extends OutboxOptions {
  readonly cache: string;
  /** The name under which Knex records the migration, or its file: `import.meta.url`, `__filename`. */
  readonly migration: string | URL;
}

export interface NarrowOptions extends WaiveOptions {
  /** The scopes that the migration bumps instead of global. */
  readonly to: readonly ScopeIds[];
}

/**
 * Declares, in a migration's `up` or `down`, the only scopes whose values the migration changes:
 *
 *     export const up = async (db) => {
 *       await narrowBump(db, { cache: 'shop', migration: import.meta.url, to: [{ customer: 42 }] });
 *       await db('shop_order').where({ customer_id: 42 }).update({ item: 'umbrella' });
 *     };
 *
 * Writes a row on the given connection, in the migration's transaction if it has one. The row is used once, when Knex writes
 * the migration's own row: a session setting would be lost behind a transaction pooler, and would not reach the connection
 * that writes that row. Outside a transaction, the events held for this run (`hooks.ts`) become events of these scopes, held
 * as before. Call it first: a migration that dies before the call bumps global. The scopes of several calls add up. Does
 * nothing without an outbox. Two queries. Throws IdError.
 */
export async function narrowBump(db: Knex, options: NarrowOptions): Promise<void> {
  const cache = checkCacheName(options.cache);
  const migration = migrationName(options.migration);
  const paths = [...new Set(options.to.flatMap(narrowedPaths))];
  if (!(await hasOutbox(db, options))) return;
  const at = qualifier(options);
  // One statement, so that outside a transaction, too, the row and the events change together. The new held events keep
  // the transaction of the old ones, from which their age follows.
  await query(
    db,
    `with narrowed as (
       insert into ${at}gencache_narrowed (cache, migration, paths) values (?, ?, ?::text[])
       on conflict (cache, migration) do update set paths = array(select distinct unnest(gencache_narrowed.paths || excluded.paths))
       returning cache, migration, paths
     ), taken as (
       delete from ${at}gencache_outbox where cache = ? and source = ? and held_by is not null returning held_by, xid
     )
     insert into ${at}gencache_outbox (cache, xid, path, source, operation, held_by)
     select cache, xid, path, migration, 'migration', held_by
     from narrowed, unnest(paths) as path,
       (select held_by, min(xid::text::bigint)::text::xid8 as xid from taken group by held_by) as lock`,
    [cache, migration, paths, cache, migration],
  );
}

/** Declares, in a migration's `up` or `down`, that it changes no cached value: `narrowBump` to no scope. */
export function waiveBump(db: Knex, options: WaiveOptions): Promise<void> {
  return narrowBump(db, { ...options, to: [] });
}

function migrationName(migration: string | URL): string {
  const text = migration instanceof URL ? migration.href : migration;
  if (typeof text !== 'string' || text === '') {
    throw new ConfigurationError(
      `\`migration\` must name one migration, but got ${describe(migration)}. Pass its name, or \`import.meta.url\`.`,
    );
  }
  if (text.startsWith('file:')) return basename(fileURLToPath(text.replace(/[?#].*$/, '')));
  return isAbsolute(text) ? basename(text) : text;
}
