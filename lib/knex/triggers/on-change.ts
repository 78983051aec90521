import type { Knex } from 'knex';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import type { OutboxOptions } from '../outbox/location.js';
import { findRelation } from '../postgres/catalog.js';
import {
  hopsOf,
  type IdColumn,
  type TableLookup,
  type TriggerBump,
  type TriggerDefinition,
  type Operation,
  ROW_OPERATIONS,
  type RowOperation,
  validateDefinition,
} from './trigger-definition.js';
import { warnOfDeclaration } from './declaration-faults.js';
import type { BumpColumns } from './declared-columns.js';
import { installDefinition } from './install-triggers.js';
import { underInstallationLock } from '../postgres/table-locks.js';
import { requireInstalledOutbox } from '../outbox/installed-outbox.js';
import { displayName } from '../postgres/identifiers.js';

export interface ChangeOptions {
  /** The name of the cache to bump. */
  readonly cache: string;
  /** The schema of the table. Default: the search path of the connection. */
  readonly schema?: string;
  /** Tells several installations on one table, for one cache, apart. Default: `default`. */
  readonly name?: string;
  /** The operations to watch; TRUNCATE always is. Default: all. */
  readonly operations?: readonly Operation[];
  /** An UPDATE is recorded if it changes one of these columns, or one that a bump names. Default: any column. */
  readonly columns?: readonly string[];
  /** The path that TRUNCATE bumps: `tenant=7`. Default: global. */
  readonly truncate?: string;
  /**
   * Above this number of scopes (or rows to look up) in one statement, their nearest common ancestor is bumped. The two scopes
   * of a single row are always bumped as they are. Default: 1,000.
   */
  readonly limit?: number;
  /** Whether logical replication writes the table: adds row-level triggers, which fire for replication alone. Default: false. */
  readonly subscriber?: boolean;
  /** Location of the outbox. */
  readonly outbox?: OutboxOptions;
}

/** A column of the changed row, in the bump of a lookup. */
export interface ChangedColumn {
  readonly changed: string;
}

/** A column of a table that was looked up on the way to another one, in the bump of a lookup. */
export interface LookedUpColumn {
  readonly lookedUp: string;
  readonly column: string;
}

/** In the bump of a lookup through several tables: a column of one on the way. A plain name is a column of the last one. */
export function lookedUp(table: string, column: string): LookedUpColumn {
  return { lookedUp: table, column };
}

/** An SQL expression of the changed row's columns, as an id. */
export interface RowExpression {
  readonly sql: string;
}

/**
 * An id that is computed from the columns of the changed row: `{ organization: expression("config->>'organization_id'") }`. Only
 * columns, literals, operators and immutable built-in functions.
 */
export function expression(sql: string): RowExpression {
  return { sql };
}

export interface TriggerBumpOptions {
  /**
   * An SQL condition on the changed row, `enabled and kind = 'release'`: a row that does not meet it bumps nothing. An
   * UPDATE bumps if the old or the new row meets it.
   */
  readonly when?: string;
}

/** In the bump of a lookup: a column of the changed row, with its old and its new value. */
export function changed(column: string): ChangedColumn {
  return { changed: column };
}

/**
 * Begins the definition of triggers on a table, for a migration of your own:
 *
 *     export const up = (db) =>
 *       onChangeOf(db, 'detector_workflow', { cache: 'workflow_engine' }).bump({ detector: 'detector_id' }).install();
 *
 * With the types of an application's namespaces, the compiler refuses names that they do not have:
 *
 *     // import type { detectors, environments } from '../src/cache.js', which loads nothing
 *     onChangeOf<typeof detectors | typeof environments>(db, 'detector_workflow', { cache: 'workflow_engine' })
 *
 * For every writer, the change and its event commit in one transaction; a relay bumps after it. CAVEATS.md lists the changes
 * that triggers do not see.
 */
