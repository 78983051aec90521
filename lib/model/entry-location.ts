import type { KeyChecksum } from '../codec/envelope.js';
import type { Generation } from './generation.js';
import type { EntryKey } from './key.js';

/** The key of an entry under given generations. */
export interface EntryLocation {
  /** The entry's name and the ids of its key, in the form that the key holds. */
  readonly entryPath: string;
  /** Generations of the vector's scopes, in their order. */
  readonly generations: readonly Generation[];
  readonly key: EntryKey;
  readonly checksum: KeyChecksum;
  /** What the local tier holds under `key`, as long as it does: `read/local-tier.ts` finds it here without a search. */
  held?: object | undefined;
}
