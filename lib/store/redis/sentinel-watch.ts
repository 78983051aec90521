import { Redis, type RedisOptions } from 'ioredis';

const SWITCHED = '+switch-master';
/** Pause between attempts to reach a Sentinel, in ms. Each Sentinel tells of a failover, so one may be away for a while. */
const RETRY_MS = 1_000;

/**
 * Listens to Sentinels, and tells of each server that one of them has made the primary.
 *
 * After SENTINEL FAILOVER the former primary goes on for ten seconds as if it were one: it is told to be a replica only
 * then. ioredis' own `failoverDetector` prints the errors of Sentinels that are away, and when it interrupts an attempt to
 * connect, ioredis makes no further one.
 */
export class SentinelWatch {
  readonly #sentinels: readonly Redis[];
  #lastError: Error | undefined;

  /** `onSwitch` gets the new primary as `host:port`, in the Sentinel's words. */
  constructor(options: RedisOptions, onSwitch: (primary: string) => void) {
    this.#sentinels = (options.sentinels ?? []).map(({ host, port = 26_379, family = options.family }) => {
      const sentinel = new Redis({
        ...{ host: host ?? '127.0.0.1', port, ...(family && { family }) },
        ...(options.sentinelUsername && { username: options.sentinelUsername }),
        ...(options.sentinelPassword && { password: options.sentinelPassword }),
        ...(options.sentinelTLS && { tls: options.sentinelTLS }),
        ...(options.connectTimeout !== undefined && { connectTimeout: options.connectTimeout }),
        ...{
          disconnectTimeout: 100,
          enableReadyCheck: false,
          maxRetriesPerRequest: null,
          retryStrategy: () => RETRY_MS,
        },
      });
      sentinel.on('error', (error: Error) => (this.#lastError = error));
      sentinel.on('message', (_channel, message: string) => {
        const [name, , , to, toPort] = message.split(' ');
        if (name === options.name) onSwitch(`${to}:${toPort}`);
      });
      sentinel.subscribe(SWITCHED).catch(() => {});
      return sentinel;
    });
  }

  /** Puts the cause into ioredis' error about Sentinels that can't be reached, which has none. */
  explain(error: Error): Error {
    if (this.#lastError === undefined || !error.message.startsWith('All sentinels are unreachable')) return error;
    return new Error(`No Sentinel answers: ${this.#lastError.message}`, { cause: this.#lastError });
  }

  close(): void {
    for (const sentinel of this.#sentinels) sentinel.disconnect();
  }
}
