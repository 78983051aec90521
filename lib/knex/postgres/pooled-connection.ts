import { clearTimeout, setTimeout } from '../../async/scheduling.js';
import type { Knex } from 'knex';

/** A connection of Knex's pool, for which Knex has no type. */
export type PooledConnection = { readonly connection?: { readonly stream?: { destroy(): void } } };

interface Pooled {
  acquireConnection(): Promise<PooledConnection>;
  releaseConnection(connection: PooledConnection): Promise<void>;
}

/**
 * Runs `work` on one connection of the pool, and cuts that connection after `limitMs`: its pending queries are rejected,
 * and the pool makes another. A half-open connection stays silent for hours; a pool that hands it out again, for BEGIN or
 * COMMIT too, makes the next user wait as long.
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

/** A Knex whose queries run on this connection, and do not give it back to the pool. */
export function onConnection(db: Knex, connection: PooledConnection): Knex {
  const client = Object.create(db.client as object, {
    acquireConnection: { value: async () => connection },
    releaseConnection: { value: async () => {} },
  }) as object;
  return { client } as unknown as Knex;
}

/** The connection that a transaction runs on. */
export function connectionOf(trx: Knex.Transaction): Promise<PooledConnection> {
  return (trx.client as Pooled).acquireConnection();
}

/** Closes a connection at this end only: the other end may be out of reach. */
export function cut({ connection }: PooledConnection): void {
  connection?.stream?.destroy();
}

/** The numbers of Knex's pool (tarn), for which Knex has no type. */
interface PoolNumbers {
  readonly max: number;
  numUsed(): number;
  numFree(): number;
  numPendingAcquires(): number;
  numPendingCreates(): number;
}

/** Whether the pool can lend a connection without a wait of this or of a waiting caller; true for an unknown pool. */
export function hasFreeConnection(db: Knex): boolean {
  const { pool } = db.client as { readonly pool?: Partial<PoolNumbers> };
  if (typeof pool?.numPendingCreates !== 'function') return true;
  const known = pool as PoolNumbers;
  if (known.numPendingAcquires() > 0) return false;
  return known.numFree() > 0 || known.numUsed() + known.numPendingCreates() < known.max;
}
