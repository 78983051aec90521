import type { Store } from './store.js';

/**
 * The port to where loads read and changes are written. It gives loaders their context (for Knex: `{ db }`), and is all
 * the cache knows of databases and transactions: `trx` passes through unopened.
 */
export interface Source<Context, Transaction> {
  /** What loaders get to read with: the source itself, or the caller's transaction. */
  context(trx?: Transaction): Context;
  /** Where changes are recorded in the transaction that makes them; none if the source can't. */
  readonly outbox?: Outbox<Transaction>;
}

/** Records what to bump in the transaction that changes it, and bumps it after the commit (ladder steps 2 to 4). */
export interface Outbox<Transaction> {
  /** Records bumps of these scopes, one at least, in `trx`: they happen after it commits, if it does. */
  record(trx: Transaction, paths: readonly string[], cause: string, bumps: BumpTarget): Promise<void>;

  /** Runs `work` in a transaction, commits, and bumps what it recorded before it resolves. */
  transact<T>(
    work: (trx: Transaction) => Promise<T> | T,
    bumps: BumpTarget,
    options: TransactionOptions<Transaction>,
  ): Promise<Committed<T>>;
}

/** What an outbox bumps with. */
export interface BumpTarget {
  readonly cache: string;
  readonly store: Store;
  readonly bumpDeadlineMs: number;
  /** Told of each attempt, once it has settled. */
  bumped(paths: readonly string[], cause: string, durationMs: number, error?: unknown): void;
  /** Given what goes on after a commit that the caller made. */
  later(work: Promise<void>): void;
}

export interface TransactionOptions<Transaction> {
  /**
   * Ladder step 4b: readers of what changes leave the cache from before the commit until after the bump, so that nothing
   * older than this commit is read once it is visible. One query more, and one command for each 1,000 scopes.
   */
  readonly strict?: boolean;
  /**
   * A transaction of the caller's to run inside, as a savepoint: what is recorded is bumped after its commit. How that
   * commits is its own affair: not with `strict` or `isolationLevel`.
   */
  readonly trx?: Transaction;
  readonly isolationLevel?: 'read committed' | 'repeatable read' | 'serializable';
}

/** What came of a transaction that has committed. */
export interface Committed<T> {
  /** What `work` returned. */
  readonly value: T;
  /**
   * `done`: everything recorded for this cache is bumped. `pending`: it is in the outbox, for a relay, or whoever polls
   * next; `error` says why. `outer`: the transaction it ran in has yet to commit.
   */
  readonly bump: 'done' | 'pending' | 'outer';
  /**
   * Of a strict commit: `kept`: nothing older was read since it is visible. Or `degraded`: that can't be said, as of a
   * plain one; readers may have met what was there before, until the bump.
   */
  readonly strict?: 'kept' | 'degraded';
  readonly error?: Error;
}

/** A cache without a source: loaders close over what they read from. */
export const noSource: Source<Record<never, never>, never> = { context: () => ({}) };
