import type { Knex } from 'knex';
import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';
import type { BumpTarget, Committed, Outbox, TransactionOptions } from '../ports/source.js';
import { explainReadOnly } from './outbox/explain-error.js';
import type { OutboxOptions } from './outbox/location.js';
import { recordEvents } from './outbox/record.js';
import { settleEvents } from './outbox/settle.js';
import type { TransactionId } from './outbox/transaction-id.js';
import { PlainCommit } from './plain-commit.js';
import { transact, transactWithin } from './transaction.js';
import { explainWriterError, type Writer, WRITER_LIMITS, type WriterLimits } from './writer.js';

/**
 * The outbox, for writers.
 *
 * A transaction that the caller began is followed to its commit: then this process bumps its events, once for the
 * outermost transaction, whose id all events carry. If this process dies before, or the bump fails, a relay bumps them.
 */
export class KnexOutbox implements Outbox<Knex.Transaction> {
  readonly #writer: Writer;
  /** The followed outermost transactions, each with the caches to bump after its commit. */
  readonly #followed = new WeakMap<Knex.Transaction, Set<string>>();

  constructor(db: Knex, outbox: OutboxOptions, limits: Partial<WriterLimits> = {}) {
    this.#writer = { db, outbox, limits: { ...WRITER_LIMITS, ...limits } };
  }

  async record(trx: Knex.Transaction, paths: readonly string[], cause: string, bumps: BumpTarget): Promise<void> {
    checkTransaction(trx);
    const { cache } = bumps;
    const events = paths.map((path) => ({ cache, path, source: cause, operation: 'bump' }));
    const xid = await recordEvents(trx, events, this.#writer.outbox)
      .catch(async (error: unknown) => {
        throw await explainReadOnly(this.#writer.db, error);
      })
      .catch(this.#explain);
    this.#follow(trx, xid, bumps);
  }

  async transact<T>(
    work: (trx: Knex.Transaction) => Promise<T> | T,
    bumps: BumpTarget,
    options: TransactionOptions<Knex.Transaction>,
  ): Promise<Committed<T>> {
    const { trx: outer } = options;
    if (outer === undefined) {
      const begun = (trx: Knex.Transaction) => void this.#isFollowed(trx, bumps.cache);
      return transact({ writer: this.#writer, bumps, begun, work, options }).catch(this.#explain);
    }
    checkTransaction(outer);
    if (options.strict === true || options.isolationLevel !== undefined) throw decidedByOuter(options);
    const { value, xid } = await transactWithin(outer, work, this.#writer.outbox).catch(this.#explain);
    if (xid !== undefined) this.#follow(outer, xid, bumps);
    return { value, bump: 'outer' };
  }

  readonly #explain = async (error: unknown): Promise<never> => {
    throw await explainWriterError(this.#writer, error);
  };

  #follow(trx: Knex.Transaction, xid: TransactionId, bumps: BumpTarget): void {
    const outermost = outermostOf(trx);
    if (this.#isFollowed(outermost, bumps.cache)) return;
    const settle = () => settleEvents(this.#writer, xid, bumps, new PlainCommit(bumps)).catch(() => {});
    // After a rollback there is nothing to bump; after an unknown outcome a relay bumps. The work begins with the commit,
    // not before: close() can't wait for a transaction of the caller.
    outermost.executionPromise.then(
      () => bumps.later(settle()),
      () => {},
    );
  }

  /** Marks the transaction as followed for this cache. Returns whether it was before. */
  #isFollowed(outermost: Knex.Transaction, cache: string): boolean {
    const caches = this.#followed.get(outermost) ?? new Set();
    this.#followed.set(outermost, caches);
    const before = caches.has(cache);
    caches.add(cache);
    return before;
  }
}

/** Knex settles the promise of a nested transaction when its savepoint is released, long before the commit. */
function outermostOf(trx: Knex.Transaction): Knex.Transaction {
  let outermost = trx;
  while (outermost.parentTransaction !== undefined) outermost = outermost.parentTransaction;
  return outermost;
}

/** A Knex in place of a transaction would commit the event before the change. Throws ConfigurationError. */
function checkTransaction(trx: Knex.Transaction | undefined): void {
  if (trx?.isTransaction === true && trx.executionPromise !== undefined) return;
  throw new ConfigurationError(
    `\`trx\` must be the Knex transaction that makes the change, but got ${describe(trx)}. Pass the transaction of ` +
      '`db.transaction()`, or leave `trx` out.',
  );
}

function decidedByOuter({ strict, isolationLevel }: TransactionOptions<Knex.Transaction>): ConfigurationError {
  return new ConfigurationError(
    '`strict` and `isolationLevel` must be set where the outermost transaction begins, but a transaction inside `trx` ' +
      `got ${describe({ strict, isolationLevel })}. Pass them there.`,
  );
}
