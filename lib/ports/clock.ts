/** The clock of a cache or an in-memory store: monotonic, and never compared across machines. */
export interface Clock {
  /** Milliseconds since an arbitrary start. */
  nowMs(): number;
}

/** The clock of this process: `performance.now()`. */
export const monotonicClock: Clock = { nowMs: () => performance.now() };
