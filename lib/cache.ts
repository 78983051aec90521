import { type Clock, monotonicClock, suspensionClock } from './ports/clock.js';
import type { EntryOptions, KeyInput, KeyKinds, ValueOptions } from './model/entry-definition.js';
import { noteEntries } from './model/declared-entries.js';
import { describe } from './errors/describe.js';
import { Engine } from './engine.js';
import type { Entry } from './entry.js';
import { ConfigurationError } from './errors/errors.js';
import type { CacheEvents } from './telemetry/events.js';
import type { IdKind } from './model/id-kind.js';
import { type BumpOptions, Namespace } from './namespace.js';
import { type CacheSettings, checkOptions } from './options.js';
import type { Scope } from './model/scope.js';
import { type Committed, noSource, type Source, type TransactionOptions } from './ports/source.js';
import type { CacheState } from './telemetry/state.js';
import type { Statistics } from './telemetry/statistics.js';
import type { PartitionedStore, Store } from './ports/store.js';
import { bumpTarget, requireOutbox } from './write/bump-target.js';

type NoIds = Record<never, never>;

export interface CacheOptions<Context extends object, Transaction> extends CacheSettings {
  /** The store of the entries: `redisStore(redis)`, `memoryStore()`. */
  readonly store: Store | PartitionedStore;
  /** The source that loaders read: `knexSource(db)`. Without it, loaders close over their database. */
  readonly source?: Source<Context, Transaction>;
  /** The clock that TTLs and bounds use; `manualClock()` in tests. */
  readonly clock?: Clock;
}

/**
 * A read-through cache whose keys embed generations. It is the root of its hierarchy: the namespace `global`.
 *
 * Other libraries call `fetch` "getOrSet" or "wrap", `bump` "invalidate", and `dependsOn` "tags".
 *
 *     const cache = new GenerationalCache({ name: 'shop', store: redisStore(redis), source: knexSource(db) });
 *     const customers = cache.namespace('customer', integer());
 *     const orders = customers.list('orders', {
 *       load: (ids, { db }) => db('order').whereIn('customer_id', ids.map((id) => id.customer)),
 *       by: (row) => ({ customer: row.customer_id }),
 *     });
 *     await orders.fetch({ customer: 42 });
 *     await customers.bump({ customer: 42 });
 */
export class GenerationalCache<Context extends object = NoIds, Transaction = never> {
  readonly #engine: Engine;
  readonly #root: Namespace<NoIds, NoIds, Context, Transaction>;

