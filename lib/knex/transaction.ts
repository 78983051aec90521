/**
 * A transaction whose bumps have happened when it resolves (ladder steps 2 and 4b). A plain and a strict commit run the
 * same steps; the strategy of the commit fills in the four in brackets:
 *
 *     [before BEGIN]  BEGIN  work  [preparation]  id  [before COMMIT]  COMMIT  read events  [bump]  delete events
 *
 *     plain   nothing           no preparation         nothing          bump
 *     strict  a store is there  deferred triggers run  quarantine       lift of the quarantine, and bump
 *
 * The transaction passes through these states, and a crash, or another process, may come between any two steps:
 *
 * - Open, until COMMIT is sent. If this process dies, PostgreSQL rolls back. The quarantine of a dead writer lapses by
 *   itself and leaves no generation. A strict writer that is suspended here loses its session
 *   (idle_in_transaction_session_timeout) within half of the time that its quarantine lasts.
 * - Committing, until the outcome of COMMIT is known. PostgreSQL decides it: where the reply is lost, `pg_xact_status`
 *   on another connection tells the outcome, as long as the server is the same incarnation. COMMIT can't be bounded, so
 *   the quarantine is renewed until its lift; if this process dies here, the commit is a plain one.
 * - Unknown, when PostgreSQL can't tell. The transaction may still commit, so its quarantine is not lifted, and lapses.
 *   The call rejects with CommitUnknownError.
 * - Aborted: nothing was committed. The quarantine is lifted, and the call rejects with the error.
 * - Committed: the events are in the outbox, for a relay. A relay may have claimed them, may bump and delete them: so a
 *   plain SELECT reads them, and this process bumps them in any case.
 * - Settled: the events are bumped and deleted (`bump: 'done'`), or left to a relay (`bump: 'pending'`).
 *
 * A transaction in which a statement has failed refuses the next one. The query for the id comes after `work`, so an
 * error that `work` swallowed comes out there. A statement that was not awaited may fail later still: PostgreSQL then
 * answers COMMIT with ROLLBACK.
 */
import type { Knex } from 'knex';
import { endsWithin } from '../async/ends-within.js';
import { ConfigurationError } from '../errors/errors.js';
import type { BumpTarget, Committed, TransactionOptions } from '../ports/source.js';
import { commit, CommitUnknownError } from './commit.js';
import type { CommitStrategy } from './commit-strategy.js';
import { noteBoot } from './outbox/authority.js';
import type { OutboxOptions } from './outbox/location.js';
import { settleEvents } from './outbox/settle.js';
import { PlainCommit } from './plain-commit.js';
import { StrictCommit } from './strict-commit.js';
import { explainWriterError, type Writer } from './writer.js';
import { currentTransactionId, type TransactionId } from './outbox/transaction-id.js';
import { warnOfRefusal } from './outbox/warn-of-refusal.js';

export interface TransactionRun<T> {
  readonly writer: Writer;
  readonly bumps: BumpTarget;
  /** Called with the transaction before `work` gets it. */
  readonly begun: (trx: Knex.Transaction) => void;
  readonly work: (trx: Knex.Transaction) => Promise<T> | T;
  readonly options: TransactionOptions<Knex.Transaction>;
}

/**
 * Three queries besides BEGIN, those of `work` and COMMIT, and one command for each 1,000 scopes; a strict commit takes
 * four queries, and two commands for each 1,000 scopes.
 */
export async function transact<T>({ writer, bumps, begun, work, options }: TransactionRun<T>): Promise<Committed<T>> {
  const { db, outbox, limits } = writer;
  const { strict = false, isolationLevel } = options;
  const { quarantineMs } = limits;
  const strategy: CommitStrategy = strict ? new StrictCommit({ bumps, outbox, quarantineMs }) : new PlainCommit(bumps);
  await strategy.beforeBegin();
  const trx = await db.transaction(isolationLevel === undefined ? {} : { isolationLevel });
  begun(trx);
  let value: T;
  let xid: TransactionId | undefined;
  try {
    value = await work(trx);
    if (trx.isCompleted()) throw endedByItself();
    const current = await currentTransactionId(trx, outbox, strategy.preparation);
    if (current === 'ended') throw endedByItself();
    xid = current;
    if (xid !== undefined) await strategy.beforeCommit(trx, xid);
  } catch (error) {
    if (!trx.isCompleted()) await trx.rollback().catch(() => {});
    await strategy.aborted();
    throw error;
  }
  try {
    await commit(writer, trx, xid);
  } catch (error) {
    if (error instanceof CommitUnknownError) strategy.unknown();
    else await strategy.aborted();
    throw error;
  }
  if (xid === undefined) return { value, bump: 'done', ...strategy.outcome('done') };
  try {
    const settling = settleEvents(writer, xid, bumps, strategy);
    // The call reports the commit even if PostgreSQL's connections hang: a relay has the rest.
    const limitMs = 2 * limits.settleMs;
    if (!(await endsWithin(limitMs, settling))) {
      throw new Error(
        `Settling after the commit took longer than ${limitMs} ms. The events stay in the outbox; a relay bumps them.`,
      );
    }
    await settling;
    return { value, bump: 'done', ...strategy.outcome('done') };
  } catch (error) {
    const explained = (await explainWriterError(writer, error)) as Error;
    return { value, bump: 'pending', ...strategy.outcome('pending'), error: explained };
  } finally {
    strategy.ended();
    // Once after a crash, so that later transactions can tell it from the next.
    if (xid.server === undefined) {
      await noteBoot(db, outbox).catch((error: unknown) => warnOfRefusal(writer, bumps, error, UNNOTED));
    }
  }
}

const UNNOTED =
  'PostgreSQL recovered from a crash, and until that is noted, events of transactions stay in the outbox.';

/** Runs `work` in a savepoint of the caller's transaction. Returns that transaction's id, if it has written something. */
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
    '`work` must leave COMMIT and ROLLBACK to transaction(), but it has ended the transaction. If it committed, its ' +
      'changes stay, and a relay bumps their events. Return to commit, throw to roll back.',
  );
}
