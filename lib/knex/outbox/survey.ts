import type { Knex } from 'knex';
import type { Frontier } from './frontier.js';
import { type OutboxOptions, qualifier } from './place.js';
import { parseSnapshot, type Snapshot } from './snapshot.js';

/** What one look at the outbox shows, all of it in one snapshot. */
export interface Survey {
  readonly snapshot: Snapshot;
  /** Who PostgreSQL is now: system, timeline, start, and a boot that a crash forgets; undefined right after a crash. */
  readonly postgres: string | undefined;
  /** Which incarnations count, and for how long they have. */
  readonly counted: { readonly redis: string; readonly postgres: string; readonly sinceMs: number } | undefined;
  /** Of the frontier's open transactions, those with events; and the first with events from `high` on. */
  readonly left: readonly bigint[];
  readonly oldest: bigint | undefined;
  /** Age of the oldest event by PostgreSQL's clock, about; undefined when there is none. For reports only. */
  readonly lagMs: number | undefined;
  /** Whether there are events held by a migration's lock. */
  readonly held: boolean;
  /** For each snapshot asked about: whether an event that is still there was already visible in it. */
  readonly visibleIn: readonly boolean[];
}

/**
 * One query by index, in one snapshot; takes no locks, so events claimed by others count. `asked`: earlier snapshots.
 *
 * A dead row before the frontier is never met. `recorded_at` is only reported: what the bound relies on is snapshots.
 */
export async function survey(
  db: Knex,
  cache: string,
  frontier: Frontier,
  asked: readonly Snapshot[],
  options: OutboxOptions,
): Promise<Survey> {
  const outbox = `${qualifier(options)}gencache_outbox`;
  const { rows } = await db.raw<{ rows: Row[] }>(
    `select
       pg_current_snapshot()::text as snapshot,
       (select concat_ws('/', (select system_identifier from pg_control_system()),
                 substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
                 extract(epoch from pg_postmaster_start_time()), id)
        from ${qualifier(options)}gencache_boot) as postgres,
       (select jsonb_build_object('redis', redis, 'postgres', postgres,
                 'sinceMs', extract(epoch from clock_timestamp() - changed_at) * 1000)
        from ${qualifier(options)}gencache_incarnation where cache = :cache) as counted,
       array(select distinct xid::text from ${outbox}
             where cache = :cache and xid = any(:open::xid8[]) and held_by is null) as "left",
       first.xid::text as oldest,
       extract(epoch from clock_timestamp() - least(first.recorded_at,
         (select min(recorded_at) from ${outbox}
          where cache = :cache and xid = any(:open::xid8[]) and held_by is null),
         (select min(recorded_at) from ${outbox} where cache = :cache and held_by is not null))) * 1000 as "lagMs",
       exists (select from ${outbox} where cache = :cache and held_by is not null) as held,
       array(select
         exists (select from ${outbox} where cache = :cache and xid = any(:open::xid8[])
                 and pg_visible_in_snapshot(xid, asked.snapshot))
         or exists (select from ${outbox} where cache = :cache and xid >= :high::xid8
                    and xid < pg_snapshot_xmax(asked.snapshot) and pg_visible_in_snapshot(xid, asked.snapshot))
         or exists (select from ${outbox} where cache = :cache and held_by is not null
                    and pg_visible_in_snapshot(xid, asked.snapshot))
         from unnest(:asked::pg_snapshot[]) with ordinality as asked (snapshot, n) order by n) as "visibleIn"
     from (values (1)) as one
     left join lateral (
       select xid, recorded_at from ${outbox}
       where cache = :cache and xid >= :high::xid8 and held_by is null
       order by xid, seq limit 1
     ) as first on true`,
    { cache, ...frontier.bindings, asked: asked.map(({ text }) => text) } as unknown as Knex.ValueDict,
  );
  const row = rows[0]!;
  return {
    ...row,
    snapshot: parseSnapshot(row.snapshot),
    postgres: row.postgres ?? undefined,
    counted: row.counted ?? undefined,
    left: row.left.map(BigInt),
    oldest: row.oldest === null ? undefined : BigInt(row.oldest),
    lagMs: row.lagMs === null ? undefined : Math.max(0, Number(row.lagMs)),
  };
}

interface Row {
  readonly snapshot: string;
  readonly postgres: string | null;
  readonly counted: { readonly redis: string; readonly postgres: string; readonly sinceMs: number } | null;
  readonly left: readonly string[];
  readonly oldest: string | null;
  readonly lagMs: string | null;
  readonly held: boolean;
  readonly visibleIn: readonly boolean[];
}
