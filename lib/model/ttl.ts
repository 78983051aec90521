import { ConfigurationError } from '../errors/errors.js';

/**
 * Times to live, in whole milliseconds.
 *
 * An entry's TTL counts from the lookup before its load, so that a slow load never prolongs how long its value may be
 * served. Jitter only shortens: the declared TTL is a bound. A generation lives at least twice the longest TTL
 * filled under it, and an hour, so that it outlives what it guards; losing one costs misses, never wrong data.
 */
export const TTL_MAX_MS = 365 * 24 * 3_600_000;
const GENERATION_TTL_MIN_MS = 3_600_000;

/** Throws ConfigurationError unless `ttlMs` is a whole number of milliseconds from 1 to a year. */
export function checkTtl(ttlMs: unknown, where: string): number {
  if (typeof ttlMs === 'number' && Number.isInteger(ttlMs) && ttlMs >= 1 && ttlMs <= TTL_MAX_MS) return ttlMs;
  throw new ConfigurationError(
    `A TTL is a whole number of milliseconds from 1 to ${TTL_MAX_MS} (a year): everything stored expires. ` +
      `${where} got ${String(ttlMs)}. Pass how long a value may be served if every bump were lost.`,
  );
}

/** Shortens by up to `jitter` (0 to 1) of the TTL, so that entries filled together do not expire together. */
export function jittered(ttlMs: number, jitter: number, random: number = Math.random()): number {
  return Math.max(1, Math.ceil(ttlMs * (1 - jitter * random)));
}

export function generationTtl(longestEntryTtlMs: number): number {
  return Math.max(2 * longestEntryTtlMs, GENERATION_TTL_MIN_MS);
}
