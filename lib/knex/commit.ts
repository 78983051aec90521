import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import { ConfigurationError, GencacheError } from '../errors/errors.js';
import { connectionOf, cut } from './postgres/pooled-connection.js';
import { isCommitRefusal } from './postgres/sqlstate.js';
import type { Writer } from './writer.js';
import { outcomeOf, type TransactionId } from './outbox/transaction-id.js';

/** COMMIT was sent, and what became of it can't be told. If it committed, its events are in the outbox. */
export class CommitUnknownError extends GencacheError {
  readonly transactionId: string | undefined;

  constructor(xid: TransactionId | undefined, cause: Error) {
    super(
      'COMMIT_UNKNOWN',
      'A transaction commits or does not, and PostgreSQL knows which. This one lost its connection before the answer to ' +
        `COMMIT (${cause.message.replace(/\.$/, '')}), and PostgreSQL, asked again, could not tell. If it committed, a ` +
        'relay bumps what it recorded. Look at what it wrote before you repeat it.',
      { cause },
    );
    this.transactionId = xid?.id;
  }
}

const QUERY_EVERY_MS = 50;

/**
 * COMMIT, and certainty about it. Resolves if it committed; rejects with the server's error if it did not, and with
 * CommitUnknownError if that can't be told.
 *
 * An ERROR of the server says that nothing was committed. A lost connection, a FATAL (a session ended while it waited
 * for a standby has committed), or what a pooler makes of either, says nothing: PostgreSQL is asked by the transaction's
 * id, on another connection. So it is when no answer comes, in case the connection is half-open: a COMMIT may take as
 * long as it needs, as long as PostgreSQL says that it is under way.
 */
export async function commit(writer: Writer, trx: Knex.Transaction, xid: TransactionId | undefined): Promise<void> {
  let reply;
  const watch = new AbortController();
  try {
    // Knex resolves commit() in any case, and the other promise with what the server said.
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
 * Cuts the connection of a COMMIT whose answer is overdue if PostgreSQL is done with it, or can't be asked either: the
 * answer was lost. Then the COMMIT fails, and is settled as any that lost its connection.
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
      // A pool may take longer than the limit to find that its server is out of reach.
      const answer = outcomeOf(db, xid, outbox).catch(() => 'unreachable' as const);
      const outcome = await Promise.race([answer, limit]);
      if (outcome === undefined || outcome === 'committed' || outcome === 'aborted') return outcome;
      if ((await Promise.race([sleep(QUERY_EVERY_MS, 'again'), limit])) === undefined) return undefined;
    }
  } finally {
    giveUp.abort();
  }
}

/** PostgreSQL answers COMMIT in a transaction that has failed with ROLLBACK, which Knex takes for a success. */
function rolledBack(): ConfigurationError {
  return new ConfigurationError(
    'Every statement of a transaction is awaited before it commits. One that was not had failed by then, so PostgreSQL ' +
      'rolled back. Nothing was committed. Await each of them in `work`.',
  );
}
