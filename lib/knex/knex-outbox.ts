import type { Knex } from 'knex';
import type { Bumps, Committed, Outbox, TransactionOptions } from '../source.js';
import type { OutboxOptions } from './outbox/place.js';
import { recordEvents } from './outbox/record.js';
import { settleEvents } from './outbox/settle.js';
import { transact, transactWithin } from './transaction.js';

/**
 * The outbox as applications write to it.
 *
 * A transaction that the caller began is followed to its commit: then this process bumps what it recorded, once for
 * the outermost transaction, whose id all events carry. If it dies before, or fails, the events are a relay's.
 */
export class KnexOutbox implements Outbox<Knex.Transaction> {
  readonly #db: Knex;
  readonly #options: OutboxOptions;
  /** Outermost transactions whose commit is waited for, by the caches they are waited for. */
  readonly #followed = new WeakMap<Knex.Transaction, Set<string>>();

  constructor(db: Knex, options: OutboxOptions) {
    this.#db = db;
    this.#options = options;
  }

  async record(trx: Knex.Transaction, paths: readonly string[], cause: string, bumps: Bumps): Promise<void> {
    const { cache } = bumps;
    const events = paths.map((path) => ({ cache, path, source: cause, operation: 'bump' }));
    this.#follow(trx, await recordEvents(trx, events, this.#options), bumps);
  }

  async transact<T>(
    work: (trx: Knex.Transaction) => Promise<T> | T,
    bumps: Bumps,
    options: TransactionOptions<Knex.Transaction>,
  ): Promise<Committed<T>> {
    if (options.trx === undefined) {
      const begun = (trx: Knex.Transaction) => void this.#isFollowed(trx, bumps.cache);
      return transact(this.#db, this.#options, begun, work, bumps, options);
    }
    const { value, xid } = await transactWithin(options.trx, work);
    if (xid !== undefined) this.#follow(options.trx, xid, bumps);
    return { value, bump: 'outer' };
  }

  #follow(trx: Knex.Transaction, xid: string, bumps: Bumps): void {
    const outermost = outermostOf(trx);
    if (this.#isFollowed(outermost, bumps.cache)) return;
    const settle = () => settleEvents(this.#db, xid, bumps, this.#options).catch(() => {});
    // Rolled back, there is nothing to bump. Not under way before the commit: close() can't wait for the caller's.
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
