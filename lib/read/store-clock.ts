import type { Deadline } from '../async/deadline.js';
import type { Clock } from '../ports/clock.js';
import type { Store } from '../ports/store.js';

/**
 * The store's clock, by its last reply with the time.
 *
 * **Invariant.** `at` is never ahead of the store: the store read its clock before this process got the reply. It lags by
 * the time of that reply's way, and while both clocks run alike.
 */
export class StoreClock {
  readonly #store: Store;
  readonly #clock: Clock;
  /** The store's clock minus this process's. */
  #offsetMs: number | undefined;

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** Takes the time of a reply that has just arrived. */
  note(timeMs: number): void {
    this.#offsetMs = timeMs - this.#clock.nowMs();
  }

  /** Returns the store's time at an instant of this process's clock, in ms; undefined before the first reply. */
  at(atMs: number): number | undefined {
    return this.#offsetMs === undefined ? undefined : atMs + this.#offsetMs;
  }

  /** Asks the store for its time if no reply has told it yet. One command, once. Rejects as the store does. */
  async known(deadline: Deadline): Promise<void> {
    if (this.#offsetMs === undefined) this.note(await this.#store.timeMs(deadline));
  }
}
