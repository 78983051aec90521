import type { Knex } from 'knex';

/** What of Knex' client is used here; Knex gives it no types. */
interface Client {
  acquireConnection(): Promise<object>;
  releaseConnection(connection: object): Promise<void>;
  cancelQuery(connection: object): Promise<unknown>;
}

/**
 * Returns a Knex instance on the pool of `db`, for one load: when `signal` is aborted, its running queries are cancelled at
 * the server, and it gets no further connection.
 *
 * Knex cancels by `pg_cancel_backend`, on a connection of its own outside the pool, so that a pool of one can be cancelled
 * too. A connection goes back to the pool only after its cancellation has ended: it would meet the next query there. If
 * cancelling fails (no connection is left), the query goes on.
 *
 * Costs a copy of the instance, about 0.1 ms (measured 2026-11, Node 20.20, Knex 3.3).
 */
export function cancellable(db: Knex, signal: AbortSignal): Knex {
  const own = db.withUserParams({ ...db.userParams });
  const pooled = db.client as Client;
  const client = own.client as Client;
  const cancelled = new Map<object, Promise<unknown>>();
  const held = new Set<object>();
  client.acquireConnection = async () => {
    signal.throwIfAborted();
    const connection = await pooled.acquireConnection();
    if (signal.aborted) {
      await pooled.releaseConnection(connection);
      throw signal.reason;
    }
    held.add(connection);
    return connection;
  };
  client.releaseConnection = async (connection) => {
    held.delete(connection);
    await cancelled.get(connection);
    await pooled.releaseConnection(connection);
  };
  const cancel = () => {
    for (const connection of held)
      cancelled.set(
        connection,
        pooled.cancelQuery(connection).catch(() => {}),
      );
  };
  signal.addEventListener('abort', cancel, { once: true });
  return own;
}
