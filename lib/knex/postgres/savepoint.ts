import type { Knex } from 'knex';
import { query } from './query.js';

/**
 * Runs `work` in a savepoint of a transaction: if it rejects, its statements are undone and the transaction goes on. Three
 * queries beside those of `work`; `settings`, SQL of the form `set local ...`, goes with the first of them.
 */
export async function withSavepoint<T>(trx: Knex, settings: string, work: () => Promise<T>): Promise<T> {
  await query(trx, `savepoint gencache_savepoint; ${settings}`);
  let result: T;
  try {
    result = await work();
  } catch (error) {
    // After a lost connection there is no transaction to go on with, and the caller's error tells why.
    await query(trx, 'rollback to savepoint gencache_savepoint; release savepoint gencache_savepoint').catch(() => {});
    throw error;
  }
  await query(trx, 'release savepoint gencache_savepoint');
  return result;
}
