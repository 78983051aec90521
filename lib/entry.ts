import type { EntryDefinition } from './model/entry-definition.js';
import { withDeadline } from './async/deadline.js';
import { describe } from './errors/describe.js';
import { ABSENT } from './codec/envelope.js';
import { ConfigurationError } from './errors/errors.js';
import type { Attributes } from './telemetry/events.js';
import type { Engine } from './engine.js';
import type { LocalReader } from './read/local-reader.js';
import type { Outcome, Staleness } from './model/outcome.js';
import { Vector } from './model/vector.js';

type AnyIds = Readonly<Record<string, unknown>>;

/** Options of a read. */
export interface ReadOptions {
  /** Labels of this call in events and statistics: a detector type, a tenant. Keep the values few. */
  readonly attributes?: Attributes;
}

export interface FetchOptions<Transaction> extends ReadOptions {
  /**
   * A transaction of the caller to read in: the read goes to the source and bypasses the cache, whose values may precede
   * the transaction's own writes (docs/protocol.md, rule 2).
   */
  readonly trx?: Transaction;
  /**
   * Called for each value that is served beyond its TTL (`staleMs`, `staleOnErrorMs`) or in an outage of the store
   * (`staleOnOutageMs` of `local`), before the call has its answer.
   * `index`: the position of its ids in the call. It runs in the call's async context; an error of it reaches no caller, as
   * that of an event's listener.
   */
  readonly onStale?: (stale: Staleness & { readonly index: number }) => void;
}

/**
 * A declared entry: one kind of cached value below a namespace. `Ids` name its scope, and its key if it has one. `Value`
 * is `Row | undefined` for `one`, with undefined for an absent row, `Row[]` for `list`, and what the loader returns for
 * `value`.
 */
export class Entry<Ids extends object, Value, Transaction = never> {
  readonly #definition: EntryDefinition;
  readonly #engine: Engine;
  /** undefined unless the cache tracks generations. */
  readonly #local: LocalReader | undefined;

  constructor(definition: EntryDefinition, engine: Engine) {
    this.#definition = definition;
    this.#engine = engine;
    this.#local = engine.localReader(definition);
  }

  get name(): string {
    return this.#definition.name;
  }

  /**
   * Returns the value of `ids`, from the store, or on a miss from the loader ("getOrSet" or "wrap" elsewhere).
   *
   * A hit costs one command, shared with all fetches of the same turn of the event loop; the first read of a scope in a
   * process, and the first read after a bump by another process, cost two. A miss costs one query, shared with the
   * turn's other misses of this entry, one command before it (`leases`) and one fill command after the answer. While
   * another process loads the entry, the call waits for its value. If the store fails or takes longer than
   * `readDeadlineMs`, the answer comes from the source, or with `staleOnOutageMs` from what this process has. Throws
   * IdError, LoaderContractError, and the loader's own errors.
   */
  async fetch(ids: Ids, options?: FetchOptions<Transaction>): Promise<Value> {
    if (this.#local !== undefined && options?.trx === undefined) {
      this.#engine.opened();
      const value = this.#local.fetch(ids as AnyIds, options?.attributes);
      if (value !== undefined) return (value === ABSENT ? undefined : value) as Value;
    }
    const values = await this.#read([ids], options, this.fetch);
    return (values[0] === ABSENT ? undefined : values[0]) as Value;
  }

  /**
   * Returns the values of `ids: [n] -> values: [n]`, same order; duplicates are read once and share their value.
   *
   * Costs one command for each 1,000 distinct ids or 100,000 characters of scope paths, one query for each
   * `loadBatchMax` misses, one claim for each 500 misses, and fill commands after the answer. Throws the errors of `fetch`.
   */
  async fetchMany(ids: readonly Ids[], options?: FetchOptions<Transaction>): Promise<Value[]> {
    let values: unknown[] | undefined;
    if (this.#local !== undefined && options?.trx === undefined && ids.length > 0) {
      this.#engine.opened();
      values = this.#local.fetchMany(ids as readonly AnyIds[], options?.attributes);
    }
    values ??= await this.#read(ids, options, this.fetchMany);
    for (let i = 0; i < values.length; i++) if (values[i] === ABSENT) values[i] = undefined;
    return values as Value[];
  }

  /**
   * Returns the value of `ids` at once, if this process can answer by itself (`local` with `mode: 'track'`); undefined if it
   * can't, and for an absent row. Never loads, and never asks the store. For ids that `fetch` rejects: undefined, or IdError.
   *
   *     const order = orders.peek({ customer: 42 }) ?? (await orders.fetch({ customer: 42 }));
   *
   * For hot loops: it costs about what a Map costs, makes no event, and counts as a hit; `verifyRate` and `earlyRefresh` take
   * no notice of it. `fetch` gives an absent row without a command too. Without tracking it always returns undefined; and of what
   * `staleOnOutageMs` allows to `fetch` it returns nothing.
   */
  peek(ids: Ids): Value | undefined {
    this.#engine.opened();
    const value = this.#local?.peek(ids as AnyIds);
    return (value === ABSENT ? undefined : value) as Value | undefined;
  }

