import type { Knex } from 'knex';

/**
 * Does `work` with triggers switched off, in this transaction alone: for fixtures, and in emergencies, when writing
 * matters more than what is cached. What it changes is not bumped: bump its scopes, or global, after the commit.
 *
 *     await db.transaction((trx) => withoutEvents(trx, () => loadFixtures(trx)));
 *
 * By hand, `set gencache.events = 'off'` does it for a session, and `alter role ... set gencache.events = 'off'` for all
 * of a role's; anyone may say it. Two queries. If `work` fails, the setting comes back with the rollback.
 */
export async function withoutEvents<T>(trx: Knex.Transaction, work: () => PromiseLike<T>): Promise<T> {
  const { rows } = await trx.raw<{ rows: { before: string | null }[] }>(
    `with before as materialized (select current_setting('gencache.events', true) as before)
     select before, set_config('gencache.events', 'off', true) from before`,
  );
  const restore = () => trx.raw(`select set_config('gencache.events', ?, true)`, [rows[0]!.before ?? '']);
  let result: T;
  try {
    result = await work();
  } catch (error) {
    // Not after an error of PostgreSQL's, which has ended the transaction and goes on to roll back.
    await restore().catch(() => {});
    throw error;
  }
  await restore();
  return result;
}
