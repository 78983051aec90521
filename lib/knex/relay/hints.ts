import { clearTimeout, setTimeout } from '../../async/scheduling.js';
import type { Knex } from 'knex';
import { NOTIFY_CHANNEL } from '../outbox/notify-channel.js';

const RETRY_MS = 1_000;

interface RawConnection {
  query(sql: string): Promise<unknown>;
  on(event: 'notification', listener: (message: { payload?: string }) => void): void;
  on(event: 'error' | 'end', listener: () => void): void;
  end(): Promise<void>;
}

/**
 * Listens for NOTIFY on a connection of its own. A lost hint costs no more than the pause before the next poll, so a broken
 * connection is opened again after a while.
 */
export class Hints {
  readonly #db: Knex;
  readonly #cache: string;
  readonly #hint: () => void;
  #connection: Promise<RawConnection | undefined>;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(db: Knex, cache: string, hint: () => void) {
    this.#db = db;
    this.#cache = cache;
    this.#hint = hint;
    this.#connection = this.#connect();
  }

  /** Does not wait for the connection, which may never open or answer. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#connection.then((connection) => end(connection)).catch(() => {});
  }

  async #connect(): Promise<RawConnection | undefined> {
    let connection: RawConnection | undefined;
    try {
      const client = this.#db.client as { acquireRawConnection(): Promise<RawConnection> };
      connection = await client.acquireRawConnection();
      connection.on('error', () => this.#again());
      connection.on('end', () => this.#again());
      connection.on('notification', ({ payload }) => payload === this.#cache && this.#hint());
      await connection.query(`listen ${NOTIFY_CHANNEL}`);
      // Events that were recorded before LISTEN have sent no hint to this relay.
      this.#hint();
      return connection;
    } catch {
      await end(connection);
      this.#again();
      return undefined;
    }
  }

  #again(): void {
    if (this.#closed || this.#retry !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      const broken = this.#connection;
      this.#connection = broken.then(end).then(() => (this.#closed ? undefined : this.#connect()));
    }, RETRY_MS);
    this.#retry.unref();
  }
}

async function end(connection: RawConnection | undefined): Promise<void> {
  await connection?.end().catch(() => {});
}
