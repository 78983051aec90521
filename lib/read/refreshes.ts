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
  /** The entries that this process loads behind answers. A load that is slow is not helped by a second one. */
  readonly #begun = new Set<EntryKey>();

  begin(key: EntryKey): void {
    this.#begun.add(key);
  }

  end(key: EntryKey): void {
    this.#begun.delete(key);
  }

  /** Ends an attempt in vain. */
  rest(key: EntryKey): void {
    this.end(key);
    this.#untilMs.delete(key);
    this.#untilMs.set(key, monotonicMs() + REST_MS);
    const nowMs = monotonicMs();
    for (const [oldest, untilMs] of this.#untilMs) {
      if (untilMs > nowMs && this.#untilMs.size <= RESTING_MAX) break;
      this.#untilMs.delete(oldest);
    }
  }

  /** Whether an entry is not to be loaded behind an answer now. */
  rests(key: EntryKey): boolean {
    if (this.#begun.has(key)) return true;
    const untilMs = this.#untilMs.get(key);
    return untilMs !== undefined && monotonicMs() < untilMs;
  }
}
