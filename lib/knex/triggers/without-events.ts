import type { Knex } from 'knex';
import { query } from '../postgres/query.js';

/**
 * Runs `work` with triggers switched off, in this transaction alone: for fixtures, and for emergencies in which a write
 * matters more than the cache. Its changes are not bumped: bump their scopes, or global, after the commit.
 *
 *     await db.transaction((trx) => withoutEvents(trx, () => loadFixtures(trx)));
 *
 * In SQL, `set gencache.events = 'off'` does the same for a session, and `alter role ... set gencache.events = 'off'` for all
 * sessions of a role; every role may set it. Two queries. If `work` fails, the rollback restores the setting.
 */
export async function withoutEvents<T>(trx: Knex.Transaction, work: () => PromiseLike<T>): Promise<T> {
  const rows = await query<{ before: string | null }>(
    trx,
    `with before as materialized (select current_setting('gencache.events', true) as before)
     select before, set_config('gencache.events', 'off', true) from before`,
  );
  const restore = () => query(trx, `select set_config('gencache.events', ?, true)`, [rows[0]!.before ?? '']);
  let result: T;
  try {
    result = await work();
  } catch (error) {
    // Fails after an error of PostgreSQL, which has aborted the transaction: the rollback restores the setting then.
    await restore().catch(() => {});
    throw error;
  }
  await restore();
  return result;
}
