import type { Knex } from 'knex';
import { query } from '../postgres/query.js';
import { type OutboxOptions, qualifier } from './location.js';
import { ANSWER_MS } from './survey.js';

export interface BacklogOptions {
  readonly cache: string;
  /** In ms. */
  readonly olderThanMs: number;
  readonly outbox: OutboxOptions;
}

/**
 * Whether an event waits for longer than `olderThanMs` that no repair covers (docs/protocol.md, rule 23a).
 *
 * Each epoch begins with a repair, so the events that were recorded before the epoch are covered. An event of a
 * transaction that recorded it before the epoch and committed after counts as covered too, although it is not: it is
 * relayed like any other. Events that a migration holds do not count, however long they wait. Claimed events count, since
 * their relay may be stopped. All instants are PostgreSQL's. One query, which reads events until the first that counts;
 * takes no locks.
 */
export async function hasBacklog(db: Knex, { cache, olderThanMs, outbox }: BacklogOptions): Promise<boolean> {
  const at = qualifier(outbox);
  const rows = await query<{ found: boolean }>(
    db,
    `select exists (
       select from ${at}gencache_outbox
       where cache = :cache and held_by is null
         and recorded_at < clock_timestamp() - cast(:olderThanMs as float8) * interval '1 ms'
         and recorded_at > (select changed_at from ${at}gencache_authority where cache = :cache)
     ) as found`,
    { cache, olderThanMs },
    { answerMs: ANSWER_MS },
  );
  return rows[0]!.found;
}

/**
 * Those of these partitions of a cache that has several in which `hasBacklog` is so: bumps that a partition owes count for it
 * alone, and events for all. One query.
 */
export async function partitionsWithBacklog(
  db: Knex,
  partitions: readonly string[],
  { cache, olderThanMs, outbox }: BacklogOptions,
): Promise<ReadonlySet<string>> {
  const at = qualifier(outbox);
  const counts = `recorded_at < clock_timestamp() - cast(:olderThanMs as float8) * interval '1 ms' and recorded_at > changed_at`;
  const rows = await query<{ partition: string }>(
    db,
    `select partition from ${at}gencache_partition as authority
     where cache = :cache and partition = any(cast(:partitions as text[])) and (
       exists (select from ${at}gencache_owed as owed
               where owed.cache = :cache and owed.partition = authority.partition and ${counts})
       or exists (select from ${at}gencache_outbox where cache = :cache and held_by is null and ${counts}))`,
    { cache, partitions, olderThanMs },
    { answerMs: ANSWER_MS },
  );
  return new Set(rows.map(({ partition }) => partition));
}
