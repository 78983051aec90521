import type { Knex } from 'knex';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import type { OutboxOptions } from '../outbox/location.js';
import { findRelation, functionsLike, tablesCalling } from '../postgres/catalog.js';
import { quoted } from '../postgres/identifiers.js';
import { execute } from '../postgres/sql-text.js';
import { removeDefinition } from './install-triggers.js';
import { ACCESS_EXCLUSIVE, underInstallationLock, underTableLocks } from '../postgres/table-locks.js';
import { findInstalledOutbox, type InstalledOutbox } from '../outbox/installed-outbox.js';
import { installedDefinitions } from './trigger-registry.js';

export interface RemoveOptions {
  readonly cache: string;
  /** The schema of the table. Default: the search path of the connection. */
  readonly schema?: string;
  /** The name of the definition to remove. Default: all definitions of the cache. */
  readonly name?: string;
  /** Location of the outbox. */
  readonly outbox?: OutboxOptions;
}

/**
 * Drops the triggers, functions and definitions that `onChangeOf(table)` installed for a cache. Recorded events stay in the
 * outbox. Does nothing where there are none. In one transaction, or the caller's; locks the tables. Throws
 * ConfigurationError, TableLockedError.
 *
 *     await removeTriggers(db, 'workflow', { cache: 'workflow_engine' });
 */
export async function removeTriggers(db: Knex, table: string, options: RemoveOptions): Promise<void> {
  if (typeof options?.cache !== 'string') {
    throw new ConfigurationError(
      `The options of removeTriggers must be an object with \`cache\`, but got ${describe(options)}. ` +
        `Name the cache: \`removeTriggers(db, '${table}', { cache: 'shop' })\`.`,
    );
  }
  await underInstallationLock(db, async (trx) => {
    const outbox = await findInstalledOutbox(trx, options.outbox);
    if (outbox === undefined) return;
    // A table that was dropped or renamed is stored under its old name.
    const schema = options.schema ?? (await findRelation(trx, undefined, table))?.schema;
    const { cache, name } = options;
    const which = { cache, table, ...(schema !== undefined && { schema }), ...(name !== undefined && { name }) };
    for (const definition of await installedDefinitions(trx, outbox, which))
      await removeDefinition(trx, outbox, definition);
  });
}

/** Drops all triggers of all caches and tables; recorded events stay. Otherwise like `removeTriggers`. */
export async function uninstallTriggers(db: Knex, options: OutboxOptions = {}): Promise<void> {
  await underInstallationLock(db, async (trx) => {
    const outbox = await findInstalledOutbox(trx, options);
    if (outbox !== undefined) await removeAll(trx, outbox);
  });
}

/** The same, under the installation lock of the caller. */
export async function removeAll(trx: Knex.Transaction, outbox: InstalledOutbox): Promise<void> {
  for (const definition of await installedDefinitions(trx, outbox)) await removeDefinition(trx, outbox, definition);
  await dropLeftOver(trx, outbox, '^gencache_(on|lookup)_[0-9a-f]{16}');
}

/**
 * Drops the functions of these names and their triggers, which the outbox's list of triggers may not name: a test cleaner
 * has emptied it. They would record into an outbox that is gone, and fail each write. One query where there is none.
 */
export async function dropLeftOver(trx: Knex.Transaction, outbox: InstalledOutbox, names: string): Promise<void> {
  const functions = await functionsLike(trx, outbox.schema, names);
  if (functions.length === 0) return;
  const tables = await tablesCalling(trx, outbox.schema, functions);
  const locks = tables.map((relation) => ({ relation, mode: ACCESS_EXCLUSIVE }) as const);
  await underTableLocks(trx, locks, async () => {
    for (const name of functions) await execute(trx, `drop function ${outbox.at}${quoted(name)} cascade`);
  });
}
