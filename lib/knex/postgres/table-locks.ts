import { sleep } from '../../async/scheduling.js';
import type { Knex } from 'knex';
import { ConfigurationError, GencacheError } from '../../errors/errors.js';
import { qualifiedName } from './identifiers.js';
import { isSqlstate } from './sqlstate.js';
import type { Relation } from './catalog.js';
import { execute } from './sql-text.js';
import { query } from './query.js';

/**
 * Locks of installations: changes of triggers and of the outbox, one at a time, without a long wait for a table.
 *
 *     attempt     a transaction of its own, or a savepoint of the caller's
 *       1. an advisory lock: one installation at a time in a database
 *       2. a comparison of the database with the definitions
 *       3. locks on the tables whose triggers change, each with a timeout of LOCK_TIMEOUT_MS, and the change itself
 *     given up    a rollback of the attempt; a random pause; the next attempt begins at 1
 *
 * **Invariant.** No transaction waits for a pause: an attempt that did not get its tables holds no lock.
 *
 * So a migration that altered a table, and then installs, gets the advisory lock from an installation that waits for that
 * same table, and writers who queue behind such a wait get through. A deadlock leads to another attempt as well: with a
 * transaction that locks the tables in another order, or with a caller's transaction that has installed before and holds
 * the advisory lock to its end.
 */

/** For one table. Below PostgreSQL's deadlock_timeout (1 s), so that the attempt ends before PostgreSQL cancels another transaction. */
const LOCK_TIMEOUT_MS = 500;
const ATTEMPTS = 10;
/** Pause between attempts, in ms: times the number of the attempt, and a random factor of 1 to 2. */
const PAUSE_MS = 50;

/** A table stayed locked by other transactions. Nothing was changed. */
export class TableLockedError extends GencacheError {
  /** In SQL: `"app"."workflow"`. */
  readonly table: string;

  constructor(table: string, cause: unknown) {
    super(
      'TABLE_LOCKED',
      `${table} stayed locked by other transactions: ${ATTEMPTS} attempts of ${LOCK_TIMEOUT_MS} ms each did not get the ` +
        'lock that a change of its triggers takes. Nothing was changed. End the transactions that use it, and try again.',
      { cause },
    );
    this.table = table;
  }
}

/** To create and enable triggers: writers wait, readers do not. */
export const SHARE_ROW_EXCLUSIVE = 'share row exclusive';
/** To drop triggers: readers wait too. */
export const ACCESS_EXCLUSIVE = 'access exclusive';

export interface TableLock {
  readonly relation: Relation;
  readonly mode: typeof SHARE_ROW_EXCLUSIVE | typeof ACCESS_EXCLUSIVE;
}

/**
 * Runs `work` as the only installation in this database, in a transaction, or a savepoint of the caller's, and again from
 * its start while its tables stay locked. The transaction that `work` gets ends with the attempt. Inside `work`, use that
 * transaction and not a second call, so that there is one series of attempts. Throws TableLockedError.
 *
 * A transaction of its own is READ COMMITTED, whatever the default is, so that it sees what the installations before it
 * have committed. A caller's transaction of another isolation may not: throws ConfigurationError where that fails.
 */
export async function underInstallationLock(db: Knex, work: (trx: Knex.Transaction) => Promise<void>): Promise<void> {
  const isCallers = db.isTransaction === true;
  for (let attempt = 1; ; attempt++) {
    let isolation: string = READ_COMMITTED;
    try {
      return await db.transaction(
        async (trx) => {
          isolation = await lockInstallation(trx);
          await work(trx);
        },
        isCallers ? {} : { isolationLevel: READ_COMMITTED },
      );
    } catch (error) {
      if (isCallers && isolation !== READ_COMMITTED && showsOldSnapshot(error)) throw oldSnapshot(isolation, error);
      const again = error instanceof TableLockedError || isSqlstate(error, 'deadlock detected');
      if (!again || attempt === ATTEMPTS) throw error;
    }
    await pause(attempt);
  }
}

const READ_COMMITTED = 'read committed';

/**
 * Held to the end of the transaction, or until it rolls back to a savepoint from before. Returns the isolation of the
 * transaction.
 */
async function lockInstallation(trx: Knex.Transaction): Promise<string> {
  const rows = await query<{ isolation: string }>(
    trx,
    `select pg_advisory_xact_lock(hashtext('gencache'), 0), current_setting('transaction_isolation') as isolation`,
  );
  return rows[0]!.isolation;
}

/** Whether an object or a row is there that the transaction does not see. */
function showsOldSnapshot(error: unknown): boolean {
  return HIDDEN_BY_SNAPSHOT.some((name) => isSqlstate(error, name));
}

const HIDDEN_BY_SNAPSHOT = [
  'duplicate table',
  'duplicate object',
  'duplicate function',
  'duplicate schema',
  'unique violation',
  'serialization failure',
] as const;

function oldSnapshot(isolation: string, cause: unknown): ConfigurationError {
  return new ConfigurationError(
    'An installation must see what other installations have committed, but the transaction that it got is ' +
      `\`${isolation}\` and began before another installation committed. Nothing was changed. Run it again: it then finds ` +
      "that installation. To avoid this, begin the transaction with { isolationLevel: 'read committed' }, or pass the Knex " +
      'in place of the transaction.',
    { cause },
  );
}

/**
 * Runs `work` under locks on these tables, taken in the order of their oids, each in the strongest of its modes. Throws
 * TableLockedError when a lock is not granted in time; `underInstallationLock` then tries again. Restores the caller's
 * lock_timeout.
 */
export async function underTableLocks(
  trx: Knex.Transaction,
  locks: readonly TableLock[],
  work: () => Promise<void>,
): Promise<void> {
  const rows = await query<{ before: string }>(trx, `select current_setting('lock_timeout') as before`);
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
  await query(trx, `select set_config('lock_timeout', ?, true)`, [value]);
}

async function pause(attempt: number): Promise<void> {
  await sleep(PAUSE_MS * attempt * (1 + Math.random()));
}
