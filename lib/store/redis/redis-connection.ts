import { clearTimeout, monotonicMs, setImmediate, setTimeout } from '../../async/scheduling.js';
import type { Redis, RedisOptions } from 'ioredis';
import type { Deadline } from '../../async/deadline.js';
import { inNoContext } from '../../async/no-context.js';
import { type StoreListener, StoreUnavailableError } from '../../ports/store.js';
import { describeInfo, incarnationOf, isReplica, parseInfo, type ServerInfo } from './server-info.js';
import { defineScripts, type ScriptsOfOneKey, type WithScripts } from './commands/scripts.js';
import { ignoreLaterErrors } from './later-errors.js';
import { SentinelWatch } from './sentinel-watch.js';
import { tlsRemedy } from './tls-remedy.js';

/** A connection that stays silent for this long while a reply is due is half-open; the store leaves it. In ms. */
const SILENCE_MAX_MS = 2_000;
/** Commands that may wait for replies at once. Further commands are rejected at once. */
const IN_FLIGHT_MAX = 1_000;
/** Longest pause between attempts to reconnect, in ms: short, so that a cache is in use again soon after Redis is back. */
const RETRY_MAX_MS = 500;

/** Minimum interval between identity checks (INFO), in ms. */
const REVALIDATE_EVERY_MS = 1_000;

const OWN_OPTIONS: Partial<RedisOptions> = {
  autoResendUnfulfilledCommands: false,
  enableOfflineQueue: false,
  enableAutoPipelining: false,
  maxRetriesPerRequest: 0,
  // A former primary answers READONLY: a new connection finds the primary of today.
  reconnectOnError: (error) => error.message.includes('READONLY'),
  connectTimeout: SILENCE_MAX_MS,
  disconnectTimeout: 100,
  maxLoadingRetryTime: RETRY_MAX_MS,
  sentinelCommandTimeout: SILENCE_MAX_MS,
  sentinelRetryStrategy: retryAfterMs,
  commandTimeout: undefined,
  // ioredis' own limit is a bare timer, which takes a busy event loop for a dead connection.
  socketTimeout: undefined,
  enableReadyCheck: true,
  stringNumbers: false,
};

function retryAfterMs(attempt: number): number {
  return Math.min(attempt * 50, RETRY_MAX_MS) * (0.5 + Math.random() / 2);
}

/**
 * The store's own connection to Redis.
 *
 *     connecting -> identifying the server (INFO) -> open -> (lost) -> connecting ...
 *
 * **Invariant.** Every command is executed at most once (one that got NOSCRIPT is sent again), on a connection whose
 * server has said that it is not a replica. A command that was in flight when its connection broke is rejected: the
 * server may have executed it, and its nonce may be used. So ioredis' automatic resend and offline queue are off; a
 * call that arrives while the connection is not open, or is ending, waits for the next one within its own deadline.
 *
 * A server may become a replica, or a primary with another history, while a connection to it stays open. A caller that
 * has reason to think so calls `revalidate()`, which asks the server again: the connection leaves a replica, and notes a
 * new incarnation.
 */
export class RedisConnection implements Route {
  readonly #client: WithScripts;
  readonly #waiting = new Set<Waiting>();
  #listener: StoreListener | undefined;
  #open = false;
  /** Whether the server was lost, or an attempt to reach it failed, and no connection has opened since. */
  #isDown = false;
  #incarnation: string | undefined;
  #askedAtMs = -Infinity;
  #lastError: Error | undefined;
  #described = false;
  /** Attempts since a connection was open. ioredis' own count starts anew at any answer, also at a replica's. */
  #attempts = 0;
  #inFlight = 0;
  /** Calls that wait until fewer commands are under way. */
  readonly #crowd = new Set<() => void>();
  /** The stream that holds back the commands of this turn. */
  #held: Redis['stream'] | undefined;
  /** Instant, by the monotonic clock, since which a reply has been due and the server has sent nothing. */
  #silentSinceMs: number | undefined;
  #lookAgain: NodeJS.Timeout | undefined;
  readonly #sentinels: SentinelWatch | undefined;
  #anew: NodeJS.Timeout | undefined;
  #closed = false;

