import type { Redis, RedisOptions } from 'ioredis';
import type { Deadline } from '../../async/deadline.js';
import { type StoreListener, StoreUnavailableError } from '../../ports/store.js';
import { describeInfo, incarnationOf, parseInfo, type ServerInfo } from './server-info.js';
import { defineScripts, type WithScripts } from './commands/scripts.js';

/** A connection that was silent for this long while a reply was due is half-open, and given up. */
const SILENCE_MAX_MS = 2_000;
/** What may wait for replies at once; a Redis that is this far behind gets no more to do. */
const IN_FLIGHT_MAX = 1_000;
/** Reconnecting starts at once and slows down to this, so that a cache is used again soon after Redis is back. */
const RETRY_MAX_MS = 500;

/** Who doubts that the server is who it was is not to cost it more than an INFO in this time. */
const DOUBT_MIN_MS = 1_000;

const OWN_OPTIONS: Partial<RedisOptions> = {
  autoResendUnfulfilledCommands: false,
  enableOfflineQueue: false,
  enableAutoPipelining: false,
  maxRetriesPerRequest: 0,
  // A former primary that now says READONLY: find out where the primary is.
  reconnectOnError: (error) => error.message.includes('READONLY'),
  connectTimeout: SILENCE_MAX_MS,
  disconnectTimeout: 100,
  maxLoadingRetryTime: RETRY_MAX_MS,
  sentinelCommandTimeout: SILENCE_MAX_MS,
  sentinelRetryStrategy: retryAfterMs,
  commandTimeout: undefined,
  // ioredis' own is a bare timer, which takes a busy event loop for a dead connection.
  socketTimeout: undefined,
  enableReadyCheck: true,
  stringNumbers: false,
  lazyConnect: false,
};

function retryAfterMs(attempt: number): number {
  return Math.min(attempt * 50, RETRY_MAX_MS) * (0.5 + Math.random() / 2);
}

/**
 * The store's own connection to Redis.
 *
 *     connecting -> asking who the server is -> open -> (lost) -> connecting ...
 *
 * **Invariant.** No command is sent on a connection before its server has said that it is not a replica, and none is
 * ever sent twice: a command that was in flight when its connection broke is rejected, since it may have been carried
 * out, and its nonce used. So ioredis' automatic resend and offline queue are off; a call that finds the connection
 * not open waits for it within its own deadline.
 *
 * A server may become a replica, or a primary with another history, while a connection to it stays open. Whoever has
 * reason to think so says `doubt`, and the server is asked again: a replica is left, another incarnation is noted.
 */
export class RedisConnection {
  readonly #client: WithScripts;
  readonly #waiting = new Set<() => void>();
  #listener: StoreListener | undefined;
  #open = false;
  #incarnation: string | undefined;
  #askedAtMs = -Infinity;
  #lastError: Error | undefined;
  #described = false;
  /** Connections made or tried since one was open: ioredis counts anew as soon as a server answers, a replica too. */
  #attempts = 0;
  #inFlight = 0;
  /** Since when a reply has been due and none has come, by the monotonic clock. */
  #silentSinceMs: number | undefined;
  #lookAgain: NodeJS.Timeout | undefined;

