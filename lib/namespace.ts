import { EntryDefinition, type EntryOptions, type KeyInput, type KeyKinds } from './model/entry-definition.js';
import type { Engine } from './engine.js';
import { Entry } from './entry.js';
import { ConfigurationError } from './errors/errors.js';
import type { Attributes } from './telemetry/events.js';
import type { NamespaceNode } from './model/namespace-node.js';
import type { IdKind } from './model/id-kind.js';
import type { Scope } from './model/scope.js';
import { bumpTarget, requireOutbox } from './write/bump-target.js';

/** How a bump is marked, and when it happens. */
export interface BumpOptions<Transaction = never> {
  /** What made it necessary, for logs and statistics: `workflow updated`. Keep the values few. Default: `call`. */
  readonly cause?: string;
  readonly attributes?: Attributes;
  /**
   * Record the bump in this transaction (ladder step 2): it happens after that commits, and only if it does. One query
   * now; after the commit this process bumps, and if it does not live to, whichever relay polls next.
   */
  readonly trx?: Transaction;
}

/**
 * A declared node of the hierarchy. `In` is what callers pass for the ids of its scopes, `Out` what loaders get:
 * `{ detector: 42, environment: 7 }`.
 */
export class Namespace<In extends object, Out extends object, Context, Transaction> {
  readonly #engine: Engine;
  readonly #node: NamespaceNode;
  readonly #entries = new Set<string>();

  constructor(engine: Engine, node: NamespaceNode) {
    this.#engine = engine;
    this.#node = node;
  }

  /** `global`, `detector`, `environment`. */
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

  /** Declares an entry of one row at most for its ids; undefined when there is none. Throws ConfigurationError. */
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

  /** A scope, for an entry's `dependsOn`. Throws IdError. */
  scope(ids: In): Scope {
    return this.#node.bind(ids as Record<string, unknown>).scope;
  }

  /**
   * Makes everything cached in this scope and below it unreachable, for every process. O(1): one command.
   *
   * Call it after the commit of what changed. Resolves when the store has confirmed; rejects with BumpError when it
   * can't be reached within `bumpDeadlineMs`, the outcome then being unknown: bump again. Throws IdError.
   */
  bump(ids: In, options?: BumpOptions<Transaction>): Promise<void> {
    return this.#bump([ids], options);
  }

  /**
   * The same for many scopes of this namespace, none of their siblings; duplicates are bumped once. One command for
   * each 1,000, one after another. Rejects when one of them fails, after the others; the error's `paths` names every
   * scope that is to be bumped again.
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
      return requireOutbox(engine).record(options.trx, paths, cause, bumpTarget(engine, this.name, options.attributes));
    }
    const bumped = engine.bumper.bump(this.name, scopes, {
      cause: options?.cause ?? 'call',
      attributes: options?.attributes,
      stack: engine.stack(this.#bump),
    });
    engine.inFlight.track(bumped);
    await bumped;
  }

  #define<Row, Value, K extends KeyKinds>(
    name: string,
    shape: 'one' | 'list',
    options: EntryOptions<In, Out, K, Context, Row, Value>,
  ): EntryDefinition {
    if (this.#entries.has(name)) {
      throw new ConfigurationError(
        `An entry is declared once. Got "${name}", which ${this.name} already has. ` +
          'Keep the object that the first declaration returned and use it everywhere.',
      );
    }
    const { name: cache, ttlMs } = this.#engine.options;
    // The definition is where static types end: it works on ids by name.
    const definition = new EntryDefinition({
      cache,
      namespace: this.#node,
      name,
      shape,
      options: options as never,
      defaultTtlMs: ttlMs,
    });
    this.#engine.declareTtl(definition.ttlMs);
    this.#entries.add(name);
    return definition;
  }
}
