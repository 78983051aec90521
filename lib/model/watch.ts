import type { Clocks, Moment } from '../async/moment.js';
import type { Sighting } from './sighting.js';

/**
 * One stretch of time during which the store tells each change of a generation. What was verified in it holds while it is
 * live: until a time after the last beat was **sent** (docs/protocol.md, rule 15).
 *
 * `isLive` runs for each answer without a round trip, where two clocks cost more than all the rest. So the wall clock is
 * read each time, and the monotonic one once in each ms of it, and in each thousand calls: fake timers of a test may stop the
 * wall clock. A wall clock that is set back shows another ms, unless it goes back by exactly the time since the last call.
 */
export class Watch {
  readonly #clocks: Clocks;
  #liveUntil: Moment = ENDED;
  /** The ms of the wall clock for which `#isLive` was decided. */
  #decidedAtMs = NaN;
  #isLive = false;
  #callsLeft = 0;
  #hasEnded = false;
  /** The last beat, which stays known when the watch has ended: what was verified then stood at that moment. */
  lastBeat: Sighting | undefined;

  constructor(clocks: Clocks) {
    this.#clocks = clocks;
  }

  /** The ms of the wall clock in which `isLive` decided last. */
  get decidedAtMs(): number {
    return this.#decidedAtMs;
  }

  /** What `isLive` decided last. */
  get wasLive(): boolean {
    return this.#isLive;
  }

  isLive(): boolean {
    const wallMs = this.#clocks.wallMs();
    if (wallMs !== this.#decidedAtMs || --this.#callsLeft < 0) {
      this.#decidedAtMs = wallMs;
      this.#callsLeft = CALLS_MAX;
      this.#isLive = wallMs < this.#liveUntil.wallMs && this.#clocks.monotonicMs() < this.#liveUntil.monotonicMs;
    }
    return this.#isLive;
  }

  /** Keeps the watch live until this many ms after `sentAt`, and no longer. */
  extend(sentAt: Moment, ms: number): void {
    if (this.#hasEnded) return;
    // The wall clock tells whole ms: an ms that has begun counts.
    this.#liveUntil = { monotonicMs: sentAt.monotonicMs + ms, wallMs: sentAt.wallMs + ms - 1 };
    this.#decidedAtMs = NaN;
  }

  /** Ends the watch for good. */
  end(): void {
    this.#hasEnded = true;
    this.#liveUntil = ENDED;
    this.#decidedAtMs = NaN;
  }
}

/** Most calls for which one reading of the monotonic clock counts. */
const CALLS_MAX = 1_000;

const ENDED: Moment = { monotonicMs: -Infinity, wallMs: -Infinity };
