import type { Redis, RedisOptions } from 'ioredis';
import type { Deadline } from '../../deadline.js';
import { type StoreListener, StoreUnavailableError } from '../store.js';
import { describeInfo, parseInfo, type ServerInfo } from './server-info.js';
import { defineScripts, type WithScripts } from './scripts.js';

/** A half-open connection is given up when it was silent for this long while a reply was due. */
const SILENCE_MAX_MS = 2_000;
const CONNECT_MAX_MS = 2_000;
/** Reconnecting starts at once and slows down to this, so that a cache is used again soon after Redis is back. */
const RETRY_MAX_MS = 500;

const OWN_OPTIONS: Partial<RedisOptions> = {
  autoResendUnfulfilledCommands: false,
  enableOfflineQueue: false,
  enableAutoPipelining: false,
  maxRetriesPerRequest: 0,
  // A former primary that now says READONLY: find out where the primary is.
  reconnectOnError: (error) => error.message.startsWith('READONLY'),
  connectTimeout: CONNECT_MAX_MS,
  socketTimeout: SILENCE_MAX_MS,
  commandTimeout: undefined,
  enableReadyCheck: true,
  stringNumbers: false,
  lazyConnect: false,
};

/**
 * The store's own connection to Redis.
 *
 *     connecting -> asking who the server is -> open -> (lost) -> connecting ...
 *
 * **Invariant.** No command is sent on a connection before its server has said that it is not a replica, and none is
 * ever sent twice: a command that was in flight when its connection broke is rejected, since it may have been carried
 * out, and its nonce used. So ioredis' automatic resend and offline queue are off; a call that finds the connection
 * not open waits for it within its own deadline.
 */
export class Connection {
  readonly #client: WithScripts;
  readonly #waiting = new Set<() => void>();
  #listener: StoreListener | undefined;
  #open = false;
  #lastError: Error | undefined;
  #described = false;
  /** Connections made or tried since one was open: ioredis counts anew as soon as a server answers, a replica too. */
  #attempts = 0;

  constructor(redis: Redis) {
    const retryStrategy = () => Math.min(++this.#attempts * 50, RETRY_MAX_MS) * (0.5 + Math.random() / 2);
    this.#client = defineScripts(redis.duplicate({ ...OWN_OPTIONS, retryStrategy }));
    this.#client.on('ready', () => void this.#identify());
    this.#client.on('close', () => this.#lose());
    this.#client.on('error', (error: Error) => {
      this.#lastError = error;
      this.#listener?.({ kind: 'down', error });
    });
  }

  listen(listener: StoreListener): void {
    this.#listener = listener;
  }

  /**
   * Sends one command when the connection is open, waiting for that within the deadline.
   * Rejects with StoreUnavailableError, whose `sent` tells whether it may have been carried out, or DeadlineError.
   */
  send<T>(deadline: Deadline, command: (client: WithScripts) => Promise<T>): Promise<T> {
    if (this.#open) return deadline.race(command(this.#client), broken);
    return this.#opened(deadline).then(() => deadline.race(command(this.#client), broken));
  }

  close(): void {
    this.#open = false;
    this.#listener = undefined;
    this.#client.disconnect();
  }

  /** Asks the server who it is; a replica may be behind, and can't be written to. */
  async #identify(): Promise<void> {
    let info: ServerInfo;
    try {
      info = parseInfo(await this.#client.info());
    } catch (error) {
      // A connection that broke meanwhile says so itself; a server that forbids INFO can't be asked.
      if (!(error as Error).message.startsWith('NOPERM')) return;
      info = {};
    }
    if (this.#client.status !== 'ready') return;
    if (info.role === 'slave') {
      const error = new StoreUnavailableError(
        'Generations are read from a primary: a replica may be behind. The server connected to says that it is a ' +
          'replica. Pass the primary, or the Sentinels that know it.',
        false,
      );
      this.#lastError = error;
      this.#listener?.({ kind: 'down', error });
      return this.#client.disconnect(true);
    }
    this.#open = true;
    this.#attempts = 0;
    this.#listener?.({ kind: 'up' });
    if (!this.#described) for (const message of describeInfo(info)) this.#listener?.({ kind: 'notice', message });
    this.#described = true;
    for (const wake of this.#waiting) wake();
  }

  #lose(): void {
    if (!this.#open) return;
    this.#open = false;
    const error =
      this.#lastError ?? new StoreUnavailableError('The connection to Redis was closed by the other side.', true);
    this.#listener?.({ kind: 'down', error });
  }

  #opened(deadline: Deadline): Promise<void> {
    return new Promise((resolve, reject) => {
      const wake = () => {
        this.#waiting.delete(wake);
        resolve();
      };
      deadline.onExpiry(({ limitMs }) => {
        this.#waiting.delete(wake);
        const why = this.#lastError ? `: ${clause(this.#lastError)}` : '';
        reject(
          new StoreUnavailableError(
            `Redis must be connected within ${limitMs} ms, and was not${why}. See the server's address and the network.`,
            false,
            { cause: this.#lastError },
          ),
        );
      });
      this.#waiting.add(wake);
    });
  }
}

/** An error's message, to stand within a sentence. */
function clause(error: Error): string {
  return error.message.replace(/\.$/, '');
}

function broken(cause: unknown): StoreUnavailableError {
  return new StoreUnavailableError(
    `Redis must carry out what it is sent. It answered, or its connection broke with: ${clause(cause as Error)}. ` +
      'See the server and the network.',
    true,
    { cause },
  );
}
