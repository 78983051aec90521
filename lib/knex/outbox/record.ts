import type { Knex } from 'knex';
import { type OutboxOptions, qualifier } from './location.js';
import { serverSql, type TransactionId } from './transaction-id.js';
import { query } from '../postgres/query.js';

/** A bump to record in the outbox. */
export interface NewEvent {
  readonly cache: string;
  /** A scope; `''` for global. */
  readonly path: string;
  /** The origin: a table, the cause of a bump, a migration's name. */
  readonly source: string;
  readonly operation: string;
  /** The table of a migration lock, as `to_regclass` takes it: the event is bumped until that lock is free. */
  readonly heldBy?: string;
}

/**
 * Records events, one at least, in this transaction: they appear when it commits. Returns the id of the transaction. One
 * statement, no locks.
 */
export async function recordEvents(
  trx: Knex,
  events: readonly NewEvent[],
  options: OutboxOptions = {},
): Promise<TransactionId> {
  const columns = [
    events.map((event) => event.cache),
    events.map((event) => event.path),
    events.map((event) => event.source),
    events.map((event) => event.operation),
    events.map((event) => event.heldBy ?? null),
  ];
  const rows = await query<{ id: string; server: string | null }>(
    trx,
    `insert into ${qualifier(options)}gencache_outbox (cache, path, source, operation, held_by)
     select * from unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::text[])
     returning xid::text as id, ${serverSql(options)} as server`,
    columns,
  );
  const { id, server } = rows[0]!;
  return { id, server: server ?? undefined };
}
