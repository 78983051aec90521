import type { BypassReason, MissCause } from '../telemetry/events.js';
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
