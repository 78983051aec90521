/**
 * A connection to one primary, on which it pushes the keys that change: CLIENT TRACKING in broadcasting mode.
 *
 *     connecting -> INFO -> CLIENT ID, CLIENT TRACKING ON REDIRECT <id> BCAST PREFIX ... -> SUBSCRIBE -> on -> (lost) -> ...
 *
 * It speaks RESP2, also with ioredis 6, which drops these pushes in RESP3: they are redirected to the connection itself, as
 * messages of a channel. A message without keys means that everything may have changed. Tracking belongs to one connection.
 * So ioredis must not subscribe again by itself after a reconnection: that connection would be ready and subscribed, and get
 * no push.
 *
 * A subscribed connection takes no further command, so the prefixes of a partition that is added later need another one.
 */
import type { Redis, RedisOptions } from 'ioredis';
import { withDeadline } from '../../../async/deadline.js';
import type { Moment } from '../../../async/moment.js';
import { inNoContext } from '../../../async/no-context.js';
import { clearTimeout, monotonicMs, setImmediate, setTimeout, sleep } from '../../../async/scheduling.js';
import { type Beat, StoreUnavailableError } from '../../../ports/store.js';
import { RedisConnection, type ServerAddress } from '../redis-connection.js';

/** Where Redis sends the messages of clients that redirect their tracking. */
const CHANNEL = '__redis__:invalidate';
const SETTINGS = { protocol: 2, autoResubscribe: false } as Partial<RedisOptions>;
/** Longest time from an open connection to its first push, in ms. */
const BEGIN_WITHIN_MS = 5_000;
/** Pause after a failure to begin, in ms. */
const PAUSE_MS = 100;
/** Shortest time between two connections that are left on purpose, in ms. */
const RECONNECT_EVERY_MS = 1_000;
/** Time after which a server that refused is asked again, in ms. */
const ASK_AGAIN_MS = 60_000;

/** A partition whose keys a connection tracks. */
export interface TrackingMember {
  /** The prefix of the partition's keys. */
  readonly prefix: string;
  /** What the keys that it wants to hear of begin with. */
  readonly tracked: readonly string[];
  /** From now on every change is pushed that the server makes. */
  began(): void;
  /** Keys of the partition that changed, all at one moment, in the order of Redis. */
  pushed(keys: readonly string[]): void;
  /** The server flushed its keys. */
  flushed(): void;
  /** No change is pushed any more until the next `began`. */
  lost(): void;
  /** The server does not push changes to this user. */
  refused(error: Error): void;
  /** Whether changes are told. */
  readonly isTold: boolean;
  /** Takes part in a beat that another partition sends to the server now. Changes must be told. */
  join(sentAt: Moment): JoinedBeat;
}

/** A beat of another partition of the same server. Does nothing once changes may have been missed since it was sent. */
export interface JoinedBeat {
  /** A key of the partition, at which the beat looks: a server refuses it without the slot. */
  readonly key: string;
  /** The beat has arrived, and found this at the key. */
  arrived(found: NonNullable<Beat['freshness']>): void;
  /** The beat failed, or did not find the partition at the server. */
  missed(): void;
}

export class TrackingConnection {
  readonly #address: ServerAddress;
  readonly #members = new Map<string, TrackingMember>();
  #connection: RedisConnection | undefined;
  /** The connection whose messages are listened to: its client stays the same when it connects again. */
  #heard: RedisConnection | undefined;
  /** Whether pushes are subscribed to. */
  #isOn = false;
  /** The members whose keys this connection tracks. */
  #tracked = new Set<TrackingMember>();
  #leftAtMs = -Infinity;
  #timer: NodeJS.Timeout | undefined;

  constructor(address: ServerAddress) {
    this.#address = address;
  }

  /** The incarnation of the server that pushes; undefined while it does not, or where INFO is forbidden. */
  get incarnation(): string | undefined {
    return this.#isOn ? this.#connection?.incarnation : undefined;
  }

  get members(): Iterable<TrackingMember> {
    return this.#members.values();
  }

