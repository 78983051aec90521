import type { Knex } from 'knex';
import { cut, onConnection, withConnection } from '../postgres/pooled-connection.js';
import { query } from '../postgres/query.js';

/**
 * Runs `work` in a transaction that may bump, with the rows of its first statement, which goes in one message with BEGIN.
 *
 * - Each statement sees all earlier commits, and may write, whatever the defaults are.
 * - PostgreSQL refuses a query from which row level security would hide rows.
 * - PostgreSQL ends the session if this process is suspended or cut off.
 * - COMMIT does not wait for the disk: the transaction only deletes bumped events, and keeps what partitions owe; after a
 *   crash that undoes this the events are bumped again.
 * - The connection is cut after twice `silenceMaxMs`: by then PostgreSQL has ended the session, or does not answer. It is cut
 *   at once if a ROLLBACK fails.
 *
 * `first` has no parameters. The transaction is not one of Knex's, whose BEGIN is a message of its own. Two queries beside those
 * of `work`.
 */
export function inBumpTransaction<T>(
  db: Knex,
  { silenceMaxMs, first }: { readonly silenceMaxMs: number; readonly first: string },
  work: (trx: Knex, rows: readonly unknown[]) => Promise<T>,
): Promise<T> {
  return withConnection(db, 2 * silenceMaxMs, async (connection) => {
    const trx = onConnection(db, connection);
    try {
      const rows = await query(
        trx,
        `BEGIN; set transaction isolation level read committed, read write;
         set local idle_in_transaction_session_timeout = ${silenceMaxMs}; set local synchronous_commit = off;
         set local row_security = off; ${first}`,
      );
      const result = await work(trx, rows);
      await query(trx, 'COMMIT;');
      return result;
    } catch (error) {
      await query(trx, 'ROLLBACK;').catch(() => cut(connection));
      throw error;
    }
  });
}
