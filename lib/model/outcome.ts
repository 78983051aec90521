import type { Vector } from './vector.js';

/** The result of a lookup. Every outcome but a bypass carries the vector of the lookup, which a fill needs. */
export type Outcome<Value> =
  | { readonly outcome: 'hit'; readonly value: Value; readonly vector: Vector }
  /** The cached fact that there is no such row. */
  | { readonly outcome: 'absent'; readonly vector: Vector }
  /** A value beyond its TTL, and within `staleMs`; undefined where there was no such row. */
  | {
      readonly outcome: 'stale';
      readonly value: Value | undefined;
      readonly vector: Vector;
      /** The time since the end of its TTL, in ms. */
      readonly staleForMs: number;
    }
  | {
      readonly outcome: 'miss';
      readonly cause: MissCause;
      readonly vector: Vector;
      /** The path of the topmost scope whose generation differs from the one that this process remembered. */
      readonly bumped?: string | undefined;
    }
  /** The store must not be used now: read the source, and do not fill. */
  | { readonly outcome: 'bypass'; readonly reason: BypassReason };

/** Reason of a miss. */
export type MissCause =
  /** A scope had no generation: it was never used, or its generation expired, was evicted or flushed. */
  | 'no_generation'
  /** A scope was bumped: its generation differs from the one that this process remembered. */
  | 'bumped'
  /** The generations exist, and the entry does not: it was never filled, expired, or was evicted. */
  | 'not_filled'
  /** The entry exists and can't be used; a `decodeFailure` event gives the reason. */
  | 'undecodable'
  /** The value of this entry can't be stored, as an earlier load found: it is loaded at each read. */
  | 'unstorable';

/** Reason why a reader got a stale value. */
export type StaleReason =
  /** Within `staleMs`: one process loads the value anew. */
  | 'refreshing'
  /** Within `staleOnErrorMs`: the load failed. */
  | 'error'
  /** Within `staleOnErrorMs`: the load takes longer than `loadSoftTimeoutMs`. */
  | 'slow'
  /** Within `staleOnOutageMs` of the local tier: the store gives no answer. No load follows. */
  | 'outage';

/** A stale value that a reader got. */
export interface Staleness {
  readonly reason: StaleReason;
  /** The time since the end of its TTL, in ms; for the reason `outage` since the value was last known to stand. */
  readonly staleForMs: number;
  /** The error of the load, for the reason `error`. */
  readonly error?: unknown;
}

/** Reason of a bypass. */
export type BypassReason =
  /** The store failed or did not answer in time; a `storeFailure` event gives the error. */
  | 'store_failure'
  /** The store failed several times in a row, and is asked again in a while (the breaker is open). */
  | 'breaker_open'
  /** A bump that this process made failed, and is tried again: the store may hold what its change made old. */
  | 'unbumped'
  /**
   * The number of partitions of this process is not registered, so bumps of other processes may not reach it (docs/protocol.md,
   * rule 24). A `warning` event gives the reason.
   */
  | 'unregistered'
  /** A scope's generation has a form that this release does not know. */
  | 'foreign_generation'
  /** A generation vanished between the two reads of a lookup: it was evicted or flushed. */
  | 'generation_lost'
  /** A writer's strict commit is under way in one of the scopes. */
  | 'quarantine'
  /** The cache has a bound, and no relay keeps this store fresh: the relay is gone, or the store may have gone back in time. */
  | 'not_fresh'
  /** The store is a bypass store. */
  | 'bypass_store'
  /** The call reads inside the caller's transaction (docs/protocol.md, rule 2). */
  | 'transaction';
