import type { EntryDefinition } from './model/entry-definition.js';
import { withDeadline } from './async/deadline.js';
import { describe } from './errors/describe.js';
import { ABSENT } from './codec/envelope.js';
import { ConfigurationError } from './errors/errors.js';
import type { Attributes } from './telemetry/events.js';
import type { Engine } from './engine.js';
import type { Outcome } from './model/outcome.js';
import { Vector } from './model/vector.js';

/** How a call is marked. */
export interface ReadOptions {
  /** Labels of this call in events and statistics: a detector type, a tenant. Keep the values few. */
  readonly attributes?: Attributes;
}

export interface FetchOptions<Transaction> extends ReadOptions {
  /**
   * Read inside this transaction of the caller's: goes to the source on it and touches no cache, which would answer
   * from before the transaction's own writes.
   */
  readonly trx?: Transaction;
}

/**
 * One kind of cached value below a namespace. `Ids` name its scope, and its key if it has one; `Value` is
 * `Row | undefined` for `one`, undefined when there is no such row, and `Row[]` for `list`.
 */
export class Entry<Ids extends object, Value, Transaction = never> {
  readonly #definition: EntryDefinition;
  readonly #engine: Engine;

  constructor(definition: EntryDefinition, engine: Engine) {
    this.#definition = definition;
    this.#engine = engine;
  }

  get name(): string {
    return this.#definition.name;
  }

  /**
   * The value of `ids`, from the store or else from the loader.
   *
   * A hit costs one command, together with everything fetched in the same turn of the event loop; the first read of
   * a scope in a process, or after a bump, two. A miss costs a query, shared with the turn's other misses of this
   * entry, and a fill command behind the answer. When the store fails or takes longer than `readDeadlineMs` the
   * answer comes from the source. Throws IdError, LoaderContractError, and what the loader throws.
   */
  async fetch(ids: Ids, options?: FetchOptions<Transaction>): Promise<Value> {
    const values = await this.#read([ids], options, this.fetch);
    return (values[0] === ABSENT ? undefined : values[0]) as Value;
  }

  /**
   * The values of `ids: [n] -> [n]`, same order; duplicates are read once and share their value.
   *
   * Costs one command for each 1,000 distinct ids, one query for each `loadBatchMax` misses, and fill commands behind
   * the answer. Throws as `fetch` does.
   */
  async fetchMany(ids: readonly Ids[], options?: FetchOptions<Transaction>): Promise<Value[]> {
    const values = await this.#read(ids, options, this.fetchMany);
    for (let i = 0; i < values.length; i++) if (values[i] === ABSENT) values[i] = undefined;
    return values as Value[];
  }

  /**
   * What the store holds for `ids`, without loading: the outcome, and the vector that `fill` demands. One command,
   * two where `fetch` needs two. A failing store is a bypass. Throws IdError.
   */
  async lookup(ids: Ids, options?: ReadOptions): Promise<Outcome<Value>> {
    const { reader, inFlight, labels } = this.#engine.opened();
    const address = this.#definition.address(ids as Record<string, unknown>);
    const looking = reader.lookup(address, labels(options, this.lookup));
    inFlight.track(looking);
    const looked = await looking;
    if (looked.outcome === 'bypass') return looked;
    if (looked.outcome === 'miss') return looked;
    const vector = new Vector(address, looked.location, looked.capturedAtMs);
    return looked.outcome === 'absent'
      ? { outcome: 'absent', vector }
      : { outcome: 'hit', value: looked.value as Value, vector };
  }

  /**
   * Stores a value read since `vector` was looked up; undefined, for `one`, stores that there is no such row.
   *
   * Take the vector first, then read the source, then fill: a generation that moved meanwhile refuses the fill, which
   * is counted and harmless. One command. Throws UnencodableValueError, OversizedValueError, SchemaMismatchError, and
   * ConfigurationError for a vector that this entry's `lookup` did not return. A failing store refuses the fill.
   */
  async fill(vector: Vector, value: Value, options?: ReadOptions): Promise<'filled' | 'refused'> {
    const { filler, inFlight } = this.#engine.opened();
    if (Vector.addressOf(vector as unknown)?.definition !== this.#definition) {
      throw new ConfigurationError(
        `\`fill\` must get the vector that a lookup of the same entry returned, but got ${describe(vector)} ` +
          `(entry "${this.name}"). Call \`lookup\` of this entry first, then read the source, then fill.`,
      );
    }
    const stored = value === undefined && this.#one ? ABSENT : value;
    const filling = filler.seal(vector, stored).then((sealed) => filler.fill([sealed], options?.attributes));
    inFlight.track(filling);
    return (await filling) === 1 ? 'filled' : 'refused';
  }

  /**
   * Frees the memory of an entry; true if there was one. Two commands. To invalidate, bump: a slow reader may put the
   * old value back after a delete. Throws IdError, and what the store throws.
   */
  async delete(ids: Ids): Promise<boolean> {
    const { lookup, store, options, telemetry, inFlight } = this.#engine.opened();
    const address = this.#definition.address(ids as Record<string, unknown>);
    if (store.bypassed) return false;
    const deleting = withDeadline('delete', options.bumpDeadlineMs, async (deadline) => {
      const key = await lookup.locate(address, deadline);
      return key !== undefined && (await store.delete([key], deadline)) > 0;
    });
    inFlight.track(deleting);
    try {
      return await deleting;
    } catch (error) {
      telemetry.emit('storeFailure', { cache: options.name, operation: 'delete', error: error as Error });
      throw error;
    }
  }

  get #one(): boolean {
    return this.#definition.shape === 'one';
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