  constructor(redis: Redis) {
    const retryStrategy = () => retryAfterMs(++this.#attempts);
    this.#client = defineScripts(redis.duplicate({ ...OWN_OPTIONS, retryStrategy }));
    this.#client.on('connect', () => (this.#silentSinceMs = performance.now()));
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

  /** Who the server is, as it said last; undefined while not open, or if it does not say. */
  get incarnation(): string | undefined {
    return this.#open ? this.#incarnation : undefined;
  }

  /** Asks the server again who it is, behind what is under way, once a second at most. */
  revalidate(): void {
    if (!this.#open || performance.now() - this.#askedAtMs < DOUBT_MIN_MS) return;
    this.#askedAtMs = performance.now();
    this.#client.info().then(
      (reply) => {
        if (!this.#open) return;
        const info = parseInfo(reply);
        if (info.role === 'slave') this.#refuse(isReplica());
        else this.#incarnation = incarnationOf(info);
      },
      // A broken connection says so itself; a server that won't tell has no incarnation already.
      () => {},
    );
  }

  /**
   * Sends one command when the connection is open, waiting for that within the deadline.
   * Rejects with StoreUnavailableError, whose `sent` tells whether it may have been carried out, or DeadlineError.
   */
  send<T>(deadline: Deadline, command: (client: WithScripts) => Promise<T>): Promise<T> {
    if (this.#open) return this.#exchange(deadline, command);
    return this.#opened(deadline).then(() => this.#exchange(deadline, command));
  }

  #exchange<T>(deadline: Deadline, command: (client: WithScripts) => Promise<T>): Promise<T> {
    if (this.#inFlight >= IN_FLIGHT_MAX) return Promise.reject(tooFarBehind());
    this.#inFlight++;
    this.#silentSinceMs ??= performance.now();
    const reply = command(this.#client);
    deadline.onExpiry(this.#leaveIfSilent);
    return deadline.race(reply, this.#broken, this.#answered);
  }

  readonly #answered = (): void => {
    this.#silentSinceMs = --this.#inFlight > 0 ? performance.now() : undefined;
  };

  /** Looked at when a deadline passes, and once more when the limit would. */
  readonly #leaveIfSilent = (): void => {
    if (this.#silentSinceMs === undefined) return;
    const leftMs = this.#silentSinceMs + SILENCE_MAX_MS - performance.now();
    if (leftMs <= 0) {
      this.#silentSinceMs = undefined;
      this.#client.disconnect(true);
    } else {
      // After the poll phase, in which a reply that waits in the socket is read.
      this.#lookAgain ??= setTimeout(() => {
        this.#lookAgain = undefined;
        setImmediate(this.#leaveIfSilent);
      }, leftMs);
    }
  };

  /** ioredis rejects what a broken connection leaves with an error about retries; what broke it came before. */
  readonly #broken = (cause: unknown): StoreUnavailableError => {
    const flushed = (cause as Error).name === 'MaxRetriesPerRequestError';
    const why = flushed ? clause(this.#lastError ?? CLOSED) : clause(cause as Error);
    return new StoreUnavailableError(
      `Redis must carry out what it is sent. It answered, or its connection broke with: ${why}. ` +
        'See the server and the network.',
      true,
      { cause },
    );
  };

  close(): void {
    this.#open = false;
    this.#listener = undefined;
    this.#silentSinceMs = undefined;
    clearTimeout(this.#lookAgain);
    this.#client.disconnect();
  }

  /** Asks the server who it is; a replica may be behind, and can't be written to. */
  async #identify(): Promise<void> {
    let info: ServerInfo;
    try {
      info = parseInfo(await this.#client.info());
    } catch (error) {
      // A connection that broke meanwhile says so itself.
      if (this.#client.status !== 'ready') return;
      if (!(error as Error).message.includes('NOPERM')) return this.#refuse(error as Error);
      info = {};
    }
    if (this.#client.status !== 'ready') return;
    if (info.role === 'slave') return this.#refuse(isReplica());
    this.#incarnation = incarnationOf(info);
    this.#open = true;
    this.#attempts = 0;
    this.#silentSinceMs = undefined;
    this.#lastError = undefined;
    this.#listener?.({ kind: 'up' });
    if (!this.#described) for (const message of describeInfo(info)) this.#listener?.({ kind: 'warning', message });
    this.#described = true;
    for (const wake of this.#waiting) wake();
  }

  /** A server that can't be used as it is: tries again, maybe to find another one there. */
  #refuse(error: Error): void {
    this.#open = false;
    this.#lastError = error;
    this.#listener?.({ kind: 'down', error });
    this.#client.disconnect(true);
  }

  #lose(): void {
    this.#silentSinceMs = undefined;
    if (!this.#open) return;
    this.#open = false;
    this.#listener?.({ kind: 'down', error: this.#lastError ?? CLOSED });
  }

  #opened(deadline: Deadline): Promise<void> {
    return new Promise((resolve, reject) => {
      const wake = () => {
        this.#waiting.delete(wake);
        resolve();
      };
      deadline.onExpiry(({ limitMs }) => {
        this.#waiting.delete(wake);
        this.#leaveIfSilent();
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

const CLOSED = new StoreUnavailableError('The connection to Redis was closed by the other side.', true);

function isReplica(): StoreUnavailableError {
  return new StoreUnavailableError(
    'Generations are read from a primary: a replica may be behind. The server connected to says that it is a ' +
      'replica. Pass the primary, or the Sentinels that know it.',
    false,
  );
}

function tooFarBehind(): StoreUnavailableError {
  return new StoreUnavailableError(
    `At most ${IN_FLIGHT_MAX} commands of one cache wait for Redis. As many do. It answers too slowly: see its load.`,
    false,
  );
}
