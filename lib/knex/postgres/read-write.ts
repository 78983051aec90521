import type { Knex } from 'knex';
import { withConnection } from './pooled-connection.js';
import { type Bindings, query } from './query.js';
import { isSqlstate } from './sqlstate.js';

/**
 * Sends a statement that writes, committed by itself, also where `default_transaction_read_only` is on: hosts switch it on for a
 * database whose disk is nearly full, operators for roles that should not write by mistake. One query; with such a default,
 * four more. `answerMs`: as of `query`. Rejects on a standby.
 */
export async function queryReadWrite<Row = unknown>(
  db: Knex,
  sql: string,
  bindings: Bindings | undefined,
  { answerMs }: { readonly answerMs: number },
): Promise<Row[]> {
  try {
    return await query<Row>(db, sql, bindings, { answerMs });
  } catch (error) {
    if (!isSqlstate(error, 'read-only transaction')) throw error;
    return withConnection(db, answerMs, (connection) =>
      db.transaction(
        async (trx) => {
          await query(trx, 'set transaction read write').catch(() => {
            throw error; // a standby
          });
          return query<Row>(trx, sql, bindings);
        },
        { connection },
      ),
    );
  }
}
