import type { StandardSchemaV1 } from '@standard-schema/spec';
import { inNoContext } from '../async/no-context.js';
import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';
import { flag, fraction, wholeNumber } from '../errors/option-checks.js';
import { canonicalId, type NamespaceNode } from './namespace-node.js';
import type { IdKind } from './id-kind.js';
import { isName, NAME_RULE } from './key.js';
import type { Scope } from './scope.js';
import { RegisteredScope } from './scope-registry.js';
import { checkTtl, TTL_MAX_MS } from './ttl.js';

/** Kinds of the ids that distinguish entries of one scope, by name. */
export type KeyKinds = Readonly<Record<string, IdKind<unknown, unknown>>>;

/** The ids that callers pass for these kinds. */
export type KeyInput<K extends KeyKinds> = {
  readonly [Name in keyof K]: K[Name] extends IdKind<infer In, infer _Out> ? In : never;
};

/** The canonical ids that loaders get for these kinds. */
export type KeyOutput<K extends KeyKinds> = {
  readonly [Name in keyof K]: K[Name] extends IdKind<infer _In, infer Out> ? Out : never;
};

/** What every loader gets, beside the context of its source. */
export interface LoadContext {
  readonly signal: AbortSignal;
}

/** Address, lifetime and limits of an entry of any shape. */
interface CommonOptions<Out, K extends KeyKinds> {
  /** Longest time that a value may be served, from the lookup before its load, in ms. Default: the cache's `ttlMs`. */
  readonly ttlMs?: number;
  /**
   * Most loads of this entry at once. Default: four fifths of the cache's `loadsMax`, which holds for all its entries
   * together, so that one slow entry leaves room to the others.
   */
  readonly loadsMax?: number;
  /** Time after which later readers do not wait for a load, in ms. Default: the cache's `loadSoftTimeoutMs`. */
  readonly loadSoftTimeoutMs?: number;
  /**
   * Time after which a load's callers reject with LoadTimeoutError, and its `signal` is aborted, in ms; 0 for no limit.
   * Default: the cache's `loadHardTimeoutMs`. A result that comes later is stored all the same.
   */
  readonly loadHardTimeoutMs?: number;
  /** Whether one process loads the entry while the others wait for it. Default: the cache's `leases`. */
  readonly leases?: boolean;
  /**
   * How long beyond its TTL a value is served at once, marked as stale, while one process loads it anew, in ms. Default: the
   * cache's `staleMs`, 0. A writer without a bump is then unseen for `ttlMs` and `staleMs` together.
   */
  readonly staleMs?: number;
  /**
   * How long beyond its TTL a value is served, marked as stale, if its load fails or takes longer than `loadSoftTimeoutMs`, in
   * ms. Default: the cache's `staleOnErrorMs`, 0.
   */
  readonly staleOnErrorMs?: number;
  /**
   * How early a hit may load an entry anew, before it expires, by the duration of its load: 1 is the optimum of XFetch
   * (Vattani et al., VLDB 2015), more is earlier. Default: the cache's `earlyRefresh`, 0 for never.
   */
  readonly earlyRefresh?: number;
  /** Ids that distinguish entries of one scope: `{ setting: text() }`. They have no generation of their own. */
  readonly key?: K;
  /** Returns further scopes whose bump invalidates the entry ("tags" elsewhere), as a function of its ids alone. */
  readonly dependsOn?: (ids: Out & KeyOutput<K>) => readonly Scope[];
  /**
   * Checks values on read and before they are stored; its output is not used. A stored value that fails is a miss, and
   * counted; a loaded value that fails is returned, not stored, and counted.
   */
  readonly schema?: StandardSchemaV1;
}

/** An entry whose values are made of rows: the loader of many ids at once, and how their rows are told apart. */
export interface EntryOptions<In, Out, K extends KeyKinds, Context, Row, Value> extends CommonOptions<Out, K> {
  /** Most ids of one call of `load`. Default: the cache's `loadBatchMax`. */
  readonly loadBatchMax?: number;
  /**
   * Reads the rows of every id that missed: `ids: [n]`, distinct and canonical, in any order; resolves to all their
   * rows, in any order between ids. One call serves all misses of a turn, at most `loadBatchMax` ids. It runs in no
   * caller's async context: all that a value depends on is in the ids. It reads when it is called, on the primary, and
   * outside any older snapshot. `signal` is aborted when the load takes longer than `loadHardTimeoutMs`.
   * An error that it throws reaches its callers unwrapped, and the cache stores no value. After an error in a call for
   * several callers, `load` is called again for fewer of them, so that each gets only errors of its own ids.
   */
  readonly load: (ids: readonly (Out & KeyOutput<K>)[], context: Context & LoadContext) => PromiseLike<readonly Row[]>;
  /** Returns the ids that a row belongs to. A row of ids that `load` was not given rejects the call. */
  readonly by: (row: Row) => In & KeyInput<K>;
  /** Returns the cached value of a row. Default: the row. */
  readonly value?: (row: Row) => Value;
}

