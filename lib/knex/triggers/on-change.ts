import type { Knex } from 'knex';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import type { OutboxOptions } from '../outbox/location.js';
import { findRelation } from '../postgres/catalog.js';
import {
  type TriggerBump,
  type TriggerDefinition,
  type Operation,
  ROW_OPERATIONS,
  type RowOperation,
  validateDefinition,
} from './trigger-definition.js';
import { installDefinition } from './install-triggers.js';
import { underInstallationLock } from '../postgres/table-locks.js';
import { requireInstalledOutbox } from '../outbox/installed-outbox.js';
import { displayName } from '../postgres/identifiers.js';

export interface ChangeOptions {
  /** The name of the cache that is to be bumped. */
  readonly cache: string;
  /** The schema of the table. Default: where the connection's search path leads. */
  readonly schema?: string;
  /** Tells several installations on one table, for one cache, apart. Default: `default`. */
  readonly name?: string;
  /** What is watched; TRUNCATE is, listed or not. Default: all. */
  readonly operations?: readonly Operation[];
  /** An UPDATE counts if it changes one of these, or a column that a bump names. Default: any column. */
  readonly columns?: readonly string[];
  /** The path that TRUNCATE bumps: `tenant=7`. Default: global. */
  readonly truncate?: string;
  /** Above so many scopes (or rows to look up) in one statement their nearest common ancestor is bumped; a single row's two are never too many. Default: 1,000. */
  readonly limit?: number;
  /** The table is written by logical replication: adds row-level triggers, which fire for it alone. Default: false. */
  readonly subscriber?: boolean;
  /** Where the outbox is. */
  readonly outbox?: OutboxOptions;
}

/** A column of the row that changed, in the bump of a look-up. */
export interface ChangedColumn {
  readonly changed: string;
}

/** In the bump of a look-up: this column is the changed row's, and its old and its new value count. */
export function changed(column: string): ChangedColumn {
  return { changed: column };
}

/**
 * Says what a change of a table bumps, for a migration of your own:
 *
 *     export const up = (db) =>
 *       onChangeOf(db, 'detector_workflow', { cache: 'workflow_engine' }).bump({ detector: 'detector_id' }).install();
 *
 * The change and its event commit in one transaction, whoever writes; a relay bumps after it. What triggers can't see is
 * in CAVEATS.md.
 */
export function onChangeOf(db: Knex, table: string, options: ChangeOptions): Change {
  if (typeof options !== 'object' || options === null) {
    throw new ConfigurationError(
      `Triggers record the changes of a table for a cache. Got ${describe(options)} as options. ` +
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

/** The changes to watch on one table, and their bumps. Immutable: each call returns another `Change`. */
export class Change {
  readonly #watched: WatchedTable;

  constructor(watched: WatchedTable) {
    this.#watched = watched;
  }

  /**
   * Bumps the scope that the row's own columns name, as it was and as it is: `{ detector: 'detector_id' }`, namespaces
   * root first; `{}` is global.
   */
  bump(ids: Readonly<Record<string, string>>): Change {
    const columns = Object.entries(ids).map(([namespace, column]) => ({ namespace, column, of: 'changed' as const }));
    return this.#and({ lookUp: null, ids: columns });
  }

  /**
   * Bumps scopes that rows of another table name: those whose columns equal the changed row's,
   * `{ workflow_id: 'id' }`. They are looked up after the commit by whoever bumps (docs/protocol.md, rule 3), so that table's
   * own changes must bump at least the part of the path that its columns name: watch it, too.
   */
  lookUp(
    table: string,
    on: Readonly<Record<string, string>>,
    options: { readonly schema?: string } = {},
  ): LookupBuilder {
    const pairs = Object.entries(on).map(([column, named]) => ({ column, changed: named }));
    return new LookupBuilder((ids) => this.#and({ lookUp: { schema: options.schema ?? null, table, on: pairs }, ids }));
  }

  /**
   * Makes the triggers and functions, and keeps their definition. Changes, and locks, nothing where all is as it should
   * be, so any number of processes may call it at once; where something changes, writers to the table wait for the end
   * of the transaction. In one transaction, or the caller's. Throws ConfigurationError, TableLockedError.
   */
  async install(): Promise<void> {
    const { db, options } = this.#watched;
    await underInstallationLock(db, async (trx) => {
      const definition = await this.#definition(trx);
      await installDefinition(trx, await requireInstalledOutbox(trx, options.outbox, 'outbox: { schema }'), definition);
    });
  }

  #and(bump: TriggerBump): Change {
    return new Change({ ...this.#watched, bumps: [...this.#watched.bumps, bump] });
  }

  /** With every table named in full. */
  async #definition(trx: Knex.Transaction): Promise<TriggerDefinition> {
    const { options } = this.#watched;
    const { cache, name = 'default', columns, truncate = '', limit = 1_000, subscriber = false } = options;
    const operations = options.operations ?? ROW_OPERATIONS;
    const table = await named(trx, options.schema, this.#watched.table);
    const bumps: TriggerBump[] = [];
    for (const bump of this.#watched.bumps) {
      const { lookUp } = bump;
      const found = lookUp === null ? null : await named(trx, lookUp.schema ?? undefined, lookUp.table);
      bumps.push({ ...bump, lookUp: found === null ? null : { ...found, on: lookUp!.on } });
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

/** A look-up that waits for what it bumps. */
export class LookupBuilder {
  readonly #bump: (ids: TriggerBump['ids']) => Change;

  constructor(bump: (ids: TriggerBump['ids']) => Change) {
    this.#bump = bump;
  }

  /** Columns of the looked-up table, or of the changed row: `{ detector: 'detector_id', environment: changed('environment_id') }`. */
  bump(ids: Readonly<Record<string, string | ChangedColumn>>): Change {
    return this.#bump(
      Object.entries(ids).map(([namespace, column]) =>
        typeof column === 'string'
          ? { namespace, column, of: 'looked up' }
          : { namespace, column: column.changed, of: 'changed' },
      ),
    );
  }
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
    `Triggers watch, and look up, tables that exist. There is no ${displayName(schema ?? null, table)}. ` +
      (dot > 0
        ? `A schema stands beside the table: pass '${table.slice(dot + 1)}' with { schema: '${table.slice(0, dot)}' }.`
        : 'Create it in an earlier migration, or name its schema.'),
  );
}
