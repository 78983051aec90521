import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import { GencacheError } from '../../errors.js';
import { quoted } from '../outbox/place.js';
import type { Relation } from './catalog.js';
import { execute } from './sql.js';

/** How long one attempt waits for a table: whoever comes after it in the table's queue waits as long. */
const LOCK_TIMEOUT_MS = 2_000;
const ATTEMPTS = 5;
/** Between attempts, times their number, and up to twice that. */
const PAUSE_MS = 250;
const LOCK_NOT_AVAILABLE = '55P03';

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
export const NO_WRITERS = 'share row exclusive';
/** For dropping them: readers wait too. */
export const NOBODY = 'access exclusive';

export interface TableLock {
  readonly relation: Relation;
  readonly mode: typeof NO_WRITERS | typeof NOBODY;
}

/** One installation at a time in a database: the lock that `installOutbox` takes. Held to the transaction's end. */
export async function lockInstallation(trx: Knex.Transaction): Promise<void> {
  await trx.raw(`select pg_advisory_xact_lock(hashtext('gencache'), 0)`);
}

/**
 * Does `work` with these tables locked, in the order of their oids, each for the strongest mode asked. A lock that is
 * not granted in time is given up together with those before it, and tried again after a random pause, so that writers
 * who queue behind it get through. The caller's lock_timeout holds again afterwards. Throws TableLockedError.
 */
export async function withTablesLocked(
  trx: Knex.Transaction,
  locks: readonly TableLock[],
  work: (trx: Knex.Transaction) => Promise<void>,
): Promise<void> {
  const ordered = strongest(locks);
  const { rows } = await trx.raw<{ rows: { before: string }[] }>(`select current_setting('lock_timeout') as before`);
  for (let attempt = 1; ; attempt++) {
    let wanted = 'A table';
    try {
      await trx.transaction(async (savepoint) => {
        await setLockTimeout(savepoint, `${LOCK_TIMEOUT_MS}ms`);
        for (const { relation, mode } of ordered) {
          wanted = nameOf(relation);
          await execute(savepoint, `lock table only ${wanted} in ${mode} mode`);
        }
        await work(savepoint);
        await setLockTimeout(savepoint, rows[0]!.before);
      });
      return;
    } catch (error) {
      if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error;
      if (attempt === ATTEMPTS) throw new TableLockedError(wanted, error);
    }
    await sleep(PAUSE_MS * attempt * (1 + Math.random()));
  }
}

export function nameOf({ schema, name }: Relation): string {
  return `${quoted(schema)}.${quoted(name)}`;
}

function strongest(locks: readonly TableLock[]): TableLock[] {
  const byOid = new Map<string, TableLock>();
  for (const lock of locks) {
    if (byOid.get(lock.relation.oid)?.mode !== NOBODY) byOid.set(lock.relation.oid, lock);
  }
  return [...byOid.values()].sort((a, b) => Number(a.relation.oid) - Number(b.relation.oid));
}

async function setLockTimeout(trx: Knex.Transaction, value: string): Promise<void> {
  await trx.raw(`select set_config('lock_timeout', ?, true)`, [value]);
}
