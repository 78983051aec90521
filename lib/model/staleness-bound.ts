import { wholeNumber } from '../errors/option-checks.js';

/** A bound that readers may ask for, and relays vouch for. Throws ConfigurationError. */
export function checkBound(boundMs: number): number {
  return wholeNumber('maxStalenessMs', boundMs, 100, 3_600_000, 'no bound');
}