/** An entry of one value from any source: an aggregate, an HTTP answer, a computed object. */
export interface ValueOptions<Out, K extends KeyKinds, Context, Value> extends CommonOptions<Out, K> {
  /**
   * Returns the value of one set of ids; undefined says that there is none, which is cached as absent. Called once for each
   * set that misses, `loadsMax` at once. It runs in no caller's async context, and reads when it is called. `signal` is
   * aborted when the load takes longer than `loadHardTimeoutMs`. Its errors reach its callers unwrapped, uncached.
   */
  readonly load: (ids: Out & KeyOutput<K>, context: Context & LoadContext) => PromiseLike<Value> | Value;
}

/** An entry under given ids: the scopes that guard it, and its path below them. */
export class Address {
  readonly definition: EntryDefinition;
  /** The scope that owns the entry. */
  readonly scope: RegisteredScope;
  /** The vector's scopes: the lineage of `scope`, then the lineages of its dependencies, each scope once. */
  readonly scopes: readonly RegisteredScope[];
  /** The entry's name and the ids of its key, in the form that the key holds. */
  readonly entryPath: string;
  readonly #values: readonly unknown[];

  constructor({ definition, scope, scopes, entryPath, values }: AddressOptions) {
    this.definition = definition;
    this.scope = scope;
    this.scopes = scopes;
    this.entryPath = entryPath;
    this.#values = values;
  }

  /** The canonical ids that loaders get. A getter makes them, since a hit does not need them. */
  get ids(): Readonly<Record<string, unknown>> {
    return this.definition.named(this.#values);
  }

  /** Distinguishes the addresses of one definition. */
  get id(): string {
    return `${this.scope.path}:${this.entryPath}`;
  }
}

interface AddressOptions {
  readonly definition: EntryDefinition;
  readonly scope: RegisteredScope;
  readonly scopes: readonly RegisteredScope[];
  readonly entryPath: string;
  /** Canonical values of the ids: the namespaces' values, root first, then the key's. */
  readonly values: readonly unknown[];
}

type AnyIds = Readonly<Record<string, unknown>>;

/** One declared entry, checked. The type parameters of `EntryOptions` end here. */
export class EntryDefinition {
  readonly cache: string;
  /** The names of its namespaces, root first, for labels: `global`, `detector/environment`. */
  readonly namespace: string;
  readonly name: string;
  /** One row at most (`one`), any number (`list`), or a value that is no row (`value`). */
  readonly shape: Shape;
  readonly ttlMs: number;
  readonly loadBatchMax: number;
  readonly loadsMax: number;
  readonly loadSoftTimeoutMs: number;
  /** 0 for no limit. */
  readonly loadHardTimeoutMs: number;
  readonly leases: boolean;
  readonly staleMs: number;
  readonly staleOnErrorMs: number;
  readonly earlyRefresh: number;
  /** How long beyond its TTL a value stays in the store, in ms. */
  readonly graceMs: number;
  /** Longest time that a value stays in the store, in ms. */
  readonly storedMs: number;
  /** Whether stored values tell their age: otherwise they are fresh as long as they are stored. */
  readonly hasLife: boolean;
  readonly schema: StandardSchemaV1 | undefined;
  readonly load: (ids: readonly AnyIds[], context: LoadContext) => PromiseLike<readonly unknown[]>;
  readonly by: (row: unknown) => AnyIds;
  readonly value: (row: unknown) => unknown;
  readonly #dependsOn: ((ids: AnyIds) => readonly Scope[]) | undefined;
  readonly #namespace: NamespaceNode;
  readonly #keys: readonly (readonly [string, IdKind<unknown, unknown>])[];
  readonly #keyNames: readonly string[];
  readonly #names: readonly string[];

