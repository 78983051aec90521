import type { EventPosition, EventRanges } from './event-position.js';
import type { Knex } from 'knex';
import { lifeSql } from './incarnation.js';
import { layoutsSql } from './layouts.js';
import { type OutboxOptions, qualifier } from './location.js';
import { checkHiddenTables, type MayHide, mayHideSql } from './row-security.js';
import { parseSnapshot, type Snapshot } from '../postgres/snapshot.js';
import { query } from '../postgres/query.js';
import { literal } from '../postgres/sql-text.js';

/** The state of the outbox for one cache, in one snapshot. */
export interface OutboxSurvey {
  readonly snapshot: Snapshot;
  /** The life of PostgreSQL: start, and a boot id that a crash erases (`incarnation.ts`); undefined right after a crash. */
  readonly life: string | undefined;
  /** The authoritative incarnations; undefined before the first epoch. Those of several partitions are in `partitions`. */
  readonly authority: Authority | undefined;
  /** The surveyed partitions, by name. */
  readonly partitions: ReadonlyMap<string, SurveyedPartition>;
  /** The registered layouts of a cache on a store with partitions (`layouts.ts`). */
  readonly layouts: readonly number[];
  /** Those of the frontier's pending transactions that have events. */
  readonly pendingEvents: readonly EventPosition[];
  /** The first transactions with events from the watermark on: one, or as many as the earlier snapshots need. */
  readonly tail: readonly EventPosition[];
  /** Whether the tail was cut at its limit, so that later transactions are not listed. */
  readonly isTailCut: boolean;
  /** Transactions with events that a migration holds. */
  readonly heldByMigration: readonly EventPosition[];
  /** Number of lookup functions in the outbox's schema: no lookup of a cache rests on more of them, itself included. */
  readonly lookups: number;
  /** Age of the oldest event or owed bump, in ms, by PostgreSQL's clock; undefined without any. For reports only. */
  readonly lagMs: number | undefined;
}

/** The authoritative Redis and PostgreSQL incarnations, the epoch id, and how long this epoch has lasted. */
export interface Authority {
  readonly redis: string;
  readonly postgres: string;
  /** A new id whenever authority is taken, also by the same incarnations. */
  readonly epoch: string;
  readonly sinceMs: number;
}

/** The state of one of several partitions of the cache. */
export interface SurveyedPartition {
  /** Undefined before its first epoch. */
  readonly authority: Authority | undefined;
  /** The first of the bumps that it owes; undefined if it owes none. */
  readonly owed: { readonly xid: bigint; readonly lagMs: number } | undefined;
}

/** The oldest and the latest of the earlier snapshots for which the survey tells whether they saw events that are left. */
export interface EarlierSnapshots {
  readonly oldest: Snapshot;
  readonly latest: Snapshot;
}

/** The tail lists transactions until one was visible in the oldest of the earlier snapshots, and at most so many. */
export const TAIL_MAX = 256;

export interface SurveyOptions {
  readonly cache: string;
  /** Where events can be: the frontier's ranges, or `EVERYWHERE`. */
  readonly ranges: EventRanges;
  readonly earlier?: EarlierSnapshots | undefined;
  /** The names of the partitions of a cache that has several. */
  readonly partitions?: readonly string[];
  readonly outbox: OutboxOptions;
  readonly answerMs?: number;
}

/**
 * One query by index, in one snapshot; takes no locks, so it sees claimed events as well. It reads no row that was
 * deleted before the frontier, and only the first event of each transaction.
 *
 * `recorded_at` is reported only: the bound relies on snapshots. Rejects without an answer within `answerMs`, and gives that
 * connection up. Throws HiddenRowsError.
 */
