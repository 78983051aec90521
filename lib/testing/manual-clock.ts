import type { Clock } from '../ports/clock.js';
import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';

/** A clock that stands still until told. */
export interface ManualClock extends Clock {
  /** Lets `ms` pass at once. Throws ConfigurationError for less than none: a monotonic clock never goes back. */
  advance(ms: number): void;
}

/**
 * A clock for tests of what expires. Give the same one to the cache and to its in-memory store; it moves neither
 * Redis nor timers, so deadlines pass as ever.
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
          `A clock advances by milliseconds, 0 or more. Got ${describe(ms)}. Make another clock to start over.`,
        );
      }
      nowMs += ms;
    },
  };
}
