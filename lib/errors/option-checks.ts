import { describe } from './describe.js';
import { ConfigurationError } from './errors.js';

/** Returns `value` if it is an integer from `least` to `most`. `without` names the effect of leaving the option out. Throws ConfigurationError. */
export function wholeNumber(
  option: string,
  value: number,
  least: number,
  most: number,
  without = 'the default',
): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new ConfigurationError(
    `${option} must be an integer from ${least} to ${most}, but got ${describe(value)}. Leave it out for ${without}.`,
  );
}

/** Returns `value` if it is true or false. Throws ConfigurationError. */
export function flag(option: string, value: boolean, without = 'the default'): boolean {
  if (typeof value === 'boolean') return value;
  throw new ConfigurationError(
    `${option} must be true or false, but got ${describe(value)}. Leave it out for ${without}.`,
  );
}

/** Returns `value` if it is a number from 0 to `most`, fractions included. Throws ConfigurationError. */
export function fraction(option: string, value: number, most: number, without = 'the default'): number {
  if (typeof value === 'number' && value >= 0 && value <= most) return value;
  throw new ConfigurationError(
    `${option} must be a number from 0 to ${most}, but got ${describe(value)}. Leave it out for ${without}.`,
  );
}
