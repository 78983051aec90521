import type { Knex } from 'knex';
import { EVENT, type OutboxEvent } from './event.js';
import { type OutboxOptions, qualifier } from './location.js';
import { checkHiddenTables, type MayHide, mayHideSql } from './row-security.js';
import { serverSql, type TransactionId } from './transaction-id.js';
import { query } from '../postgres/query.js';
import { queryReadWrite } from '../postgres/read-write.js';
import { ANSWER_MS } from './survey.js';
import { literal } from '../postgres/sql-text.js';

/** The events of a transaction that are still in the outbox, claimed or not. One query, no locks. Throws HiddenRowsError. */
export function eventsOf(db: Knex, cache: string, xid: string, outbox: OutboxOptions): Promise<OutboxEvent[]> {
  const from = `${qualifier(outbox)}gencache_outbox as event where cache = ? and xid = ?::xid8 and held_by is null`;
  return eventsFrom(db, from, [cache, xid], outbox);
}

/** At most `max` events of all other transactions, claimed or held or not. One query, no locks. Throws HiddenRowsError. */
export function waitingEvents(
  db: Knex,
  options: {
    readonly cache: string;
    readonly exceptXid: string;
    readonly max: number;
    readonly outbox: OutboxOptions;
  },
): Promise<OutboxEvent[]> {
  const { cache, exceptXid, max, outbox } = options;
  const from = `(select * from ${qualifier(outbox)}gencache_outbox where cache = ? and xid <> ?::xid8 limit ?) as event`;
  return eventsFrom(db, from, [cache, exceptXid, max], outbox);
}

async function eventsFrom(
  db: Knex,
  from: string,
  bindings: readonly (string | number)[],
  options: OutboxOptions,
): Promise<OutboxEvent[]> {
  const rows = await query<OutboxEvent | { readonly path: null; readonly cause: MayHide }>(
    db,
    `select ${EVENT} from ${from}
     union all select null, ${mayHideSql(options, ['outbox'])}, null where ${mayHideSql(options, ['outbox'])} is not null`,
    bindings,
  );
  const events = rows.filter((row): row is OutboxEvent => row.path !== null);
  const [warning] = rows.filter((row) => row.path === null);
  await checkHiddenTables(db, options, { mayHide: (warning?.cause as MayHide) ?? null, tables: ['outbox'] });
  return events;
}

/**
 * Deletes a transaction's events, if `server`, which took their bump, is the authoritative incarnation, or there is no
 * authority yet. Events that a relay has claimed are left to it. One statement, which locks the row of the authority (FOR
 * SHARE): a repair waits for it, or it waits for the repair and then reads the row's new value. After a crash that lost
 * the transaction, its id may belong to another one: then nothing is deleted; nor where the row of the authority may be hidden.
 */
export async function deleteEventsOf(
  db: Knex,
  xid: TransactionId,
  {
    cache,
    server,
    outbox,
  }: { readonly cache: string; readonly server: string | undefined; readonly outbox: OutboxOptions },
): Promise<void> {
  const at = qualifier(outbox);
  await queryReadWrite(
    db,
    `with authority as (select redis from ${at}gencache_authority where cache = :cache for share)
     delete from ${at}gencache_outbox where cache = :cache and xid = :xid::xid8 and seq = any(array(
       select seq from ${at}gencache_outbox where cache = :cache and xid = :xid::xid8 and held_by is null
       for update skip locked))
     and not exists (select from authority where redis is distinct from :server)
     and ${serverSql(outbox)} = :postgres
     and not row_security_active(${literal(`${at}gencache_authority`)})`,
    { cache, xid: xid.id, server: server ?? null, postgres: xid.server ?? null },
    { answerMs: ANSWER_MS },
  );
}
