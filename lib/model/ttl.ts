import { describe } from '../errors/describe.js';
import { ConfigurationError } from '../errors/errors.js';

/**
 * Times to live, in whole milliseconds.
 *
 * An entry's TTL counts from the lookup before its load, so that a slow load never prolongs the time that its value may
 * be served. Jitter only shortens: the declared TTL is a bound. A generation lives at least twice the longest TTL
 * filled under it, and at least an hour, so that it outlives the entries it guards; a lost generation costs misses, never
 * wrong data.
 */
export const TTL_MAX_MS = 365 * 24 * 3_600_000;
const GENERATION_TTL_MIN_MS = 3_600_000;

/**
 * Returns `ttlMs` if it is an integer from 1 ms to a year. `subject` names the holder in the message: `entry "workflows"`.
 * Throws ConfigurationError.
 */
export function checkTtl(ttlMs: unknown, subject: string): number {
  if (typeof ttlMs === 'number' && Number.isInteger(ttlMs) && ttlMs >= 1 && ttlMs <= TTL_MAX_MS) return ttlMs;
  throw new ConfigurationError(
    `ttlMs must be an integer from 1 to ${TTL_MAX_MS} ms, but got ${describe(ttlMs)} (${subject}). ` +
      'Pass how long a value may be served if every bump were lost.',
  );
}

/** Shortens a TTL by up to `jitter` (0 to 1) of it, so that entries filled together do not expire together. */
export function jittered(ttlMs: number, jitter: number, random: number = Math.random()): number {
  return Math.max(1, Math.ceil(ttlMs * (1 - jitter * random)));
}

/** Returns the TTL of a generation that guards entries of this TTL at most, in ms. */
export function generationTtl(longestEntryTtlMs: number): number {
  return Math.max(2 * longestEntryTtlMs, GENERATION_TTL_MIN_MS);
}
