import { Redis, type RedisOptions, type SentinelAddress } from 'ioredis';
import { describe } from '../../errors/describe.js';
import { ignoreLaterErrors } from './later-errors.js';

const SWITCHED = '+switch-master';
/** Pause between attempts to reach a Sentinel, in ms. Each Sentinel tells of a failover, so one may be away for a while. */
const RETRY_MS = 1_000;
/** Time for a Sentinel to end a connection in its turn, in ms. */
const DISCONNECT_MS = 100;

/** Of an ioredis client with `sentinels`. */
interface Connector {
  connectToSentinel(sentinel: Partial<SentinelAddress>, options?: RedisOptions): Redis;
}

/**
 * Listens to Sentinels, and tells of each server that one of them has made the primary.
 *
 * After SENTINEL FAILOVER the former primary goes on for ten seconds as if it were one: it is told to be a replica only
 * then. ioredis' own `failoverDetector` prints the errors of Sentinels that are away, and when it interrupts an attempt to
 * connect, ioredis makes no further one.
 */
export class SentinelWatch {
  readonly #sentinels: readonly Redis[];
  readonly #asking = new Set<Redis>();
  readonly #name: string | undefined;
  #lastError: Error | undefined;

  /** `onSwitch` gets the new primary as `host:port`, in the Sentinel's words. */
  constructor(options: RedisOptions, onSwitch: (primary: string) => void) {
    this.#name = options.name;
    this.#sentinels = (options.sentinels ?? []).map(({ host, port = 26_379, family = options.family }) => {
      const sentinel = new Redis({
        ...{ host: host ?? '127.0.0.1', port, ...(family && { family }) },
        ...(options.sentinelUsername && { username: options.sentinelUsername }),
        ...(options.sentinelPassword && { password: options.sentinelPassword }),
        ...(options.sentinelTLS && { tls: options.sentinelTLS }),
        ...(options.connectTimeout !== undefined && { connectTimeout: options.connectTimeout }),
        ...{
          disconnectTimeout: DISCONNECT_MS,
          enableReadyCheck: false,
          maxRetriesPerRequest: null,
          retryStrategy: () => RETRY_MS,
        },
      });
      sentinel.on('error', (error: Error) => {
        ignoreLaterErrors(sentinel);
        this.#lastError = error;
      });
      sentinel.on('message', (_channel, message: string) => {
        const [name, , , to, toPort] = message.split(' ');
        if (name === this.#name) onSwitch(`${to}:${toPort}`);
      });
      sentinel.subscribe(SWITCHED).catch(() => {});
      return sentinel;
    });
  }

  /** Puts the name, and the cause as far as it is known, into ioredis' error about Sentinels, which has neither. */
  explain(error: Error): Error {
    if (!error.message.startsWith('All sentinels are unreachable')) return error;
    const cause = this.#lastError;
    const why = cause === undefined ? ' (SENTINEL MASTERS lists the names)' : `: ${cause.message}`;
    return new Error(`No Sentinel told the address of a primary named ${describe(this.#name)}${why}`, { cause });
  }

  /** Lets `close` end the connections by which a client, not connected yet, asks the Sentinels for the primary. */
  follow(client: Redis): void {
    // ioredis has no public way to them; 5.4 to 6.0 name it so.
    const { connector } = client as unknown as { connector: Connector };
    const connect = connector.connectToSentinel.bind(connector);
    connector.connectToSentinel = (sentinel, options) => {
      const asking = connect(sentinel, { ...options, disconnectTimeout: DISCONNECT_MS });
      this.#asking.add(asking);
      asking.on('error', () => ignoreLaterErrors(asking));
      asking.on('end', () => this.#asking.delete(asking));
      return asking;
    };
  }

  close(): void {
    for (const client of [...this.#sentinels, ...this.#asking]) {
      ignoreLaterErrors(client);
      client.disconnect();
    }
  }
}
