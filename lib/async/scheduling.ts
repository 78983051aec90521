/**
 * Timers, turns of the event loop and the monotonic time, as Node had them when the library was loaded. All of the
 * library takes them from here.
 *
 * Fake timers of a test (Jest, Vitest, Sinon) replace the global functions by ones that wait until the test advances
 * them. A read, `settled()` or `close()` that waited for such a function would never end, since the test awaits it in
 * turn; and a deadline on a clock that stands still would never pass. So fake timers move nothing in the library:
 * `manualClock()` of `gencache/testing` does.
 *
 * `node:timers` keeps the real functions where Jest's configuration replaces the global ones before a test file loads
 * its first module. `process.nextTick` has no such second home; the next turn of the event loop stands in for a fake one.
 */
import { performance } from 'node:perf_hooks';
import process from 'node:process';
import * as timers from 'node:timers';
import * as promises from 'node:timers/promises';

export const { clearInterval, clearTimeout, setImmediate, setInterval, setTimeout } = timers;

/** Resolves after this many ms. */
export const sleep = promises.setTimeout;

/** Runs `callback` after the running operation, before promise jobs and I/O. */
export const nextTick: (callback: () => void) => void = 'clock' in process.nextTick ? setImmediate : process.nextTick;

/** Milliseconds since an arbitrary start; never goes back. */
export const monotonicMs: () => number = performance.now.bind(performance);

/** Milliseconds since 1970 by the wall clock, which goes on while the machine sleeps, and may be set back. */
export const wallMs: () => number = Date.now.bind(Date);
