import type { Clock } from '../ports/clock.js';
import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';

/** A clock that stands still between calls of `advance`. */
export interface ManualClock extends Clock {
  /** Moves the clock forward by `ms`. Throws ConfigurationError below 0: a monotonic clock never goes back. */
  advance(ms: number): void;
}

/**
 * A clock for tests of TTLs. Give the same clock to the cache and to its in-memory store. It moves neither Redis nor
 * timers, so deadlines pass in real time.
 *
 *     const clock = manualClock();
 *     const cache = new GenerationalCache({ name: 'shop', store: memoryStore({ clock }), clock });
 *     await orders.fetch({ customer: 42 });
 *     clock.advance(60_000); // the entry's TTL
 */
export function manualClock(): ManualClock {
  let nowMs = 0;
  return {
    nowMs: () => nowMs,
    advance(ms) {
      if (!(typeof ms === 'number' && ms >= 0 && ms < Infinity)) {
        throw new ConfigurationError(
          `ms must be a number from 0, but got ${describe(ms)} (manualClock). Make another clock to start over.`,
        );
      }
      nowMs += ms;
    },
  };
}
