/** Where a cache and an in-memory store read the time: monotonic, never compared across machines. */
export interface Clock {
  /** Milliseconds since an arbitrary start. */
  nowMs(): number;
}

export const monotonicClock: Clock = { nowMs: () => performance.now() };
