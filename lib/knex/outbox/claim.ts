import type { Knex } from 'knex';
import { EVENT, type OutboxEvent } from './event.js';
import type { EventRanges } from './event-position.js';
import { type OutboxOptions, qualifier } from './location.js';
import { query } from '../postgres/query.js';

export interface ClaimOptions {
  readonly cache: string;
  /** Where events can be: the frontier's ranges, or `EVERYWHERE`. */
  readonly ranges: EventRanges;
  readonly max: number;
  readonly outbox: OutboxOptions;
}

const XID_MAX = 2n ** 64n - 1n;

/**
 * Claims events: deletes them in a transaction that commits after their bump, so that a rollback puts them back if this
 * process dies or gives up. Returns at most `max` events. Skips events that other relays have claimed (SKIP LOCKED),
 * and events that a migration holds. READ COMMITTED.
 *
 * The query forces index ranges and row addresses, since the planner's statistics show an empty table: it reads the
 * claimed rows, rows that others have claimed, and rows deleted since the frontier moved.
 */
export async function claimEvents(
  trx: Knex.Transaction,
  { cache, ranges: { pending, watermark }, max, outbox: location }: ClaimOptions,
): Promise<OutboxEvent[]> {
  const outbox = `${qualifier(location)}gencache_outbox`;
  const ranges = [...pending.map(({ xid, seq }) => ({ xid, seq, until: xid + 1n })), { ...watermark, until: XID_MAX }];
  const rows = await query<OutboxEvent>(
    trx,
    `delete from ${outbox} as event where ctid = any(array(
       select found.row
       from unnest(?::xid8[], ?::bigint[], ?::xid8[]) as range (xid, seq, until), lateral (
         select ctid as row from ${outbox}
         where cache = ? and (xid, seq) >= (range.xid, range.seq) and xid < range.until and held_by is null
         order by xid, seq limit ? for update skip locked) as found
       limit ?))
     returning ${EVENT}`,
    [
      ranges.map(({ xid }) => String(xid)),
      ranges.map(({ seq }) => String(seq)),
      ranges.map(({ until }) => String(until)),
      ...[cache, max, max],
    ],
  );
  return rows;
}
