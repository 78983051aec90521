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
 * - an unknown COMMIT is neither committed nor aborted, and may become either: its quarantine is not lifted, and lapses.
 *
 * A transaction of which a statement failed refuses the next one, so the id is asked for after `work`: what it swallowed
 * comes out. One that nobody awaited may fail later still: PostgreSQL then answers COMMIT with ROLLBACK.
 */
import type { Knex } from 'knex';
import { endsWithin } from '../async/ends-within.js';
import { ConfigurationError } from '../errors/errors.js';
import type { BumpTarget, Committed, TransactionOptions } from '../ports/source.js';
import { commit, CommitUnknownError } from './commit.js';
import { noteBoot } from './outbox/authority.js';
import type { OutboxOptions } from './outbox/location.js';
import { settleEvents } from './outbox/settle.js';
import { Quarantine } from './strict-commit.js';
import type { Writer } from './writer.js';
import { currentTransactionId, type TransactionId } from './outbox/transaction-id.js';

/**
 * Three queries besides BEGIN, those of `work` and COMMIT, and one command for each 1,000 scopes; strict four, and two.
 * `begun`: told of the transaction before `work` gets it.
 */
export async function transact<T>(
  writer: Writer,
  begun: (trx: Knex.Transaction) => void,
  work: (trx: Knex.Transaction) => Promise<T> | T,
  bumps: BumpTarget,
  { strict = false, isolationLevel }: TransactionOptions<Knex.Transaction>,
): Promise<Committed<T>> {
  const { db, outbox, limits } = writer;
  const trx = await db.transaction(isolationLevel === undefined ? {} : { isolationLevel });
  begun(trx);
  let value: T;
  let xid: TransactionId | undefined;
  const quarantine = strict ? new Quarantine(bumps, limits.quarantineMs) : undefined;
  try {
    value = await work(trx);
    if (trx.isCompleted()) throw endedByItself();
    const current = await currentTransactionId(trx, outbox, quarantine?.preparation);
    if (current === 'ended') throw endedByItself();
    xid = current;
    if (xid !== undefined) await quarantine?.begin(trx, xid, outbox);
  } catch (error) {
    if (!trx.isCompleted()) await trx.rollback().catch(() => {});
    await quarantine?.lift([]).catch(() => {});
    throw error;
  }
  try {
    await commit(writer, trx, xid);
  } catch (error) {
    // It may still commit: its quarantine is left to lapse.
    if (error instanceof CommitUnknownError) quarantine?.end();
    else await quarantine?.lift([]).catch(() => {});
    throw error;
  }
  if (xid === undefined) return { value, bump: 'done', ...quarantine?.outcome };
  try {
    const settling = settleEvents(db, xid, bumps, outbox, quarantine);
    // What has committed is reported, whatever PostgreSQL's connections do: a relay has the rest.
    const limitMs = 2 * limits.settleMs;
    if (!(await endsWithin(limitMs, settling))) {
      throw new Error(`The bump was not settled within ${limitMs} ms of the commit.`);
    }
    await settling;
    return { value, bump: 'done', ...quarantine?.outcome };
  } catch (error) {
    // Readers of what is still under quarantine stay away until it lapses. Whether it stood so far, only a lift can tell.
    return { value, bump: 'pending', ...(strict ? { strict: 'degraded' } : {}), error: error as Error };
  } finally {
    quarantine?.end();
    // Once after a crash, so that later transactions can tell it from the next.
    if (xid.server === undefined) await noteBoot(db, outbox).catch(() => {});
  }
}

/** Runs `work` as a savepoint of the caller's transaction. Returns that transaction's id, if anything was written yet. */
export async function transactWithin<T>(
  outer: Knex.Transaction,
  work: (trx: Knex.Transaction) => Promise<T> | T,
  outbox: OutboxOptions,
): Promise<{ readonly value: T; readonly xid: TransactionId | undefined }> {
  let value!: T;
  let ended = false;
  await outer.transaction(async (trx) => {
    value = await work(trx);
    ended = trx.isCompleted();
  });
  if (ended) throw endedByItself();
  const xid = await currentTransactionId(outer, outbox);
  if (xid === 'ended') throw endedByItself();
  return { value, xid };
}

function endedByItself(): ConfigurationError {
  return new ConfigurationError(
    'transaction() ends its transaction itself. The work given to it has committed or rolled it back. What it committed ' +
      'stays, and a relay bumps what that recorded. Return to commit, throw to roll back.',
  );
}
