import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';
import type { EntryDefinition } from './entry-definition.js';

/** What a cache was told to be: for tools that hold its declarations against a database. Not exported to users. */
export interface DeclaredEntries {
  readonly cache: string;
  /** In the order of their declaration; grows with later ones. */
  readonly entries: readonly EntryDefinition[];
}

const DECLARED = new WeakMap<object, DeclaredEntries>();

/** Makes the declarations of a cache known to `declaredEntriesOf`. */
export function noteEntries(cache: object, declared: DeclaredEntries): void {
  DECLARED.set(cache, declared);
}

/** The declarations of a cache. Throws ConfigurationError for another object. */
export function declaredEntriesOf(cache: object): DeclaredEntries {
  const declared = typeof cache === 'object' && cache !== null ? DECLARED.get(cache) : undefined;
  if (declared !== undefined) return declared;
  throw new ConfigurationError(
    `\`cache\` must be a GenerationalCache of this copy of gencache, but got ${describe(cache)}. ` +
      'Pass the cache that declares the entries.',
  );
}
