import { sleep } from '../async/scheduling.js';
import type { Knex } from 'knex';
import { ConfigurationError, GencacheError } from '../errors/errors.js';
import { connectionOf, cut } from './postgres/pooled-connection.js';
import { isCommitRefusal, reasonOf } from './postgres/sqlstate.js';
import type { Writer } from './writer.js';
import { outcomeOf, type TransactionId } from './outbox/transaction-id.js';

/** COMMIT was sent, and its outcome is unknown. If the transaction committed, its events are in the outbox. */
export class CommitUnknownError extends GencacheError {
  readonly transactionId: string | undefined;

  constructor(xid: TransactionId | undefined, cause: Error) {
    super(
      'COMMIT_UNKNOWN',
      `The outcome of COMMIT is unknown: the connection was lost before the reply (${reasonOf(cause).replace(/\.$/, '')}), ` +
        'and PostgreSQL could not tell the outcome on another connection. If the transaction committed, a relay bumps ' +
        'its events. Read what it wrote before you repeat it.',
      { cause },
    );
    this.transactionId = xid?.id;
  }
}

const QUERY_EVERY_MS = 50;

/**
 * Sends COMMIT and finds out its outcome. Resolves if the transaction committed; rejects with the server's error if it
 * did not, and with CommitUnknownError if the outcome is unknown.
 *
 * An ERROR of the server means that nothing was committed. A lost connection, a FATAL (a session that was ended while it
 * waited for a standby has committed), or the error of a pooler for either, leaves the outcome open: a query on another
 * connection asks PostgreSQL, by the transaction's id. The same query runs when no reply comes, since the connection may
 * be half-open: a COMMIT may take as long as it needs, as long as PostgreSQL says that it is in progress.
 */
export async function commit(writer: Writer, trx: Knex.Transaction, xid: TransactionId | undefined): Promise<void> {
  let reply;
  const watch = new AbortController();
  try {
    // Knex resolves commit() in any case; executionPromise carries the server's answer.
    const replied = trx.commit() as PromiseLike<{ response?: { command?: string } } | undefined>;
    if (xid !== undefined) void cutIfEnded(writer, trx, xid, watch.signal);
    await trx.executionPromise;
    reply = await replied;
  } catch (error) {
    if (isCommitRefusal(error)) throw error;
    const outcome = xid === undefined ? 'aborted' : await outcomeWithin(writer, xid);
    if (outcome === 'aborted') throw error;
    if (outcome !== 'committed') throw new CommitUnknownError(xid, error as Error);
    return;
  } finally {
    watch.abort();
  }
  if (reply?.response?.command === 'ROLLBACK') throw rolledBack();
}

/**
 * Cuts the connection of a COMMIT without a reply, once PostgreSQL has ended the transaction or can't be reached at all:
 * the reply was lost. The COMMIT then fails as with any lost connection.
 */
async function cutIfEnded(
  { db, outbox, limits }: Writer,
  trx: Knex.Transaction,
  xid: TransactionId,
  signal: AbortSignal,
): Promise<void> {
  let isUnderWay = true;
  while (isUnderWay) {
    await sleep(limits.settleMs, undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    const answer = outcomeOf(db, xid, outbox).catch(() => undefined);
    const limit = sleep(limits.settleMs, undefined, { signal }).catch(() => undefined);
    isUnderWay = (await Promise.race([answer, limit])) === 'in progress';
  }
  if (signal.aborted) return;
  cut(await connectionOf(trx));
}

async function outcomeWithin(
  { db, outbox, limits }: Writer,
  xid: TransactionId,
): Promise<'committed' | 'aborted' | undefined> {
  const giveUp = new AbortController();
  const limit = sleep(limits.settleMs, undefined, { signal: giveUp.signal }).catch(() => undefined);
  try {
    for (;;) {
      // A pool may take longer than the limit to notice that its server is out of reach.
      const answer = outcomeOf(db, xid, outbox).catch(() => 'unreachable' as const);
      const outcome = await Promise.race([answer, limit]);
      if (outcome === undefined || outcome === 'committed' || outcome === 'aborted') return outcome;
      if ((await Promise.race([sleep(QUERY_EVERY_MS, 'again'), limit])) === undefined) return undefined;
    }
  } finally {
    giveUp.abort();
  }
}

/** PostgreSQL answers COMMIT with ROLLBACK in a failed transaction, and Knex takes that for a success. */
function rolledBack(): ConfigurationError {
  return new ConfigurationError(
    'Every statement of a transaction must be awaited before it commits, but PostgreSQL rolled back: a statement that ' +
      'was not awaited failed. Nothing was committed. Await each statement in `work`.',
  );
}
