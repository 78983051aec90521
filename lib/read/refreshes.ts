import { monotonicMs } from '../async/scheduling.js';
import type { EntryKey } from '../model/key.js';

/** Time between two attempts of this process to refresh an entry that another process refreshes, or whose load failed, in ms. */
const REST_MS = 1_000;
/** Most entries that rest; beyond it the oldest may be tried again at once. */
const RESTING_MAX = 10_000;

/** The entries whose refresh did not end in a fill of this process: a hot entry would otherwise ask again at each hit. */
export class Refreshes {
  /** The instants, by the monotonic clock, until which entries rest: the oldest first. */
  readonly #untilMs = new Map<EntryKey, number>();

  rest(key: EntryKey): void {
    this.#untilMs.delete(key);
    this.#untilMs.set(key, monotonicMs() + REST_MS);
    const nowMs = monotonicMs();
    for (const [oldest, untilMs] of this.#untilMs) {
      if (untilMs > nowMs && this.#untilMs.size <= RESTING_MAX) break;
      this.#untilMs.delete(oldest);
    }
  }

  rests(key: EntryKey): boolean {
    const untilMs = this.#untilMs.get(key);
    return untilMs !== undefined && monotonicMs() < untilMs;
  }
}
