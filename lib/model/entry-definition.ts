import type { StandardSchemaV1 } from '@standard-schema/spec';
import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';
import { canonicalId, type NamespaceNode } from './namespace-node.js';
import type { IdKind } from './id-kind.js';
import { isName, NAME_RULE } from './key.js';
import type { Scope } from './scope.js';
import { RegisteredScope } from './scope-registry.js';
import { checkTtl } from './ttl.js';

/** Kinds of the ids that tell entries of one scope apart. */
export type KeyKinds = Readonly<Record<string, IdKind<unknown, unknown>>>;

/** What callers may pass for the ids of these kinds. */
export type KeyInput<K extends KeyKinds> = {
  readonly [Name in keyof K]: K[Name] extends IdKind<infer In, infer _Out> ? In : never;
};

/** What loaders get for them. */
export type KeyOutput<K extends KeyKinds> = {
  readonly [Name in keyof K]: K[Name] extends IdKind<infer _In, infer Out> ? Out : never;
};

/** How an entry is loaded, addressed and kept. */
export interface EntryOptions<In, Out, K extends KeyKinds, Context, Row, Value> {
  /** How long a value may be served, from the lookup before its load, in ms. Default: the cache's `ttlMs`. */
  readonly ttlMs?: number;
  /** Ids that tell entries of one scope apart: `{ setting: text() }`. They have no generation of their own. */
  readonly key?: K;
  /**
   * Reads the rows of every id that missed: `ids: [n]`, distinct and canonical, in any order; resolves to all their
   * rows, in any order between ids. One call for all misses of a turn, at most `loadBatchMax` ids.
   * What it throws reaches every caller unwrapped, and nothing is cached.
   */
  readonly load: (ids: readonly (Out & KeyOutput<K>)[], context: Context) => PromiseLike<readonly Row[]>;
  /** The ids a row belongs to. Rows that belong to nobody who asked reject the call. */
  readonly by: (row: Row) => In & KeyInput<K>;
  /** The cached value of a row. Default: the row. */
  readonly value?: (row: Row) => Value;
  /** Further scopes whose bump invalidates the entry, as a function of its ids alone. */
  readonly dependsOn?: (ids: Out & KeyOutput<K>) => readonly Scope[];
  /**
   * Checks values on read and before they are stored; its output is not used. A stored value that fails is a miss,
   * counted; a loaded one is returned and not stored, counted.
   */
  readonly schema?: StandardSchemaV1;
}

/** An entry under given ids: which scopes guard it, and where it is below them. */
export class Address {
  readonly definition: EntryDefinition;
  /** The scope that owns the entry. */
  readonly scope: RegisteredScope;
  /** The vector's scopes: the lineage of `scope`, then those of its dependencies, each once. */
  readonly scopes: readonly RegisteredScope[];
  /** The entry's name and the ids of its key, as they stand in the key. */
  readonly entryPath: string;
  readonly #values: readonly unknown[];

  constructor({ definition, scope, scopes, entryPath, values }: AddressOptions) {
    this.definition = definition;
    this.scope = scope;
    this.scopes = scopes;
    this.entryPath = entryPath;
    this.#values = values;
  }

  /** Canonical: what loaders get. Put together here, since a hit needs none. */
  get ids(): Readonly<Record<string, unknown>> {
    return this.definition.named(this.#values);
  }

  /** Tells the addresses of one definition apart. */
  get id(): string {
    return `${this.scope.path}:${this.entryPath}`;
  }
}

interface AddressOptions {
  readonly definition: EntryDefinition;
  readonly scope: RegisteredScope;
  readonly scopes: readonly RegisteredScope[];
  readonly entryPath: string;
  /** Canonical values of the ids: of the namespaces, root first, then of the key. */
  readonly values: readonly unknown[];
}

type AnyIds = Readonly<Record<string, unknown>>;

/** One declared entry, checked. What is typed in `EntryOptions` is erased here. */
export class EntryDefinition {
  readonly cache: string;
  readonly name: string;
  /** One row at most (`one`), or any number (`list`). */
  readonly shape: 'one' | 'list';
  readonly ttlMs: number;
  readonly schema: StandardSchemaV1 | undefined;
  readonly load: (ids: readonly AnyIds[], context: unknown) => PromiseLike<readonly unknown[]>;
  readonly by: (row: unknown) => AnyIds;
  readonly value: (row: unknown) => unknown;
  readonly #dependsOn: ((ids: AnyIds) => readonly Scope[]) | undefined;
  readonly #namespace: NamespaceNode;
  readonly #keys: readonly (readonly [string, IdKind<unknown, unknown>])[];
  readonly #keyNames: readonly string[];
  readonly #names: readonly string[];

