import type { Vector } from './vector.js';

/**
 * What a lookup found. All but a bypass carry the vector it looked under; a fill needs that vector.
 * `stale` is not among them: no cache offers a grace yet.
 */
export type Outcome<Value> =
  | { readonly outcome: 'hit'; readonly value: Value; readonly vector: Vector }
  /** A cached "there is no such row". */
  | { readonly outcome: 'absent'; readonly vector: Vector }
  | {
      readonly outcome: 'miss';
      readonly cause: MissCause;
      readonly vector: Vector;
      /** The path of the topmost scope that moved, if this process remembered it otherwise. */
      readonly bumped?: string | undefined;
    }
  /** The store is not to be used now: read the source, fill nothing. */
  | { readonly outcome: 'bypass'; readonly reason: BypassReason };

/** Why an entry was not found. */
export type MissCause =
  /** A scope had no generation: never used, expired, evicted, flushed. */
  | 'no_generation'
  /** This process remembered another generation of a scope: somebody bumped it. */
  | 'bumped'
  /** The generations stand and the entry does not: never filled, expired, evicted. */
  | 'not_filled'
  /** The entry is there and can't be used; a `decodeFailure` says why. */
  | 'undecodable';

/** Why the store was not used. */
export type BypassReason =
  /** It failed or did not answer in time; a `storeFailure` says how. */
  | 'store_failure'
  /** A scope's generation is of a form this release does not know. */
  | 'foreign_generation'
  /** A generation vanished between the two reads of a lookup: evicted, or flushed. */
  | 'generation_lost'
  /** A writer's strict commit is under way in one of the scopes. */
  | 'quarantine'
  /** The cache has a bound, and nobody vouches for it: no relay, or a store that may have gone back in time. */
  | 'not_fresh'
  /** The store is a bypass store. */
  | 'bypass_store'
  /** The call reads inside the caller's transaction. */
  | 'transaction';
