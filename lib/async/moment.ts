import { monotonicMs, wallMs } from './scheduling.js';

/**
 * An instant by both clocks of this process. Time between two moments is the longer of two: the monotonic clock stands
 * still while the machine sleeps, and the wall clock may be set back.
 */
export interface Moment {
  readonly monotonicMs: number;
  /** In whole ms. */
  readonly wallMs: number;
}

/** The two clocks of a process. */
export interface Clocks {
  monotonicMs(): number;
  /** In whole ms. */
  wallMs(): number;
}

export const ownClocks: Clocks = { monotonicMs, wallMs };

export function momentOf(clocks: Clocks): Moment {
  return { monotonicMs: clocks.monotonicMs(), wallMs: clocks.wallMs() };
}

/** The time since a moment of these clocks, in ms. */
export function ageMs(since: Moment, clocks: Clocks = ownClocks): number {
  return Math.max(clocks.monotonicMs() - since.monotonicMs, clocks.wallMs() - since.wallMs);
}
