import {
  EntryDefinition,
  type EntryOptions,
  type KeyInput,
  type KeyKinds,
  type Shape,
  type ValueOptions,
} from './model/entry-definition.js';
import type { Engine } from './engine.js';
import { Entry } from './entry.js';
import { ConfigurationError } from './errors/errors.js';
import type { Attributes } from './telemetry/events.js';
import type { NamespaceNode } from './model/namespace-node.js';
import type { IdKind } from './model/id-kind.js';
import type { Scope } from './model/scope.js';
import { bumpTarget, requireOutbox } from './write/bump-target.js';

/** Options of a bump. */
export interface BumpOptions<Transaction = never> {
  /** The reason of the bump, for logs and statistics: `workflow updated`. Keep the values few. Default: `call`. */
  readonly cause?: string;
  readonly attributes?: Attributes;
  /**
   * A transaction to record the bump in (ladder step 2): the bump happens after its commit, and only if it commits. Costs
   * one query now. After the commit this process bumps; if it dies before, the next poll of a relay bumps.
   */
  readonly trx?: Transaction;
}

/**
 * A declared node of the hierarchy. `In` is the type of the ids that callers pass, `Out` the type of the ids that loaders
 * get: `{ detector: 42, environment: 7 }`.
 */
export class Namespace<In extends object, Out extends object, Context, Transaction> {
  readonly #engine: Engine;
  readonly #node: NamespaceNode;

  constructor(engine: Engine, node: NamespaceNode) {
    this.#engine = engine;
    this.#node = node;
  }

  /** The namespace's name: `global`, `detector`, `environment`. */
  get name(): string {
    return this.#node.level;
  }

  /** Declares a namespace below this one, once. Throws ConfigurationError. */
  namespace<Name extends string, IdIn, IdOut>(
    name: Name,
    kind: IdKind<IdIn, IdOut>,
  ): Namespace<In & { readonly [N in Name]: IdIn }, Out & { readonly [N in Name]: IdOut }, Context, Transaction> {
    return new Namespace(this.#engine, this.#node.child(name, kind));
  }

  /** Declares an entry of at most one row for its ids, undefined for an absent row. Throws ConfigurationError. */
  one<Row, Value = Row, K extends KeyKinds = Record<never, never>>(
    name: string,
    options: EntryOptions<In, Out, K, Context, Row, Value>,
  ): Entry<In & KeyInput<K>, Value | undefined, Transaction> {
    return new Entry(this.#define(name, 'one', options), this.#engine);
  }

  /** Declares an entry of any number of rows for its ids, in the loader's order. Throws ConfigurationError. */
  list<Row, Value = Row, K extends KeyKinds = Record<never, never>>(
    name: string,
    options: EntryOptions<In, Out, K, Context, Row, Value>,
  ): Entry<In & KeyInput<K>, Value[], Transaction> {
    return new Entry(this.#define(name, 'list', options), this.#engine);
  }

  /**
   * Declares an entry of one value for its ids, from any source: an aggregate, an HTTP answer, a computed object. undefined
   * is cached as absent. Throws ConfigurationError.
   *
   *     const rate = cache.namespace('currency', text()).value('rate', {
   *       load: async ({ currency }, { signal }) => (await fetch(`https://…/${currency}`, { signal })).json(),
   *     });
   */
  value<Value, K extends KeyKinds = Record<never, never>>(
    name: string,
    options: ValueOptions<Out, K, Context, Value>,
  ): Entry<In & KeyInput<K>, Value, Transaction> {
    return new Entry(this.#define(name, 'value', options), this.#engine);
  }

  /** Returns a scope, for an entry's `dependsOn` ("tags" elsewhere). Throws IdError. */
  scope(ids: In): Scope {
    return this.#node.bind(ids as Record<string, unknown>).scope;
  }

  /**
   * Invalidates every entry of this scope and below it, for every process ("invalidate" elsewhere). Costs one command,
   * independent of the number of entries.
   *
   * Call it after the commit of the change. Resolves when the store has confirmed. Rejects with BumpError if the store
   * fails, or does not answer within `bumpDeadlineMs`, which leaves the outcome unknown; a second bump is harmless.
   * Throws IdError.
   */
  bump(ids: In, options?: BumpOptions<Transaction>): Promise<void> {
    return this.#bump([ids], options);
  }

  /**
   * Invalidates many scopes of this namespace, as `bump` does, without their siblings; duplicates are bumped once. Costs
   * one command for each 1,000 scopes, one after another. A command that fails does not stop the next ones; the call then
   * rejects with BumpError, whose `paths` names every scope that must be bumped again.
   */
  bumpMany(ids: readonly In[], options?: BumpOptions<Transaction>): Promise<void> {
    return this.#bump(ids, options);
  }

  async #bump(ids: readonly In[], options: BumpOptions<Transaction> | undefined): Promise<void> {
    const engine = this.#engine.opened();
    const scopes = ids.map((one) => this.#node.bind(one as Record<string, unknown>).scope);
    if (scopes.length === 0) return;
    if (options?.trx !== undefined) {
      const paths = [...new Set(scopes.map((scope) => scope.path))];
      const cause = options.cause ?? 'call';
      return requireOutbox(engine).record(options.trx, paths, cause, bumpTarget(engine, options.attributes));
    }
    const bumped = engine.bumper.bump(this.#node.path, scopes, {
      cause: options?.cause ?? 'call',
      attributes: options?.attributes,
      stack: engine.stack(this.#bump),
    });
    engine.inFlight.track(bumped);
    await bumped;
  }

  #define(name: string, shape: Shape, options: object): EntryDefinition {
    if (this.#node.hasEntry(name)) {
      throw new ConfigurationError(
        `An entry must be declared once, but got "${name}" again (already declared in ${this.name}). ` +
          'Keep the object that the first declaration returned and use it everywhere.',
      );
    }
    const { options: defaults } = this.#engine;
    // Static types end here: the definition handles ids by name.
    const definition = new EntryDefinition({
      cache: defaults.name,
      namespace: this.#node,
      name,
      shape,
      options: options as never,
      defaults,
    });
    this.#engine.declareTtl(definition.storedMs);
    this.#engine.entries.push(definition);
    this.#node.addEntry(name);
    return definition;
  }
}
