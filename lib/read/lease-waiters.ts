/**
 * Slots whose entries other processes load. One poll asks for all of them together: a look at generations, entries and
 * leases, without values (docs/protocol.md, rule 21a). A slot whose lease changed hands over to `ended`.
 */
import { inNoContext } from '../async/no-context.js';
import { clearTimeout, monotonicMs, setTimeout } from '../async/scheduling.js';
import type { BatchSlot } from './batch-slot.js';
import type { LeaseClaim } from './leases.js';

interface LeaseWaitersOptions {
  /** Looks at the leases of slots: `slots: [n] -> [n]`. Never rejects. */
  readonly look: (slots: readonly BatchSlot[]) => Promise<readonly LeaseClaim[]>;
  /** Takes slots whose lease is no longer held, or that have waited for long enough (`late`). */
  readonly ended: (slots: readonly BatchSlot[], late: readonly BatchSlot[]) => void;
}

/** Pause between two polls: a fifth of the time since the last slot came, within these limits, in ms. */
const PAUSE_MIN_MS = 5;
const PAUSE_MAX_MS = 25;
const PAUSES_PER_WAIT = 5;
/** Least pause for each waiting slot, in ms: the store spends some 3 µs on each, and other processes poll too. */
const PAUSE_PER_SLOT_MS = 0.05;
/** For many slots: least pause as a multiple of the last look's duration, and its limit in ms. A store that is asked much is slow. */
const MANY = 100;
const PAUSE_PER_LOOK = 10;
const PAUSE_AFTER_LOOK_MAX_MS = 250;

export class LeaseWaiters {
  readonly #look: LeaseWaitersOptions['look'];
  readonly #ended: LeaseWaitersOptions['ended'];
  readonly #waiting = new Set<BatchSlot>();
  /** When the last slot came. */
  #addedAtMs = 0;
  /** The duration of the last look. */
  #lookMs = 0;
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
    this.#addedAtMs = monotonicMs();
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
    const shareMs = (monotonicMs() - this.#addedAtMs) / PAUSES_PER_WAIT;
    const isMany = this.#waiting.size >= MANY;
    const afterLookMs = isMany ? Math.min(PAUSE_AFTER_LOOK_MAX_MS, PAUSE_PER_LOOK * this.#lookMs) : 0;
    const leastMs = Math.max(PAUSE_MIN_MS, PAUSE_PER_SLOT_MS * this.#waiting.size, afterLookMs);
    const pauseMs = Math.max(leastMs, Math.min(PAUSE_MAX_MS, shareMs));
    // Polls are for all that wait, and belong to none of their callers.
    return inNoContext(setTimeout, this.#pollNow, pauseMs * (0.5 + Math.random() / 2)); // jitter
  }

  readonly #pollNow = (): void => void this.#poll();

  async #poll(): Promise<void> {
    const slots = [...this.#waiting];
    const startedAtMs = monotonicMs();
    const claims = await this.#look(slots);
    const nowMs = monotonicMs();
    this.#lookMs = nowMs - startedAtMs;
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
