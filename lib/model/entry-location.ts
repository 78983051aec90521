import type { KeyChecksum } from '../codec/envelope.js';
import type { Generation } from './generation.js';
import type { EntryKey } from './key.js';

/** Where an entry is under given generations. */
export interface EntryLocation {
  /** The entry's name and the ids of its key, as they stand in the key. */
  readonly entryPath: string;
  /** Of the vector's scopes, in their order. */
  readonly generations: readonly Generation[];
  readonly key: EntryKey;
  readonly checksum: KeyChecksum;
}
