import type { Knex } from 'knex';
import { isScope } from '../../model/path.js';
import { query, verbatim } from '../postgres/query.js';
import { literal } from '../postgres/sql-text.js';
import { EVENT_POSITION, EVENT_UNCHECKED, EVENT_WHOLE, type OutboxEvent } from './event.js';
import type { EventRanges } from './event-position.js';
import { type OutboxOptions, qualifier } from './location.js';

export interface ClaimOptions {
  readonly cache: string;
  /** Where events can be: the frontier's ranges, or `EVERYWHERE`. */
  readonly ranges: EventRanges;
  readonly max: number;
  readonly outbox: OutboxOptions;
  /** Whether each event comes with its whole row, as `hasInvalidPath` demands. */
  readonly whole?: boolean;
  /** Whether each event comes with its position and time, as `keepOwed` needs them. */
  readonly positions?: boolean;
}

const XID_MAX = 2n ** 64n - 1n;

/** Runs `claimSql` in a transaction. Returns at most `max` events. */
export function claimEvents(trx: Knex, options: ClaimOptions): Promise<OutboxEvent[]> {
  return query<OutboxEvent>(trx, claimSql(options));
}

/**
 * The statement that claims events: it deletes them in a transaction that commits after their bump, so that a rollback puts
 * them back if this process dies or gives up. It skips events that other relays have claimed (SKIP LOCKED), and events that a
 * migration holds. READ COMMITTED.
 *
 * It forces index ranges and row addresses, since the planner's statistics show an empty table: it reads the claimed rows, rows
 * that others have claimed, and rows deleted since the frontier moved. It has no parameters, so that it can share a message with
 * BEGIN.
 *
 * The paths come unchecked. If one is invalid (`hasInvalidPath`), the caller rolls back, and claims again with whole rows, which
 * a dead letter needs. A claim that returned them always, or that checked paths by regular expressions, took PostgreSQL 2.7 µs a row
 * of its own time in place of 1.6 (PostgreSQL 15, 2026-11).
 */
export function claimSql({
  cache,
  ranges: { pending, watermark },
  max,
  outbox: location,
  whole = false,
  positions = false,
}: ClaimOptions): string {
  const outbox = `${qualifier(location)}gencache_outbox`;
  const [limit, ofCache] = [Math.floor(max), literal(cache)];
  const from = `'${watermark.xid}'::xid8, ${watermark.seq}::bigint`;
  const ranges = [...pending.map(({ xid, seq }) => ({ xid, seq, until: xid + 1n })), { ...watermark, until: XID_MAX }];
  const array = (values: readonly bigint[]) => `'{${values.join()}}'`;
  const claimed =
    pending.length === 0
      ? `select ctid from ${outbox}
         where cache = ${ofCache} and (xid, seq) >= (${from}) and held_by is null
         order by xid, seq limit ${limit} for update skip locked`
      : `select found.row
         from unnest(${array(ranges.map(({ xid }) => xid))}::xid8[], ${array(ranges.map(({ seq }) => seq))}::bigint[],
             ${array(ranges.map(({ until }) => until))}::xid8[]) as range (xid, seq, until),
           lateral (
             select ctid as row from ${outbox}
             where cache = ${ofCache} and (xid, seq) >= (range.xid, range.seq) and xid < range.until and held_by is null
             order by xid, seq limit ${limit} for update skip locked) as found
         limit ${limit}`;
  return verbatim(`delete from ${outbox} as event where ctid = any(array(
       ${claimed}))
     returning ${whole ? EVENT_WHOLE : EVENT_UNCHECKED}${positions ? `, ${EVENT_POSITION}` : ''}`);
}

/** Whether an event without a lookup has a path that is no scope, and came without its row. */
export function hasInvalidPath(events: readonly OutboxEvent[]): boolean {
  return events.some(({ path, unresolved }) => unresolved === null && !isScope(path));
}
