import type { Knex } from 'knex';

/** A transaction's id, and the start of the server that gave it, within which it is never given again. */
export interface Xid {
  readonly id: string;
  readonly startedAt: string;
}

/** The id of this transaction; undefined if it has written nothing. Rejects in one that has failed. One query. */
export async function currentXid(trx: Knex.Transaction): Promise<Xid | undefined> {
  const { rows } = await trx.raw<{ rows: { id: string | null; startedAt: string }[] }>(
    `select pg_current_xact_id_if_assigned()::text as id, pg_postmaster_start_time()::text as "startedAt"`,
  );
  const { id, startedAt } = rows[0]!;
  return id === null ? undefined : { id, startedAt };
}

/** What became of a transaction, asked on another connection; undefined if this server can't know. One query. */
export async function outcomeOf(
  db: Knex,
  { id, startedAt }: Xid,
): Promise<'committed' | 'aborted' | 'in progress' | undefined> {
  const { rows } = await db.raw<{ rows: { status: 'committed' | 'aborted' | 'in progress' | null; same: boolean }[] }>(
    `select pg_xact_status(?::xid8) as status, pg_postmaster_start_time()::text = ? as same`,
    [id, startedAt],
  );
  const { status, same } = rows[0]!;
  // A crash may have lost the commit, and its id may be another transaction's by now.
  return same && status !== null ? status : undefined;
}
