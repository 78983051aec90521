import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import { GencacheError } from '../../errors/errors.js';
import { qualifiedName } from './identifiers.js';
import { isSqlstate } from './sqlstate.js';
import type { Relation } from './catalog.js';
import { execute } from './sql-text.js';

/**
 * Who may change triggers and the outbox, and how they wait for tables.
 *
 *     attempt     a transaction of its own, or a savepoint of the caller's
 *       1. an advisory lock: one installation at a time in a database
 *       2. what is there is compared with what should be
 *       3. the tables whose triggers change, each waited for no longer than LOCK_TIMEOUT_MS, and the change itself
 *     given up    all of that goes with it; a random pause; the next attempt begins at 1
 *
 * **Invariant.** Nobody waits for the end of a pause: an attempt that did not get its tables holds nothing.
 *
 * So a migration that altered a table, and then installs, gets the advisory lock from an installation that waits for that
 * very table. Writers who queue behind such a wait get through. A deadlock is tried again as well: with somebody's
 * transaction that uses the tables in another order, or where the caller's transaction installed before, which holds
 * the advisory lock to its end.
 */

/** For one table. Below PostgreSQL's deadlock_timeout (1 s), so that giving up comes before anybody else is cancelled. */
const LOCK_TIMEOUT_MS = 500;
const ATTEMPTS = 10;
/** Between attempts, times their number, and up to twice that. */
const PAUSE_MS = 50;

/** A table stayed locked by others. Nothing was changed. */
export class TableLockedError extends GencacheError {
  /** As SQL writes it: `"app"."workflow"`. */
  readonly table: string;

  constructor(table: string, cause: unknown) {
    super(
      'TABLE_LOCKED',
      `Triggers are installed and removed under a lock on their table, waited for ${LOCK_TIMEOUT_MS} ms at a time, ` +
        `${ATTEMPTS} times. ${table} stayed locked. End the transactions that use it, and try again.`,
      { cause },
    );
    this.table = table;
  }
}

/** For creating and enabling triggers: writers wait, readers don't. */
export const SHARE_ROW_EXCLUSIVE = 'share row exclusive';
/** For dropping them: readers wait too. */
export const ACCESS_EXCLUSIVE = 'access exclusive';

export interface TableLock {
  readonly relation: Relation;
  readonly mode: typeof SHARE_ROW_EXCLUSIVE | typeof ACCESS_EXCLUSIVE;
}

/**
 * Does `work` as the only installation in this database, in a transaction, or a savepoint of the caller's, and again
 * from its start when its tables stay locked. What `work` is given is no longer good after a failure. Within another
 * `installing`, use what that was given, so that its attempts are the only ones. Throws TableLockedError.
 */
export async function underInstallationLock(db: Knex, work: (trx: Knex.Transaction) => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await db.transaction(async (trx) => {
        await lockInstallation(trx);
        await work(trx);
      });
    } catch (error) {
      const again = error instanceof TableLockedError || isSqlstate(error, 'deadlock detected');
      if (!again || attempt === ATTEMPTS) throw error;
    }
    await pause(attempt);
  }
}

/** Held to the end of the transaction, or until it rolls back to a savepoint from before. */
async function lockInstallation(trx: Knex.Transaction): Promise<void> {
  await trx.raw(`select pg_advisory_xact_lock(hashtext('gencache'), 0)`);
}

/**
 * Does `work` with these tables locked, in the order of their oids, each for the strongest mode asked. Throws
 * TableLockedError when one is not granted in time, for `installing` to begin again. The caller's lock_timeout holds
 * again afterwards.
 */
export async function underTableLocks(
  trx: Knex.Transaction,
  locks: readonly TableLock[],
  work: () => Promise<void>,
): Promise<void> {
  const { rows } = await trx.raw<{ rows: { before: string }[] }>(`select current_setting('lock_timeout') as before`);
  let wanted = 'A table';
  try {
    await setLockTimeout(trx, `${LOCK_TIMEOUT_MS}ms`);
    for (const { relation, mode } of strongest(locks)) {
      wanted = qualifiedName(relation);
      await execute(trx, `lock table only ${wanted} in ${mode} mode`);
    }
    await work();
    await setLockTimeout(trx, rows[0]!.before);
  } catch (error) {
    if (isSqlstate(error, 'lock not available') || isSqlstate(error, 'deadlock detected')) {
      throw new TableLockedError(wanted, error);
    }
    throw error;
  }
}

function strongest(locks: readonly TableLock[]): TableLock[] {
  const byOid = new Map<string, TableLock>();
  for (const lock of locks) {
    if (byOid.get(lock.relation.oid)?.mode !== ACCESS_EXCLUSIVE) byOid.set(lock.relation.oid, lock);
  }
  return [...byOid.values()].sort((a, b) => Number(a.relation.oid) - Number(b.relation.oid));
}

async function setLockTimeout(trx: Knex.Transaction, value: string): Promise<void> {
  await trx.raw(`select set_config('lock_timeout', ?, true)`, [value]);
}

async function pause(attempt: number): Promise<void> {
  await sleep(PAUSE_MS * attempt * (1 + Math.random()));
}
