/**
 * Tries a failed load of several callers again, so that no caller is rejected for the ids of another.
 *
 * The slots of a load fall into groups: slots of one group have the same callers, so an error of a group is an error of
 * each of them. A failed load is halved by groups, and each half that fails is halved again, until one group is left: one
 * bad id among 1,000 callers costs some 20 queries. Rounds follow one another; the queries of a round run together, eight
 * at most.
 *
 * A source that is down fails every query. So if eight parts have failed and none has succeeded, no further query is
 * sent, and each caller gets the error of its part. A caller of a good id is rejected then, or when `QUERIES_MAX` queries
 * or `TIME_MAX_MS` did not suffice, and never otherwise.
 */
import type { Clock } from '../ports/clock.js';
import type { BatchSlot } from './batch-slot.js';
import type { Call } from './call.js';

/** Parts that fail without any success, before the source counts as down. Also the most queries at once. */
const PARTS_MAX = 8;
/** Most queries that one failed load causes. */
const QUERIES_MAX = 64;
/** No query begins later than this after the failure, in ms: a source that fails slowly must not hold its callers. */
const TIME_MAX_MS = 10_000;

/** Slots that are unanswered, since their load failed. */
export interface FailedLoad {
  readonly slots: readonly BatchSlot[];
  readonly error: unknown;
}

interface Apart {
  readonly clock: Clock;
  readonly failed: FailedLoad;
  /** Loads and answers slots; returns the load if it failed. Never rejects. */
  readonly load: (slots: readonly BatchSlot[]) => Promise<FailedLoad | undefined>;
  /** Rejects the callers of slots. */
  readonly fail: (failed: FailedLoad) => void;
}

export async function loadApart({ clock, failed, load, fail }: Apart): Promise<void> {
  let parts: readonly FailedLoad[] = [failed];
  let queries = 0;
  let succeeded = false;
  const startedAtMs = clock.nowMs();
  while (parts.length > 0) {
    const halves: BatchSlot[][] = [];
    const isDown = parts.length >= PARTS_MAX && !succeeded;
    const isLate = clock.nowMs() - startedAtMs > TIME_MAX_MS;
    for (const part of parts) {
      // Anew in each round: further readers may have joined meanwhile.
      const groups = byCallers(part.slots);
      if (isDown || isLate || groups.length === 1 || queries + halves.length + 2 > QUERIES_MAX) fail(part);
      else {
        const middle = Math.ceil(groups.length / 2);
        halves.push(groups.slice(0, middle).flat(), groups.slice(middle).flat());
      }
    }
    const again: FailedLoad[] = [];
    for (let start = 0; start < halves.length; start += PARTS_MAX) {
      for (const part of await Promise.all(halves.slice(start, start + PARTS_MAX).map(load))) {
        if (part === undefined) succeeded = true;
        else again.push(part);
      }
    }
    queries += halves.length;
    parts = again;
  }
}

/** Returns the slots in groups with the same callers each. */
function byCallers(slots: readonly BatchSlot[]): BatchSlot[][] {
  const numbers = new Map<Call, number>();
  const groups = new Map<string, BatchSlot[]>();
  for (const slot of slots) {
    const own = slot.callers.map((call) => {
      const number = numbers.get(call) ?? numbers.size;
      numbers.set(call, number);
      return number;
    });
    const key = own.sort((a, b) => a - b).join();
    const group = groups.get(key);
    if (group) group.push(slot);
    else groups.set(key, [slot]);
  }
  return [...groups.values()];
}
