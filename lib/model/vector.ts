import type { Address } from './entry-definition.js';
import type { EntryLocation } from './entry-location.js';
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
  readonly generations: readonly Generation[];
  /** The key of an entry under this vector. */
  readonly entryKey: EntryKey;
  /** When it was captured, by the cache's clock: an entry's TTL counts from here. */
  readonly capturedAtMs: number;
  /** What was looked up: a fill stores its value there and nowhere else. */
  readonly #address: Address;

  constructor(address: Address, location: EntryLocation, capturedAtMs: number) {
    this.#address = address;
    this.generations = location.generations;
    this.entryKey = location.key;
    this.capturedAtMs = capturedAtMs;
  }

  /** The address that a vector was captured for; undefined for a value that is no vector. */
  static addressOf(vector: Vector): Address;
  static addressOf(vector: unknown): Address | undefined;
  static addressOf(vector: unknown): Address | undefined {
    return typeof vector === 'object' && vector !== null && #address in vector ? vector.#address : undefined;
  }

  /** In the order of `generations`. */
  get scopes(): readonly Scope[] {
    return this.#address.scopes;
  }

  /** For logs: `global 0.x…, detector=42 3.y…`. */
  toString(): string {
    return this.scopes.map((scope, i) => `${scope.path || 'global'} ${this.generations[i]}`).join(', ');
  }
}
