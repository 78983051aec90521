import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';

const CACHE_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

/**
 * Returns `name` if it can name a cache. The name is a part of every key and every event, and a bump reaches only the
 * cache that it names: entries under a mistyped name would never be invalidated. Throws ConfigurationError.
 */
export function checkCacheName(name: unknown): string {
  if (typeof name === 'string' && CACHE_NAME.test(name)) return name;
  throw new ConfigurationError(
    'The name of a cache must be 1 to 64 letters, digits, "_", "." and "-", the first a letter or a digit, but got ' +
      `${describe(name)}. Pass such a name, the same in every process.`,
  );
}