  /** `settings`: what differs from a connection for commands. */
  constructor(address: ServerAddress, settings: Partial<RedisOptions> = {}) {
    const retryStrategy = () => {
      // The owner may have renewed what it connects with: a token as password, a certificate, an address.
      Object.assign(this.#client.options, address.options, own);
      return retryAfterMs(++this.#attempts);
    };
    const own = { ...OWN_OPTIONS, ...settings, retryStrategy, lazyConnect: !!address.options.sentinels };
    this.#client = defineScripts(inNoContext(() => address.connect(own)));
    const { sentinels } = address.options;
    // Behind Sentinels ioredis itself leaves a replica, in silence.
    letReadyCheckPass(
      this.#client,
      sentinels ? (info) => isReplica(info) && this.#refuse(replicaRefused()) : undefined,
    );
    if (sentinels) {
      this.#sentinels = inNoContext(() => new SentinelWatch(address.options, (primary) => this.#leaveFor(primary)));
      this.#sentinels.follow(this.#client);
      void inNoContext(() => this.#client.connect().catch(() => {}));
    }
    this.#client.on('connect', () => {
      this.#silentSinceMs = monotonicMs();
      // No call may wait for a server that is known to be down, so no deadline would look.
      this.#leaveIfSilent();
    });
    this.#client.on('ready', () => void this.#identify());
    this.#client.on('close', () => this.#lose());
    this.#client.on('end', () => this.#beginAnew(retryStrategy));
    this.#client.on('error', (cause: Error) => {
      ignoreLaterErrors(this.#client);
      // ioredis 5 reports the failure of a handshake after what broke the connection.
      if (cause.message.startsWith("Stream isn't writeable") && this.#lastError !== undefined) return;
      const error = this.#sentinels?.explain(cause) ?? cause;
      this.#lastError = error;
      if (!this.#open) this.#goDown();
      this.#listener?.({ kind: 'down', error });
    });
  }

  listen(listener: StoreListener): void {
    this.#listener = listener;
  }

  /** Whether a command can be sent now. */
  get isReady(): boolean {
    return this.#open && this.#writable;
  }

  /** Whether the server was lost, or an attempt to reach it failed, and no connection has opened since. */
  get isDown(): boolean {
    return this.#isDown;
  }

  /** The server's incarnation by its last INFO; undefined while not open, or where INFO is forbidden. */
  get incarnation(): string | undefined {
    return this.#open ? this.#incarnation : undefined;
  }

  /** Asks the server for INFO again, behind the commands under way, once a second at most. */
  revalidate(): void {
    if (!this.#open || monotonicMs() - this.#askedAtMs < REVALIDATE_EVERY_MS) return;
    this.#askedAtMs = monotonicMs();
    this.#client.info().then(
      (reply) => {
        if (!this.#open) return;
        const info = parseInfo(reply);
        if (isReplica(info)) this.#refuse(replicaRefused());
        else this.#incarnation = incarnationOf(info);
      },
      // A broken connection emits its own event; a server that forbids INFO has no incarnation already.
      () => {},
    );
  }

  /**
   * Sends one command, as soon as the connection is open, within the deadline.
   * Rejects with DeadlineError, or with StoreUnavailableError, whose `sent` tells whether the server may have executed it.
   */
  send<T>(deadline: Deadline, command: SentCommand<T>): Promise<T> {
    if (this.isReady) return this.#exchange(deadline, command);
    return this.#opened(deadline, true).then(() => this.send(deadline, command));
  }

  /** Sends one command like `send`, but rejects at once while the server is known to be down, or as soon as it is. */
  sendUnlessDown<T>(deadline: Deadline, command: SentCommand<T>): Promise<T> {
    if (this.isReady) return this.#exchange(deadline, command);
    if (this.#isDown) return rejectNextTurn(this.unreachable());
    return this.#opened(deadline, false).then(() => this.sendUnlessDown(deadline, command));
  }

  /**
   * Announces a command. While others wait for replies, it is held back until the turn's end, and those of one turn are sent
   * together: on a connection that carries the commands of many partitions, a write for each of them takes client and
   * server more time than the commands do.
   */
  gather(): void {
    if (this.#inFlight === 0 || this.#held !== undefined) return;
    this.#held = this.#client.stream;
    this.#held.cork();
    process.nextTick(this.#release);
  }

  readonly #release = (): void => {
    this.#held!.uncork();
    this.#held = undefined;
  };

  /**
   * Whether the stream takes a command. A connection that one side has ended is still `ready` until it closes, some turns
   * later, and ioredis rejects its commands at once: a caller that tries again without a pause would never let it close.
   */
  get #writable(): boolean {
    const { stream } = this.#client;
    return stream.writable && !stream.readableEnded;
  }

  #exchange<T>(deadline: Deadline, command: SentCommand<T>): Promise<T> {
    if (this.#inFlight >= IN_FLIGHT_MAX) return rejectNextTurn(tooFarBehind());
    this.#inFlight++;
    this.#silentSinceMs ??= monotonicMs();
    const reply = command(this.#client);
    deadline.onExpiry(this.#leaveIfSilent);
    return deadline.race(reply, this.#broken, this.#answered);
  }

  readonly #answered = (): void => {
    this.#silentSinceMs = --this.#inFlight > 0 ? monotonicMs() : undefined;
    // One in each one's place; but one that is woken may not send any more, so the last answer wakes all.
    for (const wake of this.#crowd) {
      this.#crowd.delete(wake);
      wake();
      if (this.#inFlight > 0) break;
    }
  };

  /** Whether a further command would not be rejected as one too many. */
  get hasRoom(): boolean {
    return this.#inFlight < IN_FLIGHT_MAX;
  }

  /** Resolves once a command has been answered. Rejects at the deadline. */
  answer(deadline: Deadline): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#crowd.add(resolve);
      deadline.onExpiry(() => {
        this.#crowd.delete(resolve);
        reject(tooFarBehind());
      });
    });
  }

  /** Leaves a half-open connection. Called when a deadline passes, and once more at the limit of silence. */
  readonly #leaveIfSilent = (): void => {
    if (this.#silentSinceMs === undefined) return;
    const leftMs = this.#silentSinceMs + SILENCE_MAX_MS - monotonicMs();
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

  /** ioredis rejects the commands of a broken connection with an error about retries; the cause came in an earlier event. */
  readonly #broken = (cause: unknown): StoreUnavailableError => {
    const flushed = (cause as Error).name === 'MaxRetriesPerRequestError';
    const why = flushed ? clause(this.#lastError ?? CLOSED) : clause(cause as Error);
    return new StoreUnavailableError(
      `Redis refused a command, or its connection broke: ${why}. ${/^MOVED \d/.test(why) ? IS_NODE : 'Check the server and the network.'}`,
      true,
      { cause },
    );
  };

  /** Leaves the connection, and opens another one. */
  reconnect(): void {
    this.#client.disconnect(true);
  }

  close(): void {
    this.#closed = true;
    this.#open = false;
    this.#listener = undefined;
    this.#silentSinceMs = undefined;
    clearTimeout(this.#lookAgain);
    clearTimeout(this.#anew);
    this.#sentinels?.close();
    ignoreLaterErrors(this.#client);
    this.#client.disconnect();
  }

  /**
   * ioredis gives up, whatever its `retryStrategy` says, where it fails before it has a socket: for a certificate that it
   * can't parse, and when it is told to disconnect while it asks a Sentinel.
   */
  #beginAnew(retryStrategy: () => number): void {
    if (this.#closed) return;
    // The error came in an event of its own.
    this.#anew = setTimeout(() => void this.#client.connect().catch(() => {}), retryStrategy());
  }

  /** Leaves a primary that Sentinels have replaced, unless the connection leads to the new one already. */
  #leaveFor(primary: string): void {
    const { stream } = this.#client;
    if (`${stream?.remoteAddress}:${stream?.remotePort}` !== primary) this.#refuse(replaced());
  }

  /** Asks the server for its role and incarnation. A replica is refused: it may lag behind, and rejects writes. */
  async #identify(): Promise<void> {
    let info: ServerInfo;
    let refusal: Error | undefined;
    try {
      info = parseInfo(await this.#client.info());
    } catch (error) {
      // A connection that broke meanwhile emits its own event.
      if (this.#client.status !== 'ready') return;
      if (!isRefused(error)) return this.#refuse(error as Error);
      refusal = error;
      info = {};
    }
    if (this.#client.status !== 'ready') return;
    if (isReplica(info)) return this.#refuse(replicaRefused());
    this.#incarnation = incarnationOf(info);
    this.#open = true;
    this.#isDown = false;
    this.#attempts = 0;
    this.#silentSinceMs = undefined;
    this.#lastError = undefined;
    this.#listener?.({ kind: 'up' });
    if (!this.#described) {
      for (const message of describeInfo(info, refusal)) this.#listener?.({ kind: 'warning', message });
    }
    this.#described = true;
    for (const { wake } of this.#waiting) wake();
  }

  /** Rejects the calls that do not wait for a server that is down. */
  #goDown(): void {
    this.#isDown = true;
    for (const { waitsForServer, fail } of this.#waiting) if (!waitsForServer) fail(this.unreachable());
  }

  /** Leaves a server that can't be used as it is, and connects again: the address may lead to another server by then. */
  #refuse(error: Error): void {
    this.#open = false;
    this.#lastError = error;
    this.#goDown();
    this.#listener?.({ kind: 'down', error });
    this.#client.disconnect(true);
  }

  #lose(): void {
    this.#silentSinceMs = undefined;
    // A connection that never opened: its error has told, unless the server was silent until the connection ended.
    if (!this.#open && this.#lastError !== undefined) return;
    this.#open = false;
    this.#lastError ??= CLOSED;
    this.#goDown();
    this.#listener?.({ kind: 'down', error: this.#lastError });
  }

  /** Resolves when the connection is open. Without `waitsForServer`, rejects as soon as the server is known to be down. */
  #opened(deadline: Deadline, waitsForServer: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        waitsForServer,
        wake: () => {
          this.#waiting.delete(waiting);
          resolve();
        },
        fail: (error) => {
          this.#waiting.delete(waiting);
          reject(error);
        },
      };
      deadline.onExpiry(({ limitMs }) => waiting.fail(this.late(` within ${limitMs} ms`)));
      this.#waiting.add(waiting);
    });
  }

  /** The error of a call that has waited for the connection until its deadline. Leaves a connection that stays silent. */
  late(within: string): StoreUnavailableError {
    this.#leaveIfSilent();
    return this.unreachable(within);
  }

  /** The error of a call that finds no open connection. */
  unreachable(within = ''): StoreUnavailableError {
    const why = this.#lastError ? `: ${clause(this.#lastError)}` : '';
    const remedy =
      (this.#client.options.tls && tlsRemedy(this.#lastError)) || "Check the server's address and the network.";
    return new StoreUnavailableError(`Redis was not connected${within}${why}. ${remedy}`, false, {
      cause: this.#lastError,
    });
  }
}

/** A command, as a function of the client that sends it. */
export type SentCommand<T> = (client: WithScripts) => Promise<T>;

/** A command of one key, for a client that may have been told where to ask. */
export type ApartCommand<T> = (client: ScriptsOfOneKey) => Promise<T>;

/** The way to the server that holds the keys of one partition. */
export interface Route {
  /** Where there are several, stands for the one that holds the keys at the moment. */
  readonly server?: object | undefined;
  /** The server's incarnation by its last INFO; undefined while no connection is open, or where INFO is forbidden. */
  readonly incarnation: string | undefined;
  /** Asks the server for INFO again, behind the commands under way, once a second at most. */
  revalidate(): void;
  /**
   * Sends one command, as soon as a connection is open, within the deadline. Rejects with DeadlineError, or with
   * StoreUnavailableError, whose `sent` tells whether the server may have executed it.
   */
  send<T>(deadline: Deadline, command: SentCommand<T>): Promise<T>;
  /** Sends one command like `send`, but rejects at once while the server is known to be down, or as soon as it is. */
  sendUnlessDown<T>(deadline: Deadline, command: SentCommand<T>): Promise<T>;
  /**
   * Sends a command of several keys that may as well be sent for each key alone. `one` does so: `keys: [n] -> [n]`. A route
   * uses it where the server refuses several keys at once, since their slot is being moved (docs/protocol.md, rule 19a).
   */
  sendApart?<T>(deadline: Deadline, keys: readonly string[], one: (key: string) => ApartCommand<T>): Promise<T[]>;
}

/** Where a connection leads: a server, or the Sentinels that know it. */
export interface ServerAddress {
  /** What to connect with, as the owner has it at the moment. */
  readonly options: RedisOptions;
  /** Returns a new client, with the connection's own settings. */
  connect(own: Partial<RedisOptions>): Redis;
}

/** A call that waits for the connection to open. */
interface Waiting {
  /** Whether it goes on waiting while the server is known to be down. */
  readonly waitsForServer: boolean;
  readonly wake: () => void;
  readonly fail: (error: StoreUnavailableError) => void;
}

/**
 * Answers ioredis' own INFO, of its ready check, with no fields where Redis refuses INFO: ioredis would leave a host that
 * does not know it, and print that a user has no right to it. The store has a warning of its own. (Without the ready check
 * ioredis 5 takes a connection that breaks during its handshake for a ready one:
 * https://github.com/redis/ioredis/issues/2099)
 */
function letReadyCheckPass(client: Redis, onInfo?: (info: ServerInfo) => void): void {
  type Callback = (error: Error | null | undefined, reply?: string) => void;
  const info = client.info.bind(client) as (...args: (string | Callback)[]) => Promise<string>;
  const passing = (...args: (string | Callback)[]): Promise<string> => {
    const callback = args.at(-1);
    if (typeof callback !== 'function') return info(...args);
    return info(...args.slice(0, -1), (error, reply) => {
      if (isRefused(error)) return callback(null, '');
      if (reply !== undefined) onInfo?.(parseInfo(reply));
      callback(error, reply);
    });
  };
  client.info = passing as Redis['info'];
}

/**
 * Whether Redis refuses a command for good: the user lacks a right, or the host does not have it. A server that can't answer
 * now says so by a code of its own: LOADING, BUSY, MASTERDOWN, NOAUTH.
 */
export function isRefused(error: unknown): error is Error {
  return error instanceof Error && error.name === 'ReplyError' && /^(?:ERR |NOPERM |(?![A-Z]+ ))/.test(error.message);
}

/** An error's message, for use within a sentence: of an error of OpenSSL, the part for people. */
function clause(error: Error & { readonly library?: string; readonly reason?: string }): string {
  const { library, reason, message } = error;
  return library && reason ? `${library}: ${reason}` : message.replace(/\.$/, '');
}

const IS_NODE =
  'The server is a node of a Redis Cluster: pass a Cluster client of ioredis, or begin the address of a command with redis+cluster://.';

const CLOSED = new StoreUnavailableError('The connection to Redis was closed by the other side.', true);

function replaced(): StoreUnavailableError {
  return new StoreUnavailableError('Sentinel made another Redis server the primary.', false);
}

function replicaRefused(): StoreUnavailableError {
  return new StoreUnavailableError(
    'The Redis server is a replica, which may lag behind its primary. Pass the primary, or the Sentinels that know it.',
    false,
  );
}

/** Rejects in a later turn of the event loop, so that a caller that tries again without a pause does not stop it. */
function rejectNextTurn(error: Error): Promise<never> {
  return new Promise((_, reject) => setImmediate(reject, error));
}

function tooFarBehind(): StoreUnavailableError {
  return new StoreUnavailableError(
    `Redis is too slow: ${IN_FLIGHT_MAX} commands of this cache, the most allowed, wait for replies. Check its load.`,
    false,
  );
}