  /** Checks the options, and opens no connection. Throws ConfigurationError. */
  constructor(options: CacheOptions<Context, Transaction>) {
    const checked = checkOptions(options);
    if (!isStore(options.store)) {
      throw new ConfigurationError(
        `\`store\` must be a store, but got ${describe(options.store)} (cache "${checked.name}"). ` +
          'Pass redisStore(redis) or memoryStore().',
      );
    }
    const source = (options.source ?? noSource) as Source<object, unknown>;
    this.#engine = new Engine({
      options: checked,
      store: options.store,
      source,
      // A value in this process must not outlive its TTL while the machine sleeps.
      isOwnClock: options.clock === undefined,
      clock: options.clock ?? (checked.local === undefined ? monotonicClock : suspensionClock()),
    });
    noteEntries(this, { cache: checked.name, entries: this.#engine.entries });
    this.#root = new Namespace(this.#engine, this.#engine.root);
  }

  get name(): string {
    return this.#engine.options.name;
  }

  /** The counters of this cache since its construction. */
  get statistics(): Pick<Statistics, 'total' | 'series'> {
    return this.#engine.statistics;
  }

  /** Which parts of this cache are up, and since when: the connection, reads, fills, and the bound; and its loads. */
  get state(): CacheState {
    const { stateTracker, loads, localCounts, unbumped } = this.#engine;
    return { ...stateTracker.state, loads: loads.counts, local: localCounts, unbumped: unbumped.size };
  }

  /** Adds a listener of an event (`CacheEvents`). Returns the function that removes it. */
  on<K extends keyof CacheEvents>(name: K, listener: (event: CacheEvents[K][0]) => void): () => void {
    return this.#engine.telemetry.on(name, listener);
  }

  /** Declares a namespace directly below global. See `Namespace.namespace`. */
  namespace<Name extends string, IdIn, IdOut>(
    name: Name,
    kind: IdKind<IdIn, IdOut>,
  ): Namespace<{ readonly [N in Name]: IdIn }, { readonly [N in Name]: IdOut }, Context, Transaction> {
    return this.#root.namespace(name, kind);
  }

  /** Declares an entry of the global scope. See `Namespace.one`. */
  one<Row, Value = Row, K extends KeyKinds = NoIds>(
    name: string,
    options: EntryOptions<NoIds, NoIds, K, Context, Row, Value>,
  ): Entry<KeyInput<K>, Value | undefined, Transaction> {
    return this.#root.one(name, options);
  }

  /** Declares a list of the global scope. See `Namespace.list`. */
  list<Row, Value = Row, K extends KeyKinds = NoIds>(
    name: string,
    options: EntryOptions<NoIds, NoIds, K, Context, Row, Value>,
  ): Entry<KeyInput<K>, Value[], Transaction> {
    return this.#root.list(name, options);
  }

  /** Declares a value of the global scope. See `Namespace.value`. */
  value<Value, K extends KeyKinds = NoIds>(
    name: string,
    options: ValueOptions<NoIds, K, Context, Value>,
  ): Entry<KeyInput<K>, Value, Transaction> {
    return this.#root.value(name, options);
  }

  /** Returns the global scope. Every entry depends on it, so `dependsOn` need not name it. */
  scope(): Scope {
    return this.#root.scope({});
  }

  /** Invalidates every entry of this cache, for every process. Costs one command. See `Namespace.bump`. */
  async bump(options?: BumpOptions<Transaction>): Promise<void> {
    await this.#root.bump({}, options);
  }

  /**
   * Runs `work` in a transaction of the source, commits it, and bumps the scopes that triggers and `bump(id, { trx })`
   * recorded in it, before this resolves: a caller that awaits it reads its own writes.
   *
   *     const { value, bump } = await cache.transaction(async (trx) => {
   *       await trx('order').insert({ customer_id: 42, item: 'tent' });
   *       await customers.bump({ customer: 42 }, { trx });
   *     });
   *
   * Rejects only without a commit, with the error of `work` or the source; or with an unknown outcome, as
   * CommitUnknownError. A bump that fails after the commit stays in the outbox, and the result is `pending`. Costs three
   * queries beyond those of the transaction, and one command for each 1,000 scopes; with `strict`, one query more, and one
   * command more for each 1,000 scopes. Throws ConfigurationError for a source without an outbox.
   */
  async transaction<T>(
    work: (trx: Transaction) => Promise<T> | T,
    options: TransactionOptions<Transaction> = {},
  ): Promise<Committed<T>> {
    const engine = this.#engine.opened();
    if (options.strict === true) engine.warnOfOwnAnswers();
    const transacting = requireOutbox(engine).transact<T>(work as never, bumpTarget(engine), options);
    engine.inFlight.track(transacting);
    return transacting;
  }

  /** Resolves when no call, fill or verification is under way. For tests and handovers. */
  async settled(): Promise<void> {
    await this.#engine.reader.settled();
    await this.#engine.verifier?.settled();
  }

  /**
   * Waits for calls and fills under way, for `closeDeadlineMs` at most, and ends the connections that the store opened;
   * the caller's connections stay open. Later calls reject with ClosedError. Idempotent.
   */
  close(): Promise<void> {
    return this.#engine.close();
  }

  /** Closes the cache: `await using cache = new GenerationalCache(...)`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function isStore(store: Partial<Store & PartitionedStore> | undefined): boolean {
  return typeof store?.read === 'function' || typeof store?.partition === 'function';
}
