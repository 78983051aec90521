import type { Knex } from 'knex';

/** A connection of Knex's pool, which its types leave open. */
export type PooledConnection = { readonly connection?: { readonly stream?: { destroy(): void } } };

interface Pooled {
  acquireConnection(): Promise<PooledConnection>;
  releaseConnection(connection: PooledConnection): Promise<void>;
}

/**
 * Does `work` on one connection of the pool, and cuts that connection when it takes longer than this, in ms: whatever
 * waits on it is rejected, and the pool makes another. A half-open connection says nothing for hours, and a pool that
 * hands it out again, for BEGIN or COMMIT too, makes whoever gets it wait as long.
 */
export async function withConnection<T>(
  db: Knex,
  limitMs: number,
  work: (connection: PooledConnection) => Promise<T>,
): Promise<T> {
  const pool = db.client as Pooled;
  const connection = await pool.acquireConnection();
  const limit = setTimeout(() => cut(connection), limitMs);
  try {
    return await work(connection);
  } finally {
    clearTimeout(limit);
    await pool.releaseConnection(connection);
  }
}

/** The connection that a transaction runs on. */
export function connectionOf(trx: Knex.Transaction): Promise<PooledConnection> {
  return (trx.client as Pooled).acquireConnection();
}

/** Ends a connection from this side, without a word to the other, which may be out of reach. */
export function cut({ connection }: PooledConnection): void {
  connection?.stream?.destroy();
}
