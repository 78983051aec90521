import type { Knex } from 'knex';
import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';
import type { BumpTarget, Committed, Outbox, TransactionOptions } from '../ports/source.js';
import { explainMissingOutbox } from './outbox/missing-outbox.js';
import type { OutboxOptions } from './outbox/location.js';
import { recordEvents } from './outbox/record.js';
import { settleEvents } from './outbox/settle.js';
import type { TransactionId } from './outbox/transaction-id.js';
import { PlainCommit } from './plain-commit.js';
import { transact, transactWithin } from './transaction.js';
import { type Writer, WRITER_LIMITS, type WriterLimits } from './writer.js';

/**
 * The outbox as applications write to it.
 *
 * A transaction that the caller began is followed to its commit: then this process bumps what it recorded, once for
 * the outermost transaction, whose id all events carry. If it dies before, or fails, the events are a relay's.
 */
export class KnexOutbox implements Outbox<Knex.Transaction> {
  readonly #writer: Writer;
  /** Outermost transactions whose commit is waited for, by the caches they are waited for. */
  readonly #followed = new WeakMap<Knex.Transaction, Set<string>>();

  constructor(db: Knex, outbox: OutboxOptions, limits: Partial<WriterLimits> = {}) {
    this.#writer = { db, outbox, limits: { ...WRITER_LIMITS, ...limits } };
  }

  async record(trx: Knex.Transaction, paths: readonly string[], cause: string, bumps: BumpTarget): Promise<void> {
    checkTransaction(trx);
    const { cache } = bumps;
    const events = paths.map((path) => ({ cache, path, source: cause, operation: 'bump' }));
    const recorded = recordEvents(trx, events, this.#writer.outbox).catch(this.#explain);
    this.#follow(trx, await recorded, bumps);
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

  readonly #explain = (error: unknown): never => {
    throw explainMissingOutbox(error, this.#writer.outbox);
  };

  #follow(trx: Knex.Transaction, xid: TransactionId, bumps: BumpTarget): void {
    const outermost = outermostOf(trx);
    if (this.#isFollowed(outermost, bumps.cache)) return;
    const settle = () => settleEvents(this.#writer, xid, bumps, new PlainCommit(bumps)).catch(() => {});
    // Rolled back, there is nothing to bump; unknown, it is a relay's. Not under way before the commit: close() can't wait for the caller's.
    outermost.executionPromise.then(
      () => bumps.later(settle()),
      () => {},
    );
  }

  /** Whether it was followed before; it is now. */
  #isFollowed(outermost: Knex.Transaction, cache: string): boolean {
    const caches = this.#followed.get(outermost) ?? new Set();
    this.#followed.set(outermost, caches);
    const before = caches.has(cache);
    caches.add(cache);
    return before;
  }
}

/** Knex settles a nested transaction's promise when its savepoint is released, long before the commit. */
function outermostOf(trx: Knex.Transaction): Knex.Transaction {
  let outermost = trx;
  while (outermost.parentTransaction !== undefined) outermost = outermost.parentTransaction;
  return outermost;
}

/** A Knex would record by itself, before the change is committed. Throws ConfigurationError. */
function checkTransaction(trx: Knex.Transaction | undefined): void {
  if (trx?.isTransaction === true && trx.executionPromise !== undefined) return;
  throw new ConfigurationError(
    `\`trx\` is a Knex transaction, in which the change is made too. Got ${describe(trx)}. Pass what db.transaction() gave ` +
      'you, or leave it out.',
  );
}

function decidedByOuter({ strict, isolationLevel }: TransactionOptions<Knex.Transaction>): ConfigurationError {
  return new ConfigurationError(
    'Whoever begins a transaction decides how it is isolated and how it commits. A transaction inside `trx` got ' +
      `${describe({ strict, isolationLevel })}. Pass that where the outermost one begins.`,
  );
}