  /** Throws ConfigurationError. */
  constructor({ cache, namespace, name, shape, options, defaults }: EntryDefinitionOptions) {
    if (!isName(name)) {
      throw new ConfigurationError(
        `The name of an entry must be ${NAME_RULE}, but got ${describe(name)}. Choose such a name.`,
      );
    }
    const { load, by, value, ...limits } = (options ?? {}) as Partial<RowOptions>;
    const roles = { load, ...(shape !== 'value' && { by }) };
    for (const [role, given] of Object.entries(roles) as [keyof typeof ROLES, unknown][]) {
      if (typeof given !== 'function') {
        throw new ConfigurationError(
          `\`${role}\` must be a function, but got ${describe(given)} (entry "${name}"). ` +
            `Pass a function ${ROLES[role]}.`,
        );
      }
    }
    const known = OPTIONS[shape === 'value' ? 'value' : 'rows'];
    const unknown = Object.keys(options).find((option) => !known.has(option));
    if (unknown !== undefined) {
      throw new ConfigurationError(
        `The options of an entry must be among ${[...known].join(', ')}, but got ` +
          `"${unknown}" (entry "${name}"). Correct the name, or leave the option out.`,
      );
    }
    for (const key of Object.keys(options.key ?? {})) {
      if (!isName(key) || namespace.idNames.includes(key)) {
        throw new ConfigurationError(
          `The name of an id in \`key\` must be ${NAME_RULE}, and not the name of a namespace above the entry, but got ` +
            `${describe(key)} (entry "${name}" below ${namespace.idNames.join(', ') || 'global'}). Choose another name.`,
        );
      }
    }
    this.cache = cache;
    this.namespace = namespace.path;
    this.name = name;
    this.shape = shape;
    this.ttlMs = checkTtl(options.ttlMs ?? defaults.ttlMs, `entry "${name}"`);
    const limit = (option: keyof EntryLimits, least: number, most: number) =>
      wholeNumber(`${option} of entry "${name}"`, limits[option] ?? defaults[option], least, most, 'that of the cache');
    this.loadBatchMax = shape === 'value' ? 1 : limit('loadBatchMax', 1, 1_000_000);
    const share = Math.ceil(SHARE_OF_LOADS * defaults.loadsMax);
    this.loadsMax = options.loadsMax === undefined ? share : limit('loadsMax', 1, 1_000_000);
    this.loadSoftTimeoutMs = limit('loadSoftTimeoutMs', 1, 3_600_000);
    this.loadHardTimeoutMs = limit('loadHardTimeoutMs', 0, 3_600_000);
    this.leases = flag(`leases of entry "${name}"`, options.leases ?? defaults.leases, 'that of the cache');
    this.staleMs = limit('staleMs', 0, TTL_MAX_MS);
    this.staleOnErrorMs = limit('staleOnErrorMs', 0, TTL_MAX_MS);
    this.earlyRefresh = fraction(
      `earlyRefresh of entry "${name}"`,
      options.earlyRefresh ?? defaults.earlyRefresh,
      EARLY_REFRESH_MAX,
      'that of the cache',
    );
    this.graceMs = Math.max(this.staleMs, this.staleOnErrorMs);
    this.storedMs = this.ttlMs + this.graceMs;
    this.hasLife = this.graceMs > 0 || this.earlyRefresh > 0 || defaults.local !== undefined;
    this.schema = options.schema;
    this.load = shape === 'value' ? asRows(load as unknown as ValueLoad) : load!;
    this.by = by ?? (() => ({}));
    this.value = value ?? ((row) => row);
    this.#dependsOn = options.dependsOn;
    this.#namespace = namespace;
    this.#keys = Object.entries(options.key ?? {});
    this.#keyNames = this.#keys.map(([key]) => key);
    this.#names = [...namespace.idNames, ...this.#keyNames];
  }

  /** The names of its ids: the namespaces', root first, then the key's. */
  get idNames(): readonly string[] {
    return this.#names;
  }

