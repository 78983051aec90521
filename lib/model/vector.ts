import type { Generation } from './generation.js';
import type { EntryKey } from './key.js';
import type { Scope } from './scope.js';

/**
 * The generations under which a lookup looked: those of the entry's scope and all its ancestors, root first, then
 * those of further scopes the entry depends on, with their ancestors.
 *
 * A vector is captured before the load and never recomputed. Only lookups make one (`Vector` is exported as a type),
 * and a fill demands it, so that no value can be filed under generations read after it was loaded.
 */
export class Vector {
  readonly scopes: readonly Scope[];
  readonly generations: readonly Generation[];
  /** Where an entry under this vector is. */
  readonly entryKey: EntryKey;
  /** When it was captured, by the cache's clock: an entry's TTL counts from here. */
  readonly capturedAtMs: number;

  constructor(scopes: readonly Scope[], generations: readonly Generation[], entryKey: EntryKey, capturedAtMs: number) {
    this.scopes = scopes;
    this.generations = generations;
    this.entryKey = entryKey;
    this.capturedAtMs = capturedAtMs;
  }

  /** For logs: `global 0.x…, detector=42 3.y…`. */
  toString(): string {
    return this.scopes.map((scope, i) => `${scope.path || 'global'} ${this.generations[i]}`).join(', ');
  }
}