export async function surveyOutbox(
  db: Knex,
  { cache, ranges, earlier, partitions = [], outbox: location, answerMs = ANSWER_MS }: SurveyOptions,
): Promise<OutboxSurvey> {
  const at = qualifier(location);
  const outbox = `${at}gencache_outbox`;
  const { pending, watermark } = ranges;
  const isOne = partitions.length === 0;
  const read = isOne ? READ_TABLES : PARTITIONED_TABLES;
  const rows = await query<Row>(
    db,
    `with recursive tail (xid, seq, recorded_at, n) as (
         (select xid, seq, recorded_at, 1 from ${outbox}
          where cache = :cache and (xid, seq) >= (cast(:highXid as xid8), cast(:highSeq as bigint)) and held_by is null
          order by xid, seq limit 1)
         union all
         select next.xid, next.seq, next.recorded_at, n + 1 from tail, lateral (
           select xid, seq, recorded_at from ${outbox}
           where cache = :cache and xid > tail.xid and held_by is null order by xid, seq limit 1) as next
         where n < :tailMax and tail.xid < cast(:latestXmax as xid8)
           and not pg_visible_in_snapshot(tail.xid, cast(:oldest as pg_snapshot))
       ), found (kind, xid, seq, recorded_at) as (
         select 'pending', first.* from unnest(cast(:openXids as xid8[]), cast(:openSeqs as bigint[])) as open (xid, seq),
           lateral (
             select xid, seq, recorded_at from ${outbox}
             where cache = :cache and xid = open.xid and seq >= open.seq and held_by is null
             order by xid, seq limit 1) as first
         union all
         select 'tail', xid, seq, recorded_at from tail
         union all
         select 'held', xid, min(seq), min(recorded_at) from ${outbox}
         where cache = :cache and held_by is not null group by xid
       )
       select
         pg_current_snapshot()::text as snapshot,
         ${lifeSql(location)} as life,
         ${isOne ? `(select ${AUTHORITY} from ${at}gencache_authority where cache = :cache) as authority,` : partitionsSql(at)}
         (select jsonb_agg(jsonb_build_array(kind, xid::text, seq::text) order by xid, seq) from found) as found,
         (select count(*)::int from pg_catalog.pg_proc where proname >= 'gencache_lookup_' and proname < 'gencache_lookup\`'
            and pronamespace = (select relnamespace from pg_catalog.pg_class where oid = ${literal(outbox)}::regclass)) as lookups,
         (select extract(epoch from clock_timestamp() - min(recorded_at)) * 1000 from found) as "lagMs",
         ${mayHideSql(location, read)} as "mayHide"`,
    {
      cache,
      highXid: String(watermark.xid),
      highSeq: String(watermark.seq),
      tailMax: TAIL_MAX,
      latestXmax: String(earlier?.latest.xmax ?? 0),
      oldest: earlier?.oldest.text ?? '1:1:',
      openXids: pending.map(({ xid }) => String(xid)),
      openSeqs: pending.map(({ seq }) => String(seq)),
      ...(!isOne && { names: partitions }),
    },
    { answerMs },
  );
  const { snapshot, life, authority, partitions: surveyed, layouts, found, lookups, lagMs, mayHide } = rows[0]!;
  await checkHiddenTables(db, location, { mayHide, tables: read });
  const of = (kind: string) =>
    (found ?? []).filter((each) => each[0] === kind).map(([, xid, seq]) => ({ xid: BigInt(xid), seq: BigInt(seq) }));
  const tail = of('tail');
  const ofEach = (surveyed ?? []).map(([name, epoch, owed]) => {
    const first = owed === null ? undefined : { xid: BigInt(owed[0]), lagMs: Math.max(0, owed[1]) };
    return [name, { authority: epoch ?? undefined, owed: first }] as const;
  });
  const lags = [
    ...(lagMs === null ? [] : [Math.max(0, Number(lagMs))]),
    ...ofEach.flatMap(([, { owed }]) => owed?.lagMs ?? []),
  ];
  return {
    snapshot: parseSnapshot(snapshot),
    life: life ?? undefined,
    authority: authority ?? undefined,
    partitions: new Map(ofEach),
    layouts: layouts ?? [],
    pendingEvents: of('pending'),
    tail,
    isTailCut: tail.length === TAIL_MAX,
    heldByMigration: of('held'),
    lookups,
    lagMs: lags.length === 0 ? undefined : Math.max(...lags),
  };
}

const AUTHORITY = `jsonb_build_object('redis', redis, 'postgres', postgres, 'epoch', epoch,
  'sinceMs', extract(epoch from clock_timestamp() - changed_at) * 1000)`;

/** A look by index for each partition: its row, and the first that it owes. */
function partitionsSql(at: string): string {
  return `(
    select jsonb_agg(jsonb_build_array(name,
      (select ${AUTHORITY} from ${at}gencache_partition where cache = :cache and partition = name),
      (select jsonb_build_array(xid::text, extract(epoch from clock_timestamp() - recorded_at) * 1000)
       from ${at}gencache_owed where cache = :cache and partition = name order by xid, seq limit 1)))
    from unnest(cast(:names as text[])) as name) as partitions, ${layoutsSql(at)} as layouts,`;
}

/** A connection without an answer for this time, in ms, counts as half-open and is given up: nothing else ends the wait. */
export const ANSWER_MS = 10_000;

/** The tables from which a relay draws conclusions. */
const READ_TABLES = ['outbox', 'dead_letter', 'authority', 'boot'] as const;
const PARTITIONED_TABLES = ['outbox', 'dead_letter', 'boot', 'partition', 'owed', 'layout'] as const;

interface Row {
  readonly snapshot: string;
  readonly life: string | null;
  readonly authority?: Authority | null;
  readonly layouts?: readonly number[];
  readonly partitions?:
    | readonly (readonly [
        name: string,
        authority: Authority | null,
        owed: readonly [xid: string, lagMs: number] | null,
      ])[]
    | null;
  readonly found: readonly (readonly [kind: string, xid: string, seq: string])[] | null;
  readonly lookups: number;
  readonly lagMs: string | null;
  readonly mayHide: MayHide | null;
}