  /** Throws ConfigurationError. */
  constructor({ cache, namespace, name, shape, options, defaultTtlMs }: EntryDefinitionOptions) {
    if (!isName(name)) {
      throw new ConfigurationError(
        `An entry's name is ${NAME_RULE}: it stands in keys. Got ${describe(name)}. Choose such a name.`,
      );
    }
    for (const role of ['load', 'by'] as const) {
      if (typeof options?.[role] !== 'function') {
        throw new ConfigurationError(
          `An entry declares how its rows are read (load) and whose they are (by). ` +
            `"${name}" got ${describe(options?.[role])} for ${role}. Pass a function.`,
        );
      }
    }
    for (const key of Object.keys(options.key ?? {})) {
      if (!isName(key) || namespace.idNames.includes(key)) {
        throw new ConfigurationError(
          `An id of an entry's key has a name of its own: ${NAME_RULE}, and none of its namespaces'. ` +
            `"${name}" got ${describe(key)} below ${namespace.idNames.join(', ') || 'global'}. Choose another name.`,
        );
      }
    }
    this.cache = cache;
    this.name = name;
    this.shape = shape;
    this.ttlMs = checkTtl(options.ttlMs ?? defaultTtlMs, `The entry "${name}"`);
    this.schema = options.schema;
    this.load = options.load;
    this.by = options.by;
    this.value = options.value ?? ((row) => row);
    this.#dependsOn = options.dependsOn;
    this.#namespace = namespace;
    this.#keys = Object.entries(options.key ?? {});
    this.#keyNames = this.#keys.map(([key]) => key);
    this.#names = [...namespace.idNames, ...this.#keyNames];
  }

  /** Where the entry of `ids` is. Throws IdError. */
  address(ids: AnyIds): Address {
    const { scope, values } = this.#namespace.bind(ids, this.#keyNames);
    let entryPath = this.name;
    for (const [key, kind] of this.#keys) {
      const value = canonicalId(key, kind, ids);
      values.push(value);
      entryPath += `,${kind.text(value)}`;
    }
    const scopes = this.#dependsOn ? union(scope.lineage, this.#dependsOn(this.named(values))) : scope.lineage;
    return new Address({ definition: this, scope, scopes, entryPath, values });
  }

  /** Canonical values by name: of the namespaces, root first, then of the key. */
  named(values: readonly unknown[]): AnyIds {
    return Object.fromEntries(this.#names.map((name, i) => [name, values[i]]));
  }
}

interface EntryDefinitionOptions {
  readonly cache: string;
  readonly namespace: NamespaceNode;
  readonly name: string;
  readonly shape: 'one' | 'list';
  readonly options: EntryOptions<AnyIds, AnyIds, KeyKinds, unknown, unknown, unknown>;
  readonly defaultTtlMs: number;
}

function union(lineage: readonly RegisteredScope[], dependencies: readonly Scope[]): readonly RegisteredScope[] {
  const scopes = [...lineage];
  for (const dependency of dependencies) {
    if (!(dependency instanceof RegisteredScope) || dependency.lineage[0] !== lineage[0])
      throw strangeScope(dependency);
    for (const scope of dependency.lineage) if (!scopes.some(({ path }) => path === scope.path)) scopes.push(scope);
  }
  return scopes;
}

function strangeScope(scope: Scope): ConfigurationError {
  return new ConfigurationError(
    '`dependsOn` must return scopes of the same cache, since they are bumped where the entry is read, but got ' +
      `${scope instanceof RegisteredScope ? `${scope.path || 'global'} of another cache` : describe(scope)}. ` +
      'Take the scope from a namespace of this cache: `namespace.scope(ids)`.',
  );
}