export function onChangeOf<Declared = unknown>(db: Knex, table: string, options: ChangeOptions): Change<Declared> {
  if (typeof options !== 'object' || options === null) {
    throw new ConfigurationError(
      `The options of onChangeOf must be an object with \`cache\`, but got ${describe(options)}. ` +
        `Name the cache: \`onChangeOf(db, '${table}', { cache: 'shop' })\`.`,
    );
  }
  return new Change({ db, table, options, bumps: [] });
}

interface WatchedTable {
  readonly db: Knex;
  readonly table: string;
  readonly options: ChangeOptions;
  readonly bumps: readonly TriggerBump[];
}

/**
 * The changes to watch on one table, and their bumps. Immutable: each call returns a new `Change`. `Declared`: the types of
 * the namespaces that bumps may name.
 */
export class Change<Declared = unknown> {
  readonly #watched: WatchedTable;

  constructor(watched: WatchedTable) {
    this.#watched = watched;
  }

  /**
   * Bumps the scope that the row's own columns name, for the old and the new row: `{ detector: 'detector_id' }`, namespaces
   * root first; `{}` is global.
   */
  bump(ids: BumpColumns<Declared, string | RowExpression>, options: TriggerBumpOptions = {}): Change<Declared> {
    const columns = Object.entries(ids as Readonly<Record<string, string | RowExpression>>).map(
      ([namespace, column]): IdColumn =>
        typeof column === 'string' ? { namespace, column, of: 'changed' } : computed(namespace, column),
    );
    return this.#and({ lookUp: null, ids: columns, ...condition(options) });
  }