  /**
   * Returns the store's outcome for `ids`, without a load, and the vector that `fill` demands. Costs one command, or two
   * where `fetch` needs two. A failing store is a bypass. Throws IdError.
   */
  async lookup(ids: Ids, options?: ReadOptions): Promise<Outcome<Value>> {
    const { reader, inFlight, labels } = this.#engine.opened();
    const address = this.#definition.address(ids as Record<string, unknown>);
    const looking = reader.lookup(address, labels(options, this.lookup));
    inFlight.track(looking);
    const looked = await looking;
    if (looked.outcome === 'bypass') return looked;
    if (looked.outcome === 'miss') {
      const { outcome, cause, vector, bumped } = looked;
      return { outcome, cause, vector, bumped };
    }
    const vector = new Vector(address, looked.location, looked.capturedAtMs);
    if (looked.outcome === 'stale') {
      const value = (looked.value === ABSENT ? undefined : looked.value) as Value | undefined;
      return { outcome: 'stale', value, vector, staleForMs: looked.staleForMs };
    }
    return looked.outcome === 'absent'
      ? { outcome: 'absent', vector }
      : { outcome: 'hit', value: looked.value as Value, vector };
  }

  /**
   * Stores a value that was read from the source after the lookup of `vector`; for `one` and `value`, undefined stores the
   * absence.
   *
   *     const looked = await orders.lookup({ customer: 42 });
   *     if (looked.outcome === 'miss') await orders.fill(looked.vector, await readOrders(42));
   *
   * The order is lookup, read, fill (docs/protocol.md, rule 1): a generation that moved meanwhile refuses the fill, which
   * is counted and harmless. Costs one command. Throws UnencodableValueError, OversizedValueError, SchemaMismatchError,
   * and ConfigurationError for a vector that this entry's `lookup` did not return. A failing store refuses the fill.
   */
  async fill(vector: Vector, value: Value, options?: ReadOptions): Promise<'filled' | 'refused'> {
    const { filler, inFlight } = this.#engine.opened();
    if (Vector.addressOf(vector as unknown)?.definition !== this.#definition) {
      throw new ConfigurationError(
        `\`fill\` must get the vector that a lookup of the same entry returned, but got ${describe(vector)} ` +
          `(entry "${this.name}"). Call \`lookup\` of this entry first, then read the source, then fill.`,
      );
    }
    const stored = value === undefined && this.#definition.shape !== 'list' ? ABSENT : value;
    const filling = filler.seal(vector, stored, 0).then((sealed) => filler.fill([sealed], options?.attributes));
    inFlight.track(filling);
    return (await filling).filled === 1 ? 'filled' : 'refused';
  }

  /**
   * Frees the memory of an entry, in the store and in this process. Returns true if the store held it. Costs two commands.
   * A delete does not invalidate, since a slow reader may store the old value after it, and other processes may have it in
   * their local tiers (docs/protocol.md, rules 1 and 14a): bump instead. Throws IdError, and the store's errors.
   */
  async delete(ids: Ids): Promise<boolean> {
    const { lookup, local, partitions, options, telemetry, inFlight } = this.#engine.opened();
    const address = this.#definition.address(ids as Record<string, unknown>);
    if (partitions.bypassed) return false;
    const { store } = partitions.list[address.scope.partition]!;
    const deleting = withDeadline('delete', options.bumpDeadlineMs, async (deadline) => {
      const key = await lookup.locate(address, deadline);
      if (key === undefined) return false;
      try {
        return (await store.delete([key], deadline)) > 0;
      } finally {
        local?.delete([key]);
      }
    });
    inFlight.track(deleting);
    try {
      return await deleting;
    } catch (error) {
      telemetry.emit('storeFailure', { cache: options.name, operation: 'delete', error: error as Error });
      throw error;
    }
  }

  #read(
    ids: readonly Ids[],
    options: FetchOptions<Transaction> | undefined,
    caller: (...args: never) => unknown,
  ): Promise<unknown[]> {
    const { reader, labels } = this.#engine.opened();
    const addresses = ids.map((one) => this.#definition.address(one as Record<string, unknown>));
    const marked = labels(options, caller);
    return options?.trx === undefined
      ? reader.fetch(this.#definition, addresses, marked)
      : reader.fetchWithin(options.trx, this.#definition, addresses, marked);
  }
}
