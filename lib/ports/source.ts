import type { CacheDeclaration } from '../model/cache-declaration.js';
import type { Partitions } from './partitions.js';

/**
 * The port to the database: loads read from it, and changes are written to it. It gives loaders their context (for Knex:
 * `{ db }`). The cache knows no more of databases and transactions, and passes `trx` through untouched.
 */
export interface Source<Context extends object, Transaction> {
  /**
   * Returns the context that loaders read with: that of the source itself, or of the caller's transaction. The cache copies
   * its own properties, and adds `signal`.
   */
  context(trx?: Transaction): Context;
  /**
   * Returns a context for one load, outside any transaction, whose queries are cancelled when `signal` is aborted. Asked for
   * loads with a hard timeout; undefined for a source that can't cancel.
   */
  cancellable?(signal: AbortSignal): Context;
  /** Returns a warning for the owner if the error of a load has a cause that the source knows; undefined otherwise. */
  explain?(error: unknown): string | undefined;
  /**
   * Publishes what a cache is, for programs that have paths and no namespaces; in no transaction of a caller. The cache calls
   * it behind its own work, about once an hour and when it has declared more; `replaced` is what this process published
   * before. Rejects if it can't, and is called again later: a ConfigurationError is for the owner, who can mend the cause.
   */
  publish?(declaration: CacheDeclaration, replaced: CacheDeclaration | undefined): Promise<void>;
  /** Records bumps in the transaction of a change; undefined for a source without that ability. */
  readonly outbox?: Outbox<Transaction>;
  /** Asked by caches on a store with partitions alone; undefined for a source without a registry. */
  readonly layouts?: LayoutRegistry;
}

/** The numbers of partitions that the processes of a cache use, where a change of them is committed too (docs/protocol.md, rule 24). */
export interface LayoutRegistry {
  /**
   * Registers the number of partitions of a process, durably: a bump after any later commit finds it. Resolves to false
   * where there is no registry. Where the number is not registered, `beforeFirst` comes first: bumps may have missed what
   * earlier processes with this number have stored. Called before a process' first lookup, and every few minutes. Rejects if it
   * can't, and as `beforeFirst` does.
   */
  register(cache: string, partitions: number, beforeFirst: () => Promise<unknown>): Promise<boolean>;
  /** The registered numbers, read now. Rejects if it can't. */
  read(cache: string): Promise<readonly number[]>;
}

/** Records bumps in the transaction that makes a change, and bumps after its commit (ladder steps 2 to 4). */
export interface Outbox<Transaction> {
  /** Records bumps of these scopes, at least one, in `trx`: they happen after its commit, and only if it commits. */
  record(trx: Transaction, paths: readonly string[], cause: string, bumps: BumpTarget): Promise<void>;

  /** Runs `work` in a transaction, commits, and bumps the recorded scopes before it resolves. */
  transact<T>(
    work: (trx: Transaction) => Promise<T> | T,
    bumps: BumpTarget,
    options: TransactionOptions<Transaction>,
  ): Promise<Committed<T>>;
}

/** The cache and the store that an outbox bumps. */
export interface BumpTarget {
  readonly cache: string;
  /** The partitions of the cache's store. */
  readonly partitions: Partitions;
  /** The partitions of every layout that processes of the cache have, by the registry as it is now. Rejects as that does. */
  present(): Promise<Partitions>;
  readonly bumpDeadlineMs: number;
  /** Called after each attempt of a bump. */
  bumped(paths: readonly string[], cause: string, durationMs: number, error?: unknown): void;
  /** Called with the paths at whose keys a bump found, and deleted, foreign values. */
  foreign(paths: readonly string[]): void;
  /** Called with a fact that the owner should know, which changes nothing for the caller. */
  warn(message: string): void;
  /** Called with the work that continues after a commit by the caller; `close()` waits for it. */
  later(work: Promise<void>): void;
}

export interface TransactionOptions<Transaction> {
  /**
   * Ladder step 4b (docs/protocol.md, rule 12): readers of the changed scopes bypass the cache from before the commit
   * until after the bump, so that no reader sees an older value once this commit is visible. Costs one query more, and
   * one command for each 1,000 scopes.
   */
  readonly strict?: boolean;
  /**
   * A transaction of the caller to run inside, as a savepoint: the recorded scopes are bumped after its commit. The
   * caller decides how it commits, so `strict` and `isolationLevel` can't go with it.
   */
  readonly trx?: Transaction;
  readonly isolationLevel?: 'read committed' | 'repeatable read' | 'serializable';
}

/** The result of a transaction that has committed. */
export interface Committed<T> {
  /** The value that `work` returned. */
  readonly value: T;
  /**
   * `done`: every scope recorded for this cache is bumped. `pending`: the bumps are in the outbox, for the next poll of a
   * relay; `error` gives the reason. `outer`: the enclosing transaction has yet to commit.
   */
  readonly bump: 'done' | 'pending' | 'outer';
  /**
   * Only for a strict commit. `kept`: no reader saw an older value since the commit is visible. `degraded`: the guarantee
   * is that of a plain commit; until the bump, readers may have seen older values.
   */
  readonly strict?: 'kept' | 'degraded';
  readonly error?: Error;
}

/** The source of a cache without one: its loaders close over their database. */
export const noSource: Source<Record<never, never>, never> = { context: () => ({}) };
