import { describe } from './describe.js';
import { ConfigurationError } from './errors.js';

/** The value itself; `without`: what leaving it out means. Throws ConfigurationError. */
export function wholeNumber(
  option: string,
  value: number,
  least: number,
  most: number,
  without = 'the default',
): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new ConfigurationError(
    `${option} is a whole number from ${least} to ${most}. Got ${describe(value)}. Leave it out for ${without}.`,
  );
}

/** The value itself. Throws ConfigurationError. */
export function share(option: string, value: number): number {
  if (typeof value === 'number' && value >= 0 && value <= 1) return value;
  throw new ConfigurationError(
    `${option} is a share from 0 to 1. Got ${describe(value)}. Leave it out for the default.`,
  );
}
