import type { Deadline } from '../async/deadline.js';
import type { Clock } from '../ports/clock.js';
import type { StorePartition } from '../ports/store.js';

/**
 * The store's clock, by its replies with the time.
 *
 * **Invariant.** `at` is never ahead of a store whose clock runs like this process's: the store read its clock before this
 * process got the reply. It lags by the shortest way of a reply so far: a reply that waited for a busy event loop says
 * less than an earlier one. An earlier one that the store's clock contradicts, since that was set back, counts no longer.
 */
export class StoreClock {
  readonly #store: StorePartition;
  readonly #clock: Clock;
  /** The store's clock minus this process's. */
  #offsetMs: number | undefined;

  constructor(store: StorePartition, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** This process's clock. */
  get ownMs(): number {
    return this.#clock.nowMs();
  }

  /** Takes the time of a reply that has just arrived. `sentAtMs`: when its command was sent, by this process's clock. */
  note(timeMs: number, sentAtMs: number): void {
    const leastMs = timeMs - this.ownMs;
    const mostMs = timeMs + 1 - sentAtMs; // the store's time is rounded down
    const known = this.#offsetMs;
    this.#offsetMs = known !== undefined && known <= mostMs ? Math.max(known, leastMs) : leastMs;
  }

  /** Returns the store's time at an instant of this process's clock, in ms; undefined before the first reply. */
  at(atMs: number): number | undefined {
    return this.#offsetMs === undefined ? undefined : atMs + this.#offsetMs;
  }

  /** Asks the store for its time if no reply has told it yet. One command, once. Rejects as the store does. */
  async known(deadline: Deadline): Promise<void> {
    if (this.#offsetMs !== undefined) return;
    const sentAtMs = this.ownMs;
    this.note(await this.#store.timeMs(deadline), sentAtMs);
  }
}