  add(member: TrackingMember): void {
    this.#members.set(member.prefix, member);
    // Members that are added in one turn are tracked together, by the first connection.
    if (this.#tracked.size > 0) this.reconnect();
    this.#open();
  }

  /** Removes a member. Closes the connection without one. */
  remove(member: TrackingMember): void {
    if (this.#members.get(member.prefix) !== member) return;
    this.#members.delete(member.prefix);
    this.#tracked.delete(member);
    if (this.#members.size === 0) this.close();
  }

  /** Leaves the connection and opens another one, soon, at a limited rate. */
  reconnect(): void {
    const waitMs = this.#leftAtMs + RECONNECT_EVERY_MS - monotonicMs();
    this.#in(Math.max(0, waitMs), () => {
      this.#leftAtMs = monotonicMs();
      this.#connection?.reconnect();
      this.#lose();
    });
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#connection?.close();
    this.#connection = undefined;
    this.#lose();
  }

  #open(): void {
    if (this.#connection !== undefined || this.#members.size === 0) return;
    const connection = new RedisConnection(this.#address, SETTINGS);
    this.#connection = connection;
    connection.listen(({ kind }) => {
      if (kind === 'down') this.#lose();
    });
    void this.#begin(connection);
  }

  /** Begins to track as soon as the connection is open, and tries until it has. */
  async #begin(connection: RedisConnection): Promise<void> {
    for (;;) {
      let members: Set<TrackingMember> | undefined;
      let isSubscribed = false;
      try {
        await withDeadline('tracking', BEGIN_WITHIN_MS, (deadline) =>
          connection.send(deadline, (client) => {
            members = this.#tracked = new Set(this.#members.values());
            return this.#subscribe(connection, client);
          }),
        );
        isSubscribed = true;
      } catch (error) {
        if (connection !== this.#connection) return;
        if (REFUSAL.test(answerOf(error) ?? '')) return this.refuse(error as Error);
        // A connection that is subscribed by now takes no command.
        if (connection.isReady) connection.reconnect();
        await sleep(PAUSE_MS, undefined, { ref: false });
      }
      if (connection !== this.#connection) return;
      // Otherwise it was lost, or is to be left, meanwhile.
      if (isSubscribed && this.#tracked === members && connection.isReady) break;
    }
    this.#isOn = true;
    for (const member of this.#tracked) member.began();
  }

  async #subscribe(connection: RedisConnection, client: Redis): Promise<void> {
    if (this.#heard !== connection) client.on('messageBuffer', (_, keys: unknown) => this.#hear(keys));
    this.#heard = connection;
    const prefixes = [...this.#tracked].flatMap(({ tracked }) => tracked).flatMap((prefix) => ['PREFIX', prefix]);
    const id = String(await client.call('CLIENT', 'ID'));
    await client.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', id, 'BCAST', ...prefixes);
    await client.subscribe(CHANNEL);
  }

  #hear(keys: unknown): void {
    if (!this.#isOn) return;
    if (!Array.isArray(keys)) {
      for (const member of this.#tracked) member.flushed();
      return;
    }
    const byPrefix = new Map<string, string[]>();
    for (const bytes of keys as Buffer[]) {
      const key = bytes.toString('latin1');
      const prefix = key.slice(0, key.indexOf('}:') + 2);
      const own = byPrefix.get(prefix);
      if (own === undefined) byPrefix.set(prefix, [key]);
      else own.push(key);
    }
    for (const [prefix, own] of byPrefix) this.#members.get(prefix)?.pushed(own);
  }

  #lose(): void {
    const wasOn = this.#isOn;
    this.#isOn = false;
    const tracked = this.#tracked;
    this.#tracked = new Set();
    for (const member of tracked) member.lost();
    if (wasOn && this.#connection !== undefined) void this.#begin(this.#connection);
  }

  /** Gives up for a while: the server does not push changes. */
  refuse(error: Error): void {
    this.close();
    for (const member of this.#members.values()) member.refused(error);
    this.#in(ASK_AGAIN_MS, () => this.#open());
  }

  #in(ms: number, work: () => void): void {
    this.#timer ??= inNoContext(() =>
      // After the poll phase: what waits in sockets is read first.
      setTimeout(() => {
        setImmediate(() => {
          if (this.#timer === undefined) return;
          this.#timer = undefined;
          work();
        });
      }, ms).unref(),
    );
  }
}

/** Returns what Redis answered to a command that it refused; undefined for any other error. */
export function answerOf(error: unknown): string | undefined {
  if (!(error instanceof StoreUnavailableError) || !(error.cause instanceof Error)) return undefined;
  return error.cause.name === 'ReplyError' ? error.cause.message : undefined;
}

/**
 * Whether Redis does not know a command, or does not allow it to this user. An id that is unknown by now was that of a
 * connection which was lost meanwhile.
 */
const REFUSAL = /^ERR (?!The client ID)|NOPERM/;
