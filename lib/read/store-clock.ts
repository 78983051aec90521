import type { Deadline } from '../async/deadline.js';
import type { Clock } from '../ports/clock.js';
import type { StorePartition } from '../ports/store.js';

/**
 * The store's clock, by its replies with the time.
 *
 * **Invariant.** `at` is never ahead of a store whose clock runs like this process's: the store read its clock before this
 * process got the reply. It lags by the shortest way of a reply so far: a reply that waited for a busy event loop says
 * less than an earlier one. An earlier one that the store's clock contradicts, since that was set back, counts no longer.
 * `latestAt` is never behind such a store, by the last reply. Two clocks drift apart, so for it the store's time is asked
 * for again once in a while (`renewMs`).
 */
export class StoreClock {
  readonly #store: StorePartition;
  readonly #clock: Clock;
  /** The store's clock minus this process's. */
  #offsetMs: number | undefined;
  /** The most that this difference can be. */
  #latestOffsetMs = Infinity;
  readonly #renewMs: number;
  /** When the time was last asked for or told. */
  #renewedAtMs = -Infinity;

  /** `renewMs`: how old a reply may be before the time is asked for again. */
  constructor(store: StorePartition, clock: Clock, renewMs = Infinity) {
    this.#store = store;
    this.#clock = clock;
    this.#renewMs = renewMs;
  }

  /** This process's clock. */
  get ownMs(): number {
    return this.#clock.nowMs();
  }

  /** Takes the time of a reply that has just arrived. `sentAtMs`: when its command was sent, by this process's clock. */
  note(timeMs: number, sentAtMs: number): void {
    const leastMs = timeMs - this.ownMs;
    const mostMs = timeMs + 1 - sentAtMs; // the store's time is rounded down
    this.#latestOffsetMs = mostMs;
    this.#renewedAtMs = sentAtMs;
    const known = this.#offsetMs;
    this.#offsetMs = known !== undefined && known <= mostMs ? Math.max(known, leastMs) : leastMs;
  }

  /** Returns the store's time at an instant of this process's clock, in ms; undefined before the first reply. */
  at(atMs: number): number | undefined {
    return this.#offsetMs === undefined ? undefined : atMs + this.#offsetMs;
  }

  /** Returns the latest that the store's time can be at an instant of this process's clock; Infinity before the first reply. */
  latestAt(atMs: number): number {
    return atMs + this.#latestOffsetMs;
  }

  /** Whether the store is to be asked for its time, at an instant of this process's clock. */
  isDue(atMs: number): boolean {
    return this.#offsetMs === undefined || atMs - this.#renewedAtMs > this.#renewMs;
  }

  /** Asks the store for its time if no reply has told it yet, or for `renewMs`. One command. Rejects as the store does. */
  async known(deadline: Deadline): Promise<void> {
    const sentAtMs = this.ownMs;
    if (!this.isDue(sentAtMs)) return;
    // Reads that begin before the reply do not ask too.
    this.#renewedAtMs = sentAtMs;
    try {
      this.note(await this.#store.timeMs(deadline), sentAtMs);
    } catch (error) {
      this.#renewedAtMs = -Infinity;
      throw error;
    }
  }
}
