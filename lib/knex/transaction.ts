/**
 * A transaction whose bumps have happened when it resolves (ladder steps 2 and 4b).
 *
 *     plain    BEGIN  work  [id]         COMMIT  [events] bump       [delete]
 *     strict   BEGIN  work  [id, events] quarantine COMMIT  [events] lift and bump [delete]
 *
 * What a crash, or another process, can do between any two steps:
 *
 * - before COMMIT: PostgreSQL rolls back. Quarantines of a dead writer lapse by themselves, and leave no generation.
 * - during COMMIT: it is settled by PostgreSQL, not by us. `pg_xact_status` on another connection tells which way, as
 *   long as that is the same incarnation; else the outcome is unknown and the call says so. The events are there if
 *   and only if the change is.
 * - after COMMIT: the events are there, for a relay. A relay may have claimed them, may bump and delete them: they are
 *   read with a plain SELECT, and bumped here whether or not anybody else does.
 * - a strict writer that is stopped before COMMIT is sent: PostgreSQL ends its session (idle_in_transaction_session_timeout)
 *   within half of what its quarantine lasts. COMMIT itself can't be bounded, so the quarantine is renewed until it has
 *   returned; if this process dies then, that commit is a plain one.
 *
 * Knex reports an aborted transaction's COMMIT, which rolls back, as a success: the id is asked for as the last
 * statement, which such a transaction refuses.
 */
import type { Knex } from 'knex';
import { ConfigurationError } from '../errors.js';
import type { Bumps, Committed, TransactionOptions } from '../source.js';
import { commit } from './commit.js';
import type { OutboxOptions } from './outbox/place.js';
import { settleEvents } from './outbox/settle.js';
import { Quarantine } from './quarantine.js';
import { currentXid, type Xid } from './xid.js';

/** `begun`: told of the transaction before `work` gets it. */
export async function transact<T>(
  db: Knex,
  outbox: OutboxOptions,
  begun: (trx: Knex.Transaction) => void,
  work: (trx: Knex.Transaction) => Promise<T> | T,
  bumps: Bumps,
  { strict = false, isolationLevel }: TransactionOptions<Knex.Transaction>,
): Promise<Committed<T>> {
  const trx = await db.transaction(isolationLevel === undefined ? {} : { isolationLevel });
  begun(trx);
  let value: T;
  let xid: Xid | undefined;
  const quarantine = strict ? new Quarantine(bumps) : undefined;
  try {
    value = await work(trx);
    if (trx.isCompleted()) throw completedByItself();
    await quarantine?.prepare(trx);
    xid = await currentXid(trx);
    if (xid !== undefined) await quarantine?.begin(trx, xid, outbox);
  } catch (error) {
    if (!trx.isCompleted()) await trx.rollback().catch(() => {});
    await quarantine?.lift([]).catch(() => {});
    throw error;
  }
  try {
    await commit(db, trx, xid);
  } catch (error) {
    await quarantine?.lift([]).catch(() => {});
    throw error;
  }
  if (xid === undefined) return { value, bump: 'done', ...(strict ? { strict: 'kept' } : {}) };
  try {
    await settleEvents(db, xid.id, bumps, outbox, quarantine && ((paths) => quarantine.lift(paths)));
    return { value, bump: 'done', ...quarantine?.outcome };
  } catch (error) {
    // Readers of what is still under quarantine stay away until it lapses.
    return { value, bump: 'pending', ...quarantine?.outcome, error: error as Error };
  } finally {
    quarantine?.end();
  }
}

/** Runs `work` as a savepoint of the caller's transaction. Returns that transaction's id, if anything was written yet. */
export async function transactWithin<T>(
  outer: Knex.Transaction,
  work: (trx: Knex.Transaction) => Promise<T> | T,
): Promise<{ readonly value: T; readonly xid: string | undefined }> {
  const value = await outer.transaction(async (trx) => work(trx));
  const xid = await currentXid(outer);
  return { value, xid: xid?.id };
}

function completedByItself(): ConfigurationError {
  return new ConfigurationError(
    'transaction() ends its transaction itself. The work given to it has committed or rolled it back. What it committed ' +
      'stays, and its events are bumped by a relay. Return to commit, throw to roll back.',
  );
}
