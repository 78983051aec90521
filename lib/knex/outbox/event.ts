import type { Knex } from 'knex';
import type { EventRanges } from './event-position.js';
import { type OutboxOptions, qualifier } from './location.js';
import { serverSql, type TransactionId } from './transaction-id.js';

/** An event of the outbox, as far as whoever bumps needs it. */
export interface OutboxEvent {
  /** A scope, or what claims to be one; of a lookup, what to bump if it fails. */
  readonly path: string;
  /** `detector UPDATE`: for logs and statistics. */
  readonly cause: string;
  /** All of it, where `path` alone does not say what to bump. */
  readonly unresolved: UnresolvedEvent | null;
}

/** An event with a lookup, or one whose path may not parse. */
export interface UnresolvedEvent {
  readonly xid: string;
  readonly seq: string;
  readonly lookup: string | null;
  readonly args: unknown;
  readonly row: string;
}

/** Where a path is none: the relay bumps its nearest ancestor that is one. The grammar is in lib/model/key.ts. */
export const SEGMENT = '[a-z][A-Za-z0-9_]{0,63}=[A-Za-z0-9_.~%-]{0,220}';
/**
 * What may be no path, or very long; the first who asks makes sure. To ask for exactly `SEGMENT`, 16 times at most, takes PostgreSQL's
 * regular expressions half a millisecond a row: it counts by states. Without a question mark, which Knex takes for a binding.
 */
const UNRESOLVED_PATH = `(
  event.path !~ '^(|[a-z][A-Za-z0-9_]*=[A-Za-z0-9_.~%-]*(/[a-z][A-Za-z0-9_]*=[A-Za-z0-9_.~%-]*)*)$'
  or length(event.path) > 200 or cardinality(string_to_array(event.path, '/')) > 16
  or length(event.path) > 64 and event.path ~ '[A-Za-z0-9_]{65}=')`;

const EVENT = `
  event.path, event.source || ' ' || event.operation as cause,
  case when event.lookup is not null or ${UNRESOLVED_PATH} then jsonb_build_object(
    'xid', event.xid::text, 'seq', event.seq::text, 'lookup', event.lookup, 'args', event.args,
    'row', to_jsonb(event)::text) end as unresolved`;

/**
 * Claims events: takes them out of the outbox in a transaction that commits after they were bumped, and so puts them
 * back by itself if this process dies or gives up. [n <= max]. Passes over what others have claimed (SKIP LOCKED),
 * and what a migration holds. READ COMMITTED.
 *
 * By index ranges and row addresses, whatever the planner believes about a table that is empty most of the time: it
 * reads what it takes, what others have claimed, and what of this was deleted since the frontier moved.
 */
export async function claimEvents(
  trx: Knex.Transaction,
  cache: string,
  { pending, watermark }: EventRanges,
  max: number,
  options: OutboxOptions,
): Promise<OutboxEvent[]> {
  const outbox = `${qualifier(options)}gencache_outbox`;
  const ranges = [...pending.map(({ xid, seq }) => ({ xid, seq, until: xid + 1n })), { ...watermark, until: XID_MAX }];
  const { rows } = await trx.raw<{ rows: OutboxEvent[] }>(
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
    ] as unknown as Knex.RawBinding[],
  );
  return rows;
}

const XID_MAX = 2n ** 64n - 1n;

/** The events that a transaction recorded and nobody has bumped yet, claimed or not. No locks. */
export async function eventsOf(db: Knex, cache: string, xid: string, options: OutboxOptions): Promise<OutboxEvent[]> {
  const { rows } = await db.raw<{ rows: OutboxEvent[] }>(
    `select ${EVENT} from ${qualifier(options)}gencache_outbox as event
     where cache = ? and xid = ?::xid8 and held_by is null`,
    [cache, xid],
  );
  return rows;
}

/**
 * Deletes what is left of a transaction's events, if `server`, which took their bump, is the incarnation that counts, or
 * none does. What others have claimed is theirs to delete. One statement, in which the row that names the incarnation is
 * held (FOR SHARE): a repair waits for it, or it for the repair, and then sees that row's new value. After a crash that lost
 * the transaction, its id may be another's: then nothing is deleted.
 */
export async function deleteEventsOf(
  db: Knex,
  cache: string,
  xid: TransactionId,
  server: string | undefined,
  options: OutboxOptions,
): Promise<void> {
  const at = qualifier(options);
  await db.raw(
    `with authority as (select redis from ${at}gencache_authority where cache = :cache for share)
     delete from ${at}gencache_outbox where cache = :cache and xid = :xid::xid8 and seq = any(array(
       select seq from ${at}gencache_outbox where cache = :cache and xid = :xid::xid8 and held_by is null
       for update skip locked))
     and not exists (select from authority where redis is distinct from :server)
     and ${serverSql(options)} = :postgres`,
    { cache, xid: xid.id, server: server ?? null, postgres: xid.server ?? null } as unknown as Knex.ValueDict,
  );
}

/** Keeps events that could not be understood, with what was bumped for them, and why. */
export async function keepDeadLetters(
  trx: Knex.Transaction,
  events: readonly { readonly event: UnresolvedEvent; readonly bumped: string; readonly reason: string }[],
  options: OutboxOptions,
): Promise<void> {
  if (events.length === 0) return;
  const at = qualifier(options);
  await trx.raw(
    `insert into ${at}gencache_dead_letter
       (cache, xid, seq, path, lookup, args, source, operation, application, recorded_at, bumped, reason)
     select event.cache, event.xid, event.seq, event.path, event.lookup, event.args, event.source, event.operation,
       event.application, event.recorded_at, given.bumped, given.reason
     from unnest(?::jsonb[], ?::text[], ?::text[]) as given (row, bumped, reason),
       jsonb_populate_record(null::${at}gencache_outbox, given.row) as event
     on conflict do nothing`,
    [
      events.map(({ event }) => event.row),
      events.map(({ bumped }) => bumped),
      events.map(({ reason }) => reason),
    ] as unknown as Knex.RawBinding[],
  );
}
