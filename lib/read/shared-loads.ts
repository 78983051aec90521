import type { Vector } from '../model/vector.js';
import type { BatchSlot } from './batch-slot.js';

/**
 * The loads under way in a process, and the readers that join them.
 *
 * A reader that starts after a commit must not get a load that began before it (docs/protocol.md, rule 2):
 *
 * - A miss joins a load of its entry under way in this process if both looked up the same vector: the later reader read
 *   that vector from the store after it began, so no bump lies between the two. A load stays joinable until its fill has
 *   settled, since its value is as valid as the entry that the fill stores.
 * - A bypass has no vector. It shares a load with the bypasses of its own turn, which all began before that load, and no
 *   later reader joins it. That holds for a missing freshness key too, although a load younger than the bound would be
 *   young enough: a caller of `transaction` would not read its own writes, and a reader would see a strict commit late.
 * - A load on a caller's transaction is never shared.
 */
export class SharedLoads {
  /** The slot that loads, by entry key, which holds the vector. */
  readonly #byKey = new Map<string, BatchSlot>();

  /**
   * Joins a slot whose lookup missed to the load of its vector, unless that value would be older than the TTL. Returns
   * false if there is no such load: then the slot must load, and later slots join it until `end`.
   */
  join(slot: BatchSlot, vector: Vector): boolean {
    const load = this.#byKey.get(vector.entryKey);
    if (load !== undefined && vector.capturedAtMs - load.vector!.capturedAtMs < slot.address.definition.ttlMs) {
      load.join(slot);
      return true;
    }
    this.#byKey.set(vector.entryKey, slot);
    return false;
  }

  /** Ends the loads of these slots: no later slot joins them. */
  end(slots: readonly BatchSlot[]): void {
    for (const slot of slots) {
      const key = slot.vector?.entryKey;
      if (key !== undefined && this.#byKey.get(key) === slot) this.#byKey.delete(key);
    }
  }
}