  /** Returns the address of the entry of `ids`. Throws IdError. */
  address(ids: AnyIds): Address {
    const { scope, values } = this.#namespace.bind(ids, this.#keyNames);
    let entryPath = this.name;
    for (const [key, kind] of this.#keys) {
      const value = canonicalId(key, kind, ids, 'key');
      values.push(value);
      entryPath += `,${kind.text(value)}`;
    }
    const scopes = this.#dependsOn
      ? union(scope.lineage, inNoContext(this.#dependsOn, this.named(values)))
      : scope.lineage;
    return new Address({ definition: this, scope, scopes, entryPath, values });
  }

  /** Whether the entry has no key and no dependencies, so that its scope's lineage is all of its vector. */
  get isPlain(): boolean {
    return this.#keys.length === 0 && this.#dependsOn === undefined;
  }

  /** Of a plain entry: returns the scope of `ids` if it is remembered; undefined also for ids that `address` rejects. */
  find(ids: AnyIds): RegisteredScope | undefined {
    return this.#namespace.find(ids);
  }

  /** Returns canonical values by name: the namespaces' values, root first, then the key's. */
  named(values: readonly unknown[]): AnyIds {
    return Object.fromEntries(this.#names.map((name, i) => [name, values[i]]));
  }
}

/** Most of `earlyRefresh`: beyond it, loads of all durations would be due at each hit. */
export const EARLY_REFRESH_MAX = 100;

/** The share of the cache's `loadsMax` that an entry has by default. */
const SHARE_OF_LOADS = 0.8;

const COMMON_OPTIONS = [
  ...(['ttlMs', 'loadsMax', 'loadSoftTimeoutMs', 'loadHardTimeoutMs', 'leases'] as const),
  ...(['staleMs', 'staleOnErrorMs', 'earlyRefresh', 'key', 'dependsOn', 'schema', 'load'] as const),
] satisfies readonly (keyof ValueOptions<AnyIds, KeyKinds, unknown, unknown>)[];
/** All options: a misspelt option would have no effect, so every other name is rejected. */
const OPTIONS: Readonly<Record<'rows' | 'value', ReadonlySet<string>>> = {
  value: new Set(COMMON_OPTIONS),
  rows: new Set<keyof RowOptions>([...COMMON_OPTIONS, 'loadBatchMax', 'by', 'value']),
};

const ROLES = {
  load: 'that reads the rows, or the value, of the ids it is given',
  by: 'that returns the ids of a row',
} as const;

interface EntryDefinitionOptions {
  readonly cache: string;
  readonly namespace: NamespaceNode;
  readonly name: string;
  readonly shape: Shape;
  readonly options: RowOptions | ValueOptions<AnyIds, KeyKinds, unknown, unknown>;
  /** The cache's settings, for options that the entry leaves out. */
  readonly defaults: EntryLimits &
    Pick<EntryDefinition, 'ttlMs' | 'leases' | 'earlyRefresh'> & {
      /** undefined for a cache without a local tier. */
      readonly local: object | undefined;
    };
}

export type Shape = 'one' | 'list' | 'value';

type RowOptions = EntryOptions<AnyIds, AnyIds, KeyKinds, unknown, unknown, unknown>;
type ValueLoad = ValueOptions<AnyIds, KeyKinds, unknown, unknown>['load'];

/** Makes a loader of one value a loader of one row, which is the value. */
function asRows(load: ValueLoad): EntryDefinition['load'] {
  return async ([ids], context) => [await load(ids!, context)];
}

/** Limits that an entry takes from its cache unless it has its own. */
export interface EntryLimits {
  readonly loadBatchMax: number;
  readonly loadsMax: number;
  readonly loadSoftTimeoutMs: number;
  readonly loadHardTimeoutMs: number;
  readonly staleMs: number;
  readonly staleOnErrorMs: number;
}

function union(lineage: readonly RegisteredScope[], dependencies: readonly Scope[]): readonly RegisteredScope[] {
  const scopes = [...lineage];
  for (const dependency of dependencies) {
    if (!(dependency instanceof RegisteredScope) || dependency.lineage[0]!.copies !== lineage[0]!.copies)
      throw strangeScope(dependency);
    // By key: another partition's global generation is another one, which a repair of that partition alone bumps.
    for (const scope of dependency.lineage) {
      if (!scopes.some(({ generationKey }) => generationKey === scope.generationKey)) scopes.push(scope);
    }
  }
  return scopes;
}

function strangeScope(scope: Scope): ConfigurationError {
  return new ConfigurationError(
    '`dependsOn` must return scopes of the same cache, since one lookup reads all generations, but got ' +
      `${scope instanceof RegisteredScope ? `${scope.path || 'global'} of another cache` : describe(scope)}. ` +
      'Take the scope from a namespace of this cache: `namespace.scope(ids)`.',
  );
}
