import type { Knex } from 'knex';
import { isSqlstate } from '../postgres/sqlstate.js';
import { type OutboxOptions, qualifier } from './location.js';
import { query } from '../postgres/query.js';

/** A transaction's id, and the incarnation of PostgreSQL that gave it, which never gives it again. */
export interface TransactionId {
  readonly id: string;
  /** undefined right after a crash, until the boot is noted: until then this crash can't be told from the next. */
  readonly server: string | undefined;
}

/**
 * SQL for the incarnation of PostgreSQL. After a crash that lost commits, PostgreSQL may give their ids to other
 * transactions. The crash of a single backend leaves the postmaster and its start time as they are, but empties
 * `gencache_boot`. The start is a number, since sessions differ in time zone and date style.
 */
export function serverSql(options: OutboxOptions): string {
  return `(select extract(epoch from pg_postmaster_start_time()) || ' ' || id from ${qualifier(options)}gencache_boot)`;
}

/**
 * The id of a transaction; undefined if it has written nothing; `'ended'` if raw SQL has ended it without Knex. Rejects if
 * one of its statements has failed. `first`: SQL that runs before. One query.
 */
export async function currentTransactionId(
  trx: Knex.Transaction,
  options: OutboxOptions,
  first = '',
): Promise<TransactionId | 'ended' | undefined> {
  try {
    // A savepoint outside a transaction is an error.
    const rows = await query<{ id: string | null; server: string | null }>(
      trx,
      `${first}savepoint gencache; release savepoint gencache;
       select pg_current_xact_id_if_assigned()::text as id, ${serverSql(options)} as server`,
    );
    const { id, server: name } = rows[0]!;
    return id === null ? undefined : { id, server: name ?? undefined };
  } catch (error) {
    if (isSqlstate(error, 'no active SQL transaction')) return 'ended';
    throw error;
  }
}

/** The outcome of a transaction, read on another connection; undefined if this incarnation does not know it. One query. */
export async function outcomeOf(
  db: Knex,
  xid: TransactionId,
  options: OutboxOptions,
): Promise<'committed' | 'aborted' | 'in progress' | undefined> {
  if (xid.server === undefined) return undefined;
  const rows = await query<{ status: 'committed' | 'aborted' | 'in progress' | null }>(
    db,
    `select case when ${serverSql(options)} = ? then pg_xact_status(?::xid8) end as status`,
    [xid.server, xid.id],
  );
  return rows[0]!.status ?? undefined;
}
