import type { Emitter } from './emitter.js';

/** The state of one part of a cache. */
export interface PartState {
  readonly isUp: boolean;
  /** Since when, by this process's wall clock, in ms since 1970. */
  readonly sinceAtMs: number;
  /** The first failure, while the part is down and a failure is known. */
  readonly error?: Error | undefined;
}

/** The state of the connection to the store. On a Redis Cluster it is down while one primary in use or more can't be reached. */
export interface ConnectionState extends PartState {
  /** On a Redis Cluster, the addresses of the primaries that can't be reached: `10.0.0.7:6379`. Entries of the others are hits. */
  readonly unreachable?: readonly string[] | undefined;
}

/**
 * The parts of a cache that can be down, by its events so far, and its loads. On a Redis Cluster a part is down while it is
 * down for one partition or more; the others go on.
 */
export interface CacheState {
  /** The connection to the store; undefined before its first attempt ends, and for a store without connections. */
  readonly connection: ConnectionState | undefined;
  /** Whether reads use the store. While not, their breaker is open, and reads go to the source. */
  readonly reads: PartState;
  /** Whether loaded values are stored. While not, the breaker of fills is open. */
  readonly fills: PartState;
  /**
   * Whether a relay keeps the store fresh within the bound, by the last read that asked the store; up before the first.
   * undefined for a cache without a bound.
   */
  readonly freshness: PartState | undefined;
  readonly loads: LoadCounts;
  /** What the local tier holds; undefined for a cache without one. */
  readonly local: LocalCounts | undefined;
  /** Scopes whose bump by this process failed, and is tried again; reads of them go to the source. */
  readonly unbumped: number;
}

export interface LocalCounts {
  readonly entries: number;
  /** About what they take, in bytes. */
  readonly bytes: number;
  /** What is known without a round trip; undefined with `mode: 'verify'`, and where the store can't tell changes. */
  readonly tracking?: TrackingCounts;
}

export interface TrackingCounts {
  /** Number of scopes whose changes reach this process. */
  readonly scopes: number;
  /**
   * Time since the last beat that has arrived was sent, in ms: of the partition where that is longest; undefined while one has
   * had none. Beyond `heartbeatMs` each read asks the store.
   */
  readonly beatAgeMs: number | undefined;
  /** Number of reads that asked the store, by reason, since the cache was made. */
  readonly unverified: Readonly<Record<UnverifiedReason, number>>;
}

/** Why this process could not answer a read by itself. */
export type UnverifiedReason =
  /** Its local tier did not have the value. */
  | 'not_held'
  /** A generation was touched, or not read yet, or its tracking was lost. */
  | 'changed'
  /** The last beat was sent too long ago; or the freshness key was about to expire then. */
  | 'heartbeat'
  /** The value's TTL was over. */
  | 'expired'
  /** A bump by this process is missing. */
  | 'unbumped'
  /** The number of partitions is not registered. */
  | 'unregistered';

export interface LoadCounts {
  /** Loads whose loader has not settled: `loadsMax` at most. */
  readonly running: number;
  /** Those of them that took longer than their hard timeout, and were told to stop. */
  readonly overdue: number;
  /** Entries that wait for their load to begin. */
  readonly waiting: number;
  /** Entries that wait while another process loads them. */
  readonly elsewhere: number;
}

/** Follows the events of a cache, and tells its present state. */
export class StateTracker {
  readonly #unreachable: (() => readonly string[]) | undefined;
  #connection: PartState | undefined;
  #reads = up();
  #fills = up();
  #freshness: PartState | undefined;

  /** `unreachable`: the addresses that a store on several servers can't reach; undefined for any other store. */
  constructor(telemetry: Emitter, hasBound: boolean, unreachable: (() => readonly string[]) | undefined) {
    this.#unreachable = unreachable;
    if (hasBound) this.#freshness = up();
    telemetry.on('storeUp', () => (this.#connection = up()));
    telemetry.on('storeFailure', ({ operation, error }) => {
      // Each failed attempt to connect is an event; the first one has the instant.
      if (operation === 'connection' && this.#connection?.isUp !== false) this.#connection = down(error);
    });
    telemetry.on('breakerChanged', ({ operation, isOpen, error }) => {
      const state = isOpen ? down(error) : up();
      if (operation === 'read') this.#reads = state;
      else this.#fills = state;
    });
    telemetry.on('freshnessChanged', ({ isFresh }) => (this.#freshness = isFresh ? up() : down(undefined)));
  }

  get state(): Omit<CacheState, 'loads' | 'local' | 'unbumped'> {
    const connection = this.#connection && {
      ...this.#connection,
      ...(this.#unreachable && { unreachable: this.#unreachable() }),
    };
    return { connection, reads: this.#reads, fills: this.#fills, freshness: this.#freshness };
  }
}

function up(): PartState {
  return { isUp: true, sinceAtMs: Date.now() };
}

function down(error: Error | undefined): PartState {
  return { isUp: false, sinceAtMs: Date.now(), error };
}
