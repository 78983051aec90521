/**
 * The authority of the partitions of a cache that has several (docs/protocol.md, rule 10a), each by its name: `17/64`. A cache
 * with one partition has its row in `gencache_authority` (`authority.ts`).
 */
import type { Knex } from 'knex';
import { query } from '../postgres/query.js';
import { queryReadWrite } from '../postgres/read-write.js';
import type { Epoch } from './authority.js';
import { layoutsSql } from './layouts.js';
import { type OutboxOptions, qualifier } from './location.js';
import { ANSWER_MS } from './survey.js';

/** What a relay reads right before it commits. */
interface PresentAuthority {
  /** The authoritative incarnation of Redis, by partition. */
  readonly authority: ReadonlyMap<string, string>;
  /** The registered layouts (`layouts.ts`). */
  readonly layouts: readonly number[];
}

/**
 * The authoritative incarnation of Redis of each of these partitions, which stays so until this transaction commits (FOR
 * SHARE), as `authoritativeRedis` has it. Rows are locked in the order of their names, as by a claim. One query.
 */
export async function authoritativeRedisOf(
  trx: Knex,
  names: readonly string[],
  { cache, outbox }: { readonly cache: string; readonly outbox: OutboxOptions },
): Promise<PresentAuthority> {
  const at = qualifier(outbox);
  const rows = await query<{ partitions: readonly (readonly [string, string])[]; layouts: readonly number[] }>(
    trx,
    `with locked as (
       select partition, redis from ${at}gencache_partition
       where cache = :cache and partition = any(cast(:names as text[])) order by partition for share)
     select (select coalesce(json_agg(json_build_array(partition, redis)), '[]') from locked) as partitions,
       ${layoutsSql(at)} as layouts`,
    { cache, names },
  );
  const { partitions, layouts } = rows[0]!;
  return { authority: new Map(partitions), layouts };
}

/** A partition to claim: the incarnation of its server, and the epoch that must still be the present one. */
export interface PartitionClaim {
  readonly partition: string;
  readonly redis: string;
  readonly seen: Epoch | undefined;
}

/** An epoch that this relay began, and what the partition owed before it: rows, for `deleteCovered`. */
export interface ClaimedEpoch extends Epoch {
  readonly covered: readonly CoveredRow[];
}

type CoveredRow = string & { readonly [brand]: 'CoveredRow' };
declare const brand: unique symbol;

/** Most rows that one claim notes; what is owed beyond them is bumped once more. */
const COVERED_MAX = 10_000;

/**
 * Makes these incarnations authoritative, each if `seen` is still the partition's present epoch, as `claimAuthority` does.
 * Returns the new epochs, by partition; those are missing that another relay claimed first. One statement, committed by itself.
 *
 * The repair that follows bumps the whole partition, so what it owed before is covered. It is deleted after the repair
 * (`deleteCovered`) and not before: a transaction whose events are gone takes a missing debt for a bump that was made.
 */
export async function claimPartitions(
  db: Knex,
  claims: readonly PartitionClaim[],
  { cache, postgres, outbox }: { readonly cache: string; readonly postgres: string; readonly outbox: OutboxOptions },
): Promise<ReadonlyMap<string, ClaimedEpoch>> {
  const at = qualifier(outbox);
  const rows = await queryReadWrite<{ partition: string; epoch: string; covered: readonly CoveredRow[] }>(
    db,
    `with wanted as (
       select * from unnest(cast(:names as text[]), cast(:servers as text[]), cast(:seen as uuid[])) as wanted (name, server, seen)
     ), locked as (
       select partition from ${at}gencache_partition
       where cache = :cache and (partition, epoch) in (select name, seen from wanted) order by partition for update
     ), updated as (
       update ${at}gencache_partition
       set redis = server, postgres = :postgres, epoch = gen_random_uuid(), changed_at = clock_timestamp()
       from wanted where cache = :cache and partition = name and partition in (select partition from locked)
       returning partition, epoch
     ), inserted as (
       insert into ${at}gencache_partition (cache, partition, redis, postgres)
       select :cache, name, server, :postgres from wanted where seen is null order by name on conflict do nothing
       returning partition, epoch
     ), claimed as (select * from updated union all select * from inserted
     ), covered as (
       select owed.partition, owed.ctid || ' ' || owed.xmin as row from ${at}gencache_owed as owed join claimed using (partition)
       where cache = :cache limit ${COVERED_MAX}
     )
     select partition, epoch, (select coalesce(json_agg(row), '[]') from covered where covered.partition = claimed.partition) as covered
     from claimed`,
    {
      ...{ cache, postgres },
      names: claims.map(({ partition }) => partition),
      servers: claims.map(({ redis }) => redis),
      seen: claims.map(({ seen }) => seen?.epoch ?? null),
    },
    { answerMs: ANSWER_MS },
  );
  const servers = new Map(claims.map(({ partition, redis }) => [partition, redis]));
  return new Map(
    rows.map(({ partition, epoch, covered }) => [
      partition,
      { redis: servers.get(partition)!, postgres, epoch, covered },
    ]),
  );
}

/**
 * Deletes what partitions owed before a claim, once their repairs are made. Rows that a relay has claimed are left to it. One
 * statement.
 */
export async function deleteCovered(
  db: Knex,
  covered: readonly CoveredRow[],
  { outbox }: { readonly outbox: OutboxOptions },
): Promise<void> {
  const owed = `${qualifier(outbox)}gencache_owed`;
  await queryReadWrite(
    db,
    `delete from ${owed} where ctid = any(array(
       select ctid from ${owed}
       where ctid = any(cast(:places as tid[])) and ctid || ' ' || xmin = any(cast(:covered as text[])) for update skip locked))`,
    { covered, places: covered.map((row) => row.slice(0, row.indexOf(' '))) },
    { answerMs: ANSWER_MS },
  );
}
