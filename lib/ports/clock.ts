import { monotonicMs, wallMs } from '../async/scheduling.js';

/** The clock of a cache or an in-memory store: monotonic, and never compared across machines. */
export interface Clock {
  /** Milliseconds since an arbitrary start. */
  nowMs(): number;
}

/** The monotonic clock of this process. */
export const monotonicClock: Clock = { nowMs: monotonicMs };

/**
 * Returns a clock that never goes back, as the monotonic one, and also counts the time for which the machine was suspended,
 * which that one leaves out on Linux: the wall clock is ahead by then. A wall clock that is set forward brings this one
 * forward too; one that is set back changes nothing.
 */
export function suspensionClock(now: { monotonicMs(): number; wallMs(): number } = { monotonicMs, wallMs }): Clock {
  let aheadMs = -Infinity;
  return {
    nowMs() {
      const ms = now.monotonicMs();
      aheadMs = Math.max(aheadMs, now.wallMs() - ms);
      return ms + aheadMs;
    },
  };
}
