import type { Knex } from 'knex';
import { describe } from '../../errors/describe.js';
import { ConfigurationError } from '../../errors/errors.js';
import type { OutboxOptions } from '../outbox/location.js';
import { findRelation } from '../postgres/catalog.js';
import { removeDefinition } from './install-triggers.js';
import { underInstallationLock } from '../postgres/table-locks.js';
import { findInstalledOutbox, type InstalledOutbox } from '../outbox/installed-outbox.js';
import { installedDefinitions } from './trigger-registry.js';

export interface RemoveOptions {
  readonly cache: string;
  /** The schema of the table. Default: where the connection's search path leads. */
  readonly schema?: string;
  /** Only what was installed under this name. Default: all of that cache. */
  readonly name?: string;
  /** Where the outbox is. */
  readonly outbox?: OutboxOptions;
}

/**
 * Takes away what `onChangeOf(table)` installed for a cache: triggers, functions and their definitions. What was
 * recorded stays in the outbox. Does nothing where there is nothing. In one transaction, or the caller's; locks the
 * tables. Throws ConfigurationError, TableLockedError.
 *
 *     await removeTriggers(db, 'workflow', { cache: 'workflow_engine' });
 */
export async function removeTriggers(db: Knex, table: string, options: RemoveOptions): Promise<void> {
  if (typeof options?.cache !== 'string') {
    throw new ConfigurationError(
      `Triggers are removed for a cache. Got ${describe(options)} as options. ` +
        `Name the cache: \`removeTriggers(db, '${table}', { cache: 'shop' })\`.`,
    );
  }
  await underInstallationLock(db, async (trx) => {
    const outbox = await findInstalledOutbox(trx, options.outbox);
    if (outbox === undefined) return;
    // A table that was dropped, or has another name now, is known by the name it had.
    const schema = options.schema ?? (await findRelation(trx, undefined, table))?.schema;
    const { cache, name } = options;
    const which = { cache, table, ...(schema !== undefined && { schema }), ...(name !== undefined && { name }) };
    for (const definition of await installedDefinitions(trx, outbox, which))
      await removeDefinition(trx, outbox, definition);
  });
}

/** Takes away all triggers of all caches and tables. What was recorded stays. Else like `removeTriggers`. */
export async function uninstallTriggers(db: Knex, options: OutboxOptions = {}): Promise<void> {
  await underInstallationLock(db, async (trx) => {
    const outbox = await findInstalledOutbox(trx, options);
    if (outbox !== undefined) await removeAll(trx, outbox);
  });
}

/** The same within `installing`. */
export async function removeAll(trx: Knex.Transaction, outbox: InstalledOutbox): Promise<void> {
  for (const definition of await installedDefinitions(trx, outbox)) await removeDefinition(trx, outbox, definition);
}
