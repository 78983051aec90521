import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';

const CACHE_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

/** The name itself, which stands in every key and every event: one that is wrong is bumped by nobody. Throws ConfigurationError. */
export function checkCacheName(name: unknown): string {
  if (typeof name === 'string' && CACHE_NAME.test(name)) return name;
  throw new ConfigurationError(
    'A cache has a name of letters, digits, "_", "." and "-", 64 characters at most: it stands in every key. ' +
      `Got ${describe(name)}. Pass such a name, the same in every process.`,
  );
}
