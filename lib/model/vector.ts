import type { Address } from './entry-definition.js';
import type { EntryLocation } from './entry-location.js';
import type { Generation } from './generation.js';
import type { EntryKey } from './key.js';
import type { Scope } from './scope.js';

/**
 * The generations that a lookup read: those of the entry's scope and all its ancestors, root first, then those of the
 * further scopes that the entry depends on, with their ancestors.
 *
 * A vector is captured before the load and never recomputed (docs/protocol.md, rule 1). Only lookups make vectors
 * (`Vector` is exported as a type), and a fill demands one, so that no value is stored under generations that were read
 * after it was loaded.
 */
export class Vector {
  readonly generations: readonly Generation[];
  /** The key of the entry under this vector. */
  readonly entryKey: EntryKey;
  /** Instant of the capture, by the cache's clock; the entry's TTL counts from here. */
  readonly capturedAtMs: number;
  /** The address that was looked up; a fill stores its value there and nowhere else. */
  readonly #address: Address;

  constructor(address: Address, location: EntryLocation, capturedAtMs: number) {
    this.#address = address;
    this.generations = location.generations;
    this.entryKey = location.key;
    this.capturedAtMs = capturedAtMs;
  }

  /** Returns the address of a vector; undefined for a value that is no vector. */
  static addressOf(vector: Vector): Address;
  static addressOf(vector: unknown): Address | undefined;
  static addressOf(vector: unknown): Address | undefined {
    return typeof vector === 'object' && vector !== null && #address in vector ? vector.#address : undefined;
  }

  /** The scopes of `generations`, in the same order. */
  get scopes(): readonly Scope[] {
    return this.#address.scopes;
  }

  /** For logs: `global 0.x…, detector=42 3.y…`. */
  toString(): string {
    return this.scopes.map((scope, i) => `${scope.path || 'global'} ${this.generations[i]}`).join(', ');
  }
}
