import type { Knex } from 'knex';
import { isSqlstate } from '../postgres/sqlstate.js';
import { type OutboxOptions, qualifier } from './location.js';

/** A transaction's id, and the server that gave it, which never gives it again. */
export interface TransactionId {
  readonly id: string;
  /** undefined right after a crash, until somebody has noted that boot: then nobody can tell one crash from two. */
  readonly server: string | undefined;
}

/**
 * Who PostgreSQL is. After a crash that lost commits it may give their ids to others. One of a single backend leaves the
 * postmaster running, whose start then tells nothing, but empties `gencache_boot`. As a number: a session has its own
 * time zone, and form of dates.
 */
export function serverSql(options: OutboxOptions): string {
  return `(select extract(epoch from pg_postmaster_start_time()) || ' ' || id from ${qualifier(options)}gencache_boot)`;
}

/**
 * Asks a transaction for its id, undefined if it has written nothing; `'ended'` if it is none: somebody ended it by raw
 * SQL, behind Knex's back. Rejects if one of its statements has failed. `first`: what it is to do before. One query.
 */
export async function currentTransactionId(
  trx: Knex.Transaction,
  options: OutboxOptions,
  first = '',
): Promise<TransactionId | 'ended' | undefined> {
  try {
    // Only a transaction has savepoints.
    const results = await trx.raw<{ rows: { id: string | null; server: string | null }[] }[]>(
      `${first}savepoint gencache; release savepoint gencache;
       select pg_current_xact_id_if_assigned()::text as id, ${serverSql(options)} as server`,
    );
    const { id, server: name } = results.at(-1)!.rows[0]!;
    return id === null ? undefined : { id, server: name ?? undefined };
  } catch (error) {
    if (isSqlstate(error, 'no active SQL transaction')) return 'ended';
    throw error;
  }
}

/** What became of a transaction, asked on another connection; undefined if this server can't know. One query. */
export async function outcomeOf(
  db: Knex,
  xid: TransactionId,
  options: OutboxOptions,
): Promise<'committed' | 'aborted' | 'in progress' | undefined> {
  if (xid.server === undefined) return undefined;
  const { rows } = await db.raw<{ rows: { status: 'committed' | 'aborted' | 'in progress' | null }[] }>(
    `select case when ${serverSql(options)} = ? then pg_xact_status(?::xid8) end as status`,
    [xid.server, xid.id],
  );
  return rows[0]!.status ?? undefined;
}
