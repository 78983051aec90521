import { wholeNumber } from '../errors/option-checks.js';

/** Returns `boundMs` if it is a bound that readers may demand and relays guarantee: 100 ms to 1 h. Throws ConfigurationError. */
export function checkBound(boundMs: number): number {
  return wholeNumber('maxStalenessMs', boundMs, 100, 3_600_000, 'no bound');
}
