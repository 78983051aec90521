import { monotonicMs } from '../async/scheduling.js';

/** The clock of a cache or an in-memory store: monotonic, and never compared across machines. */
export interface Clock {
  /** Milliseconds since an arbitrary start. */
  nowMs(): number;
}

/** The monotonic clock of this process. */
export const monotonicClock: Clock = { nowMs: monotonicMs };
