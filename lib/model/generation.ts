import { randomBytes } from 'node:crypto';

/**
 * A generation's value in the store: `<n>.<nonce>`.
 *
 * `n` counts the bumps since the generation was minted, for people to read. The nonce, 96 random bits made by the
 * client for each attempt, makes the token one never used before. **Invariant.** No two values that a scope's
 * generation ever had are equal, whatever was evicted, flushed, restored or failed over in between: a counter that
 * was lost and starts again at 0 has another nonce. Tokens are compared for equality only.
 *
 * Around a strict commit writers' tokens stand in a generation's place (`quarantine.ts`), and readers bypass the cache.
 * So they do for a value of any other form, which is not ours to understand: a later release may write one there.
 */
declare const brand: unique symbol;

export type Generation = string & { readonly [brand]: 'Generation' };

/** 96 bits as base64url. */
const NONCE_BYTES = 12;

const GENERATION = /^[0-9]{1,15}\.[A-Za-z0-9_-]{16}$/;
export const GENERATION_RULE = 'digits, a dot and 16 base64url characters';

/** Random bytes are drawn for this many nonces at once: one draw costs 3 µs, whatever its size up to some kB. */
const POOL_NONCES = 256;
let pool = Buffer.alloc(0);
let drawn = 0;

/** A nonce for one attempt of one command. A retry takes another: no command that carries one is ever resent. */
export function nonce(): string {
  if (drawn === pool.length) {
    pool = randomBytes(NONCE_BYTES * POOL_NONCES);
    drawn = 0;
  }
  return pool.toString('base64url', drawn, (drawn += NONCE_BYTES));
}

/** The value of a generation that has been bumped `n` times under this nonce. */
export function generation(n: number, attempt: string): Generation {
  return `${n}.${attempt}` as Generation;
}

/** The generation that these bytes are, or `undefined` for foreign ones. */
export function parseGeneration(bytes: Buffer | string): Generation | undefined {
  const value = typeof bytes === 'string' ? bytes : bytes.toString('latin1');
  return GENERATION.test(value) ? (value as Generation) : undefined;
}

/** How many bumps a generation has seen. */
export function bumpCount(value: Generation): number {
  return Number.parseInt(value, 10);
}