  /**
   * Bumps scopes that rows of another table name: the rows whose columns equal those of the changed row,
   * `{ workflow_id: 'id' }`. The lookup runs after the commit (docs/protocol.md, rule 3) and misses rows that are gone by
   * then, so each change of that table must bump the scope, or one above, for itself: by its own columns, or by a lookup that
   * ends at a table which does. Install that table's triggers first; `install` rejects a circle of lookups.
   */
  lookUp(
    table: string,
    on: Readonly<Record<string, string>>,
    options: { readonly schema?: string } = {},
  ): LookupBuilder<Declared> {
    const pairs = Object.entries(on).map(([column, named]) => ({ column, changed: named }));
    return new LookupBuilder([{ schema: options.schema ?? null, table, on: pairs }], (bump) => this.#and(bump));
  }

  /**
   * Creates the triggers and functions, and stores their definition. Changes, and locks, nothing where all is up to date, so
   * any number of processes may call it at once; otherwise writers to the table wait for the end of the transaction. Warns,
   * in Knex's log, of a cache, a namespace or a type that differs from what applications have published. In one
   * transaction, or the caller's. Throws ConfigurationError, TableLockedError.
   */
  async install(): Promise<void> {
    const { db, options } = this.#watched;
    await underInstallationLock(db, async (trx) => {
      const definition = await this.#definition(trx);
      const outbox = await requireInstalledOutbox(trx, options.outbox, 'outbox: { schema }');
      await installDefinition(trx, outbox, definition);
      await warnOfDeclaration(trx, outbox, definition);
    });
  }

  #and(bump: TriggerBump): Change<Declared> {
    return new Change({ ...this.#watched, bumps: [...this.#watched.bumps, bump] });
  }

  /** The definition, with the schema of every table. */
  async #definition(trx: Knex.Transaction): Promise<TriggerDefinition> {
    const { options } = this.#watched;
    const { cache, name = 'default', columns, truncate = '', limit = 1_000, subscriber = false } = options;
    const operations = options.operations ?? ROW_OPERATIONS;
    const table = await named(trx, options.schema, this.#watched.table);
    const bumps: TriggerBump[] = [];
    for (const bump of this.#watched.bumps) {
      const hops: TableLookup[] = [];
      for (const { schema, table: looked, on } of hopsOf(bump)) {
        hops.push({ ...(await named(trx, schema ?? undefined, looked)), on });
      }
      const [lookUp = null, ...further] = hops;
      bumps.push({ ...bump, lookUp, ...(further.length > 0 && { further }) });
    }
    const definition: TriggerDefinition = {
      cache,
      ...table,
      name,
      operations: operations.filter((operation): operation is RowOperation => operation !== 'truncate'),
      columns: columns === undefined ? null : [...columns],
      truncate,
      limit,
      subscriber,
      bumps,
    };
    validateDefinition(definition);
    return definition;
  }
}

/** A lookup without its bump. Immutable, too. */
export class LookupBuilder<Declared = unknown> {
  readonly #hops: readonly TableLookup[];
  readonly #and: (bump: TriggerBump) => Change<Declared>;

  constructor(hops: readonly TableLookup[], and: (bump: TriggerBump) => Change<Declared>) {
    this.#hops = hops;
    this.#and = and;
  }

  /**
   * Looks up a further table by the rows that were found: those whose columns equal columns of the table before,
   * `{ id: 'customer_id' }`. Every table on the way must be watched, like that of `lookUp`.
   */
  thenLookUp(
    table: string,
    on: Readonly<Record<string, string>>,
    options: { readonly schema?: string } = {},
  ): LookupBuilder<Declared> {
    const pairs = Object.entries(on).map(([column, named]) => ({ column, changed: named }));
    return new LookupBuilder([...this.#hops, { schema: options.schema ?? null, table, on: pairs }], this.#and);
  }

  /**
   * Columns of the table that was looked up last, of one on the way, or of the changed row: `{ detector: 'detector_id',
   * order: lookedUp('shop_order', 'id'), environment: changed('environment_id') }`.
   */
  bump(
    ids: BumpColumns<Declared, string | ChangedColumn | LookedUpColumn | RowExpression>,
    options: TriggerBumpOptions = {},
  ): Change<Declared> {
    const [lookUp, ...further] = this.#hops as [TableLookup, ...TableLookup[]];
    return this.#and({
      lookUp,
      ...(further.length > 0 && { further }),
      ids: Object.entries(ids as Readonly<Record<string, string | ChangedColumn | LookedUpColumn | RowExpression>>).map(
        ([namespace, column]): IdColumn => {
          if (typeof column === 'string') return { namespace, column, of: 'looked up' };
          if ('changed' in column) return { namespace, column: column.changed, of: 'changed' };
          if ('sql' in column) return computed(namespace, column);
          const hop = this.#hopOf(column);
          return { namespace, column: column.column, of: 'looked up', ...(hop < this.#hops.length && { hop }) };
        },
      ),
      ...condition(options),
    });
  }

  #hopOf({ lookedUp: table }: LookedUpColumn): number {
    const hops = this.#hops.flatMap((hop, i) => (hop.table === table ? [i + 1] : []));
    if (hops.length === 1) return hops[0]!;
    throw new ConfigurationError(
      `lookedUp() must name a table that this lookup reads once, but got ${describe(table)}, which it reads ` +
        `${hops.length === 0 ? 'never' : `${hops.length} times`}. Its tables: ${this.#hops.map((hop) => hop.table).join(', ')}.`,
    );
  }
}

function condition({ when }: TriggerBumpOptions): { when?: string } {
  return when === undefined ? {} : { when };
}

function computed(namespace: string, { sql: column }: RowExpression): IdColumn {
  return { namespace, column, of: 'changed', expression: true };
}

async function named(
  trx: Knex.Transaction,
  schema: string | undefined,
  table: string,
): Promise<{ schema: string; table: string }> {
  const relation = await findRelation(trx, schema, table);
  if (relation !== undefined) return { schema: relation.schema, table: relation.name };
  const dot = schema === undefined ? table.indexOf('.') : -1;
  throw new ConfigurationError(
    `There is no table ${displayName(schema ?? null, table)} to watch or to look up in. ` +
      (dot > 0
        ? `The schema is an option of its own: pass '${table.slice(dot + 1)}' with { schema: '${table.slice(0, dot)}' }.`
        : 'Create it in an earlier migration, or pass its `schema`.'),
  );
}
