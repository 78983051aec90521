/**
 * What the age of a stored value means, for entries that are stored for longer than they are fresh, or loaded anew before
 * they expire (docs/protocol.md, rule 22).
 *
 *     fresh ---- due by chance ----| TTL |---- staleMs: served ----|---- staleOnErrorMs: if the load fails ----| gone
 */
import type { Life } from '../codec/envelope.js';
import type { EntryDefinition } from '../model/entry-definition.js';

/** `due`: fresh, and to be loaded anew. `fallback`: for callers whose load fails. `expired`: as if it were not there. */
export type Age = 'fresh' | 'due' | 'stale' | 'fallback' | 'expired';

/** `freshForMs`: the time until the end of the TTL, below 0 after it. */
export function ageOf(definition: EntryDefinition, { loadMs }: Life, freshForMs: number): Age {
  const { earlyRefresh, staleMs, staleOnErrorMs } = definition;
  if (freshForMs > 0) {
    // XFetch (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015): each hit
    // draws how long before the end it takes the value for expired, so that on average one of them loads in time.
    const isDue = earlyRefresh > 0 && -loadMs * earlyRefresh * Math.log(Math.random()) >= freshForMs;
    return isDue ? 'due' : 'fresh';
  }
  if (-freshForMs <= staleMs) return 'stale';
  return -freshForMs <= staleOnErrorMs ? 'fallback' : 'expired';
}
