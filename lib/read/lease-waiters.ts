/**
 * Slots whose entries other processes load. One poll asks for all of them together: a look at generations, entries and
 * leases, without values (docs/protocol.md, rule 21a). A slot whose lease changed hands over to `ended`.
 */
import { inNoContext } from '../async/no-context.js';
import { clearTimeout, monotonicMs, setTimeout } from '../async/scheduling.js';
import type { Claim } from '../ports/store.js';
import type { BatchSlot } from './batch-slot.js';

interface LeaseWaitersOptions {
  /** Looks at the leases of slots: `slots: [n] -> [n]`. Never rejects. */
  readonly look: (slots: readonly BatchSlot[]) => Promise<readonly Claim[]>;
  /** Takes slots whose lease is no longer held, or that have waited for long enough (`late`). */
  readonly ended: (slots: readonly BatchSlot[], late: readonly BatchSlot[]) => void;
}

/** Pause between two polls, in ms: it grows while the same slots wait. Jitter shortens it by up to a half. */
const PAUSE_MIN_MS = 5;
const PAUSE_MAX_MS = 25;
/** Least ratio of the pause to the time that the poll before it took: many waiting slots must not keep the store busy. */
const PAUSES_PER_POLL = 5;

export class LeaseWaiters {
  readonly #look: LeaseWaitersOptions['look'];
  readonly #ended: LeaseWaitersOptions['ended'];
  readonly #waiting = new Set<BatchSlot>();
  #pauseMs = PAUSE_MIN_MS;
  #pollMs = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor({ look, ended }: LeaseWaitersOptions) {
    this.#look = look;
    this.#ended = ended;
  }

  /** Number of entries that wait for another process. */
  get size(): number {
    return this.#waiting.size;
  }

  /** Takes slots whose lease another process holds; each has the instant until which it waits. */
  add(slots: readonly BatchSlot[]): void {
    if (slots.length === 0) return;
    for (const slot of slots) this.#waiting.add(slot);
    this.#pauseMs = PAUSE_MIN_MS;
    this.#timer ??= this.#schedule();
  }

  /** Ends the waiting. Returns the slots that waited. */
  close(): BatchSlot[] {
    clearTimeout(this.#timer);
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    return waiting;
  }

  #schedule(): NodeJS.Timeout {
    const pauseMs = Math.max(this.#pauseMs, PAUSES_PER_POLL * this.#pollMs) * (0.5 + Math.random() / 2);
    this.#pauseMs = Math.min(PAUSE_MAX_MS, this.#pauseMs * 1.5);
    // Polls are for all that wait, and belong to none of their callers.
    return inNoContext(setTimeout, this.#pollNow, pauseMs);
  }

  readonly #pollNow = (): void => void this.#poll();

  async #poll(): Promise<void> {
    const startedAtMs = monotonicMs();
    const slots = [...this.#waiting];
    const claims = await this.#look(slots);
    const nowMs = monotonicMs();
    this.#pollMs = nowMs - startedAtMs;
    const ended: BatchSlot[] = [];
    const late: BatchSlot[] = [];
    for (const [i, slot] of slots.entries()) {
      // Closed meanwhile.
      if (!this.#waiting.has(slot)) continue;
      if (claims[i] !== 'held' || !slot.isWanted) ended.push(slot);
      else if (nowMs >= slot.waitsUntilMs!) late.push(slot);
      else continue;
      this.#waiting.delete(slot);
    }
    this.#timer = this.#waiting.size > 0 ? this.#schedule() : undefined;
    if (ended.length + late.length > 0) this.#ended(ended, late);
  }
}
