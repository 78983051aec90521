import type { Knex } from 'knex';
import { ConfigurationError, GencacheError } from '../../errors/errors.js';
import { findRelation } from '../postgres/catalog.js';
import { qualifiedName } from '../postgres/identifiers.js';
import { query, verbatim } from '../postgres/query.js';

export interface MigrateOptions extends Knex.MigratorConfig {
  /** The migrations to run. Default: `latest`. */
  readonly run?: 'latest' | 'up' | 'down' | 'rollback' | 'rollback all';
}

/** The part of a `GenerationalCache` that migrations need. */
export interface MigratedCache {
  bump(options: { readonly cause: string }): Promise<void>;
}

/** Migrations ran, or may have, and the bump after them failed. */
export class MigrationBumpError extends GencacheError {
  /** The result of Knex: the batch and the names; undefined if the batch failed. */
  readonly ran: readonly [number, readonly string[]] | undefined;

  constructor(ran: MigrationBumpError['ran'], cause: unknown) {
    super(
      'MIGRATION_BUMP',
      `The global bump after migrations (${ran?.[1].join(', ') ?? 'run in part'}) failed: ${(cause as Error).message} ` +
        'Cached values from before stay readable. Call `cache.bump()` as soon as the store is back.',
      { cause },
    );
    this.ran = ran;
  }
}

/**
 * Runs Knex migrations and then, if one ran or may have run, bumps the global generation once, after their commit. Returns
 * the result of Knex: the batch and the names of the migrations, `[3, ['003_orders.ts']]`.
 *
 * Knex runs a batch in one transaction if all its migrations allow it; then a failed batch changed nothing. Otherwise each
 * migration commits by itself, and one with `transaction: false` may die midway, with its tables changed and no row in
 * Knex's list. So a migration that began outside a transaction may have run, a migration that committed did run, and a
 * comparison of Knex's list before and after decides after an unknown COMMIT.
 *
 * A crash between commit and bump leaves cached values for their TTL (ladder step 1). Rejects with the migration's
 * error, after the bump; with MigrationBumpError if the bump fails. Costs one command, and two queries beyond Knex's.
 */
export async function migrate(
  db: Knex,
  cache: MigratedCache,
  { run = 'latest', ...overrides }: MigrateOptions = {},
): Promise<[number, string[]]> {
  if (db.isTransaction) {
    throw new ConfigurationError(
      '`db` must be a Knex instance, since the bump comes after the commit of the migrations, but got a transaction. ' +
        'Pass the Knex instance itself.',
    );
  }
  const config: Knex.MigratorConfig & Hooks = { ...db.client.config.migrations, ...overrides };
  let mayHaveRun = false;
  const beforeEach: Hooks['beforeEach'] = async (trxOrKnex, migrations) => {
    // In a transaction the commit decides whether the migration ran; outside of one that is unknown.
    if (!trxOrKnex.isTransaction) mayHaveRun = true;
    else (trxOrKnex as Knex.Transaction).executionPromise.then(() => (mayHaveRun = true), ignored);
    await config.beforeEach?.(trxOrKnex, migrations);
  };
  const before = await completed(db, config);
  let ran: [number, string[]] | undefined;
  let failure: { readonly error: unknown } | undefined;
  try {
    const hooked: Knex.MigratorConfig & Hooks = { ...config, beforeEach };
    ran = (await runMigrations(db, run, hooked)) as [number, string[]];
    mayHaveRun ||= ran[1].length > 0;
  } catch (error) {
    failure = { error };
    mayHaveRun ||= before === undefined || before !== (await completed(db, config));
  }
  if (mayHaveRun) {
    try {
      await cache.bump({ cause: 'migration' });
    } catch (error) {
      throw new MigrationBumpError(ran, error);
    }
  }
  if (failure) throw failure.error;
  return ran!;
}

/** Knex's lifecycle hook, which its types leave out (https://knexjs.org/guide/migrations.html#lifecycle-hooks). */
interface Hooks {
  readonly beforeEach?: (trxOrKnex: Knex, migrations: readonly unknown[]) => Promise<void> | void;
}

function runMigrations(
  db: Knex,
  run: NonNullable<MigrateOptions['run']>,
  config: Knex.MigratorConfig,
): Promise<unknown> {
  if (run === 'rollback' || run === 'rollback all') return db.migrate.rollback(config, run === 'rollback all');
  return db.migrate[run](config);
}

/** Knex's list of completed migrations, as text; undefined if it can't be read. */
async function completed(db: Knex, config: Knex.MigratorConfig): Promise<string | undefined> {
  const table = config.tableName ?? 'knex_migrations';
  try {
    const list = await findRelation(db, config.schemaName, table);
    if (list === undefined) return '[]';
    return JSON.stringify(await query(db, `select id, name from ${verbatim(qualifiedName(list))} order by id`));
  } catch {
    return undefined;
  }
}

function ignored(): void {}
