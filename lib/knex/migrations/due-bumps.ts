/**
 * What migrations make due for a cache, and the one statement that records it: each scope that they narrowed their
 * bumps to (`narrow-bump.ts`), or global if one of them narrowed nothing.
 *
 * The migrations table's trigger runs it for the rows of a statement, the lifecycle hooks for a migration or a batch.
 * Values are SQL: parameters, or a function's variables.
 */
export interface DueBumps {
  /** `"app".`: what stands before the outbox's tables, or nothing. */
  readonly at: string;
  readonly cache: string;
  /** A `text[]` of the migrations' names. A null among them is a migration without a name, which narrowed nothing. */
  readonly names: string;
  readonly source: string;
  /** Whether a narrowed bump is used up by it: each is used once. */
  readonly take: boolean;
  /** Whether a global event for migrations that this transaction has recorded already will do. */
  readonly unlessRecorded: boolean;
}

/** Locks nothing but the rows it takes; any isolation will do, since Knex's lock admits one run at a time. */
export function recordDueBumps({ at, cache, names, source, take, unlessRecorded }: DueBumps): string {
  const narrowed = `${at}gencache_narrowed where cache = ${cache} and migration = any(${names})`;
  const recorded = `exists (
    select from ${at}gencache_outbox
    where cache = ${cache} and xid = pg_current_xact_id() and operation = 'migration' and path = '' and held_by is null)`;
  return `
    with ran as (
      select distinct name from unnest(${names}) as name
    ), narrowed as (
      ${take ? `delete from ${narrowed} returning migration, paths` : `select migration, paths from ${narrowed}`}
    ), wide as (
      select from ran where name is null or name not in (select migration from narrowed)
    ), due as (
      select '' as path where exists (select from wide)
      union
      select path from narrowed, unnest(paths) as path where not exists (select from wide)
    )
    insert into ${at}gencache_outbox (cache, path, source, operation)
    select ${cache}, path, ${source}, 'migration' from due
    where current_setting('gencache.events', true) is distinct from 'off'${unlessRecorded ? ` and not ${recorded}` : ''}`;
}
