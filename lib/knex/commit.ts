import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import { GencacheError } from '../errors.js';
import { outcomeOf, type Xid } from './xid.js';

/** COMMIT was sent, and what became of it can't be told. If it committed, its events are in the outbox. */
export class CommitUnknownError extends GencacheError {
  readonly transactionId: string | undefined;

  constructor(xid: Xid | undefined, cause: Error) {
    super(
      'COMMIT_UNKNOWN',
      'A transaction either commits or does not. This one sent COMMIT, and lost its connection before the answer: ' +
        `${cause.message}. Neither is it known now. If it committed, what it recorded is bumped by a relay. Look at what it wrote before you repeat it.`,
      { cause },
    );
    this.transactionId = xid?.id;
  }
}

/** How long to ask what became of a COMMIT without an answer, which may still be under way, in ms. */
const SETTLE_MS = 5_000;
const ASK_EVERY_MS = 50;

/**
 * COMMIT, and certainty about it. Resolves if it committed; rejects with the server's error if it did not, and with
 * CommitUnknownError if that can't be told.
 *
 * An ERROR of the server says that nothing was committed. A lost connection, or a FATAL (a session ended while it waited
 * for a standby has committed), says nothing: PostgreSQL is asked by the transaction's id, on another connection.
 */
export async function commit(db: Knex, trx: Knex.Transaction, xid: Xid | undefined): Promise<void> {
  try {
    // Knex resolves commit() in any case, and this promise with what the server said.
    void trx.commit();
    await trx.executionPromise;
  } catch (error) {
    if ((error as { severity?: unknown }).severity === 'ERROR') throw error;
    const outcome = xid === undefined ? 'aborted' : await settled(db, xid);
    if (outcome === 'aborted') throw error;
    if (outcome !== 'committed') throw new CommitUnknownError(xid, error as Error);
  }
}

async function settled(db: Knex, xid: Xid): Promise<'committed' | 'aborted' | undefined> {
  const deadlineMs = performance.now() + SETTLE_MS;
  for (;;) {
    const outcome = await outcomeOf(db, xid).catch(() => 'unreachable' as const);
    if (outcome === 'committed' || outcome === 'aborted') return outcome;
    if (outcome === undefined || performance.now() >= deadlineMs) return undefined;
    await sleep(ASK_EVERY_MS);
  }
}
