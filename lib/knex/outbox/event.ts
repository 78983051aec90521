import type { Knex } from 'knex';
import type { Frontier } from './frontier.js';
import { type OutboxOptions, qualifier } from './place.js';

/** An event of the outbox, as far as whoever bumps needs it. */
export interface OutboxEvent {
  /** A scope, or what claims to be one; of a lookup, what to bump if it fails. */
  readonly path: string;
  /** `detector UPDATE`: for logs and statistics. */
  readonly cause: string;
  /** All of it, where `path` alone does not say what to bump. */
  readonly odd: OddEvent | null;
}

/** An event with a lookup, or one whose path does not parse. */
export interface OddEvent {
  readonly xid: string;
  readonly seq: string;
  readonly lookup: string | null;
  readonly args: unknown;
  readonly row: string;
}

/** Where a path is none: the relay bumps its nearest ancestor that is one. The grammar is in lib/key.ts. */
export const SEGMENT = '[a-z][A-Za-z0-9_]{0,63}=[A-Za-z0-9_.~%-]{1,220}';
/** Without a question mark, which Knex takes for a binding. */
const PATH = `^(|${SEGMENT}(/${SEGMENT}){0,15})$`;

const EVENT = `
  event.path, event.source || ' ' || event.operation as cause,
  case when event.lookup is not null or event.path !~ '${PATH}' then jsonb_build_object(
    'xid', event.xid::text, 'seq', event.seq::text, 'lookup', event.lookup, 'args', event.args,
    'row', to_jsonb(event)::text) end as odd`;

/**
 * Claims events: takes them out of the outbox in a transaction that commits after they were bumped, and so puts them
 * back by itself if this process dies or gives up. [n <= 2 * max]. Passes over what others have claimed (SKIP LOCKED),
 * and what a migration holds. READ COMMITTED.
 */
export async function claimEvents(
  trx: Knex.Transaction,
  cache: string,
  frontier: Frontier,
  max: number,
  options: OutboxOptions,
): Promise<OutboxEvent[]> {
  const outbox = `${qualifier(options)}gencache_outbox`;
  const { rows } = await trx.raw<{ rows: OutboxEvent[] }>(
    `with late as (
       select xid, seq from ${outbox} where cache = :cache and xid = any(:open::xid8[]) and held_by is null
       order by xid, seq limit :max for update skip locked
     ), latest as (
       select xid, seq from ${outbox} where cache = :cache and xid >= :high::xid8 and held_by is null
       order by xid, seq limit :max for update skip locked
     )
     delete from ${outbox} as event using (select * from late union all select * from latest) as claimed
     where event.cache = :cache and event.xid = claimed.xid and event.seq = claimed.seq
     returning ${EVENT}`,
    { cache, max, ...frontier.bindings } as unknown as Knex.ValueDict,
  );
  return rows;
}

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
 * held (FOR SHARE): a repair waits for it, or it for the repair, and then sees that row's new value.
 */
export async function deleteEventsOf(
  db: Knex,
  cache: string,
  xid: string,
  server: string | undefined,
  options: OutboxOptions,
): Promise<void> {
  const at = qualifier(options);
  await db.raw(
    `with counted as (select redis from ${at}gencache_incarnation where cache = :cache for share)
     delete from ${at}gencache_outbox where cache = :cache and xid = :xid::xid8 and seq = any(array(
       select seq from ${at}gencache_outbox where cache = :cache and xid = :xid::xid8 and held_by is null
       for update skip locked))
     and not exists (select from counted where redis is distinct from :server)`,
    { cache, xid, server: server ?? null } as unknown as Knex.ValueDict,
  );
}

/** Keeps events that could not be understood, with what was bumped for them, and why. */
export async function setAside(
  trx: Knex.Transaction,
  events: readonly { readonly event: OddEvent; readonly bumped: string; readonly reason: string }[],
  options: OutboxOptions,
): Promise<void> {
  if (events.length === 0) return;
  const at = qualifier(options);
  await trx.raw(
    `insert into ${at}gencache_set_aside
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
