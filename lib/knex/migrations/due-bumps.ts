/**
 * Parameters of the one statement that records the bumps of migrations for a cache: the scopes to which they narrowed their
 * bumps (`narrow-bump.ts`), or global if one of them did not narrow its bump.
 *
 * The trigger on the migrations table runs the statement for the rows of a change, the lifecycle hooks run it for a
 * migration or a batch. The values are SQL: parameters, or variables of a function.
 */
export interface DueBumps {
  /** The prefix of the outbox's tables: `"app".`, or nothing. */
  readonly at: string;
  readonly cache: string;
  /** A `text[]` of the migrations' names. A null stands for a migration without a name, which narrowed nothing. */
  readonly names: string;
  readonly source: string;
  /** Whether the statement uses up narrowed bumps; each is used once. */
  readonly take: boolean;
  /** Whether to record nothing where this transaction has recorded a global event for migrations already. */
  readonly unlessRecorded: boolean;
}

/** Locks only the rows it deletes. Any isolation level is enough, since Knex's lock admits one run at a time. */
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
